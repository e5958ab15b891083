"""How long a training step takes, without input and logging."""

from __future__ import annotations

import time

import tensorflow as tf

from cyclegan_tf.benchmarking.table import Table
from cyclegan_tf.config import Config
from cyclegan_tf.training.devices import make_strategy, resolve_precision
from cyclegan_tf.training.state import TrainingState
from cyclegan_tf.training.step import TrainingStep

_SECONDS_PER_ROUND = 3.0
_STEPS = 1000  # The length of the training matters only to the learning rate.


def measure_step(config: Config, rounds: int) -> Table:
    """Seconds per optimizer step on pictures that lie in memory.

    Args:
        config: the settings.
        rounds: how often to measure, each time over about three seconds' steps, or one.
    """
    strategy = make_strategy(config.run)
    precision, _ = resolve_precision(config.run.precision)
    step = TrainingStep(config, TrainingState(config, strategy, precision), strategy, _STEPS)
    pairs = iter(strategy.experimental_distribute_dataset(_noise(config)))
    step.run(pairs, tf.constant(1))
    seconds = _seconds(step, pairs, 1)
    steps = max(1, int(_SECONDS_PER_ROUND / seconds))
    size, batch = config.data.image_size, config.run.batch_size
    table = Table(
        f"training step, {config.preset}, {size} px, batch {batch}, {precision}", "s/step"
    )
    for _ in range(rounds):
        table.add("step", _seconds(step, pairs, steps))
    return table


def _seconds(step: TrainingStep, pairs, steps: int) -> float:
    start = time.perf_counter()
    losses = step.run(pairs, tf.constant(steps))
    float(losses["cycle_a"])  # waits for the device
    return (time.perf_counter() - start) / steps


def _noise(config: Config) -> tf.data.Dataset:
    shape = [config.run.batch_size, config.data.image_size, config.data.image_size, 3]
    pictures = [tf.random.stateless_uniform(shape, [config.run.seed, i], -1.0, 1.0) for i in (0, 1)]
    return tf.data.Dataset.from_tensors(tuple(pictures)).repeat()
