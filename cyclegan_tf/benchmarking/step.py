"""How long a training step takes, without input and logging."""

from __future__ import annotations

import time
from typing import Callable

import tensorflow as tf

from cyclegan_tf.benchmarking.table import Table
from cyclegan_tf.benchmarking.tutorial import TutorialStep, check_rendered
from cyclegan_tf.config import Config
from cyclegan_tf.training.contrastive import make_step
from cyclegan_tf.training.devices import make_strategy, resolve_precision
from cyclegan_tf.training.state import TrainingState

_SECONDS_PER_ROUND = 3.0
_STEPS = 1000  # The length of the training matters only to the learning rate.

Take = Callable[[int], None]  # takes so many steps, and returns when they are done


def measure_step(config: Config, rounds: int, against: str = "") -> Table:
    """Seconds per optimizer step on pictures that lie in memory.

    Args:
        config: the settings.
        rounds: how often to measure, each time over about three seconds' steps, or one.
        against: "tutorial" takes turns with ``TutorialStep``, in float32 on one device.

    Raises:
        UserError: if the tutorial's step does not have such networks or losses.
    """
    if against:
        check_rendered(config)
    precision, _ = resolve_precision(config.run)
    strategy = make_strategy(config.run)
    contenders = {"step": our_step(config, precision, strategy)}
    if against:
        contenders[against] = _tutorial_step(config)
    size, batch = config.data.image_size, config.run.batch_size
    replicas = strategy.num_replicas_in_sync
    table = Table(
        f"training step, {config.preset}, {size} px, batch {batch}, {replicas} replica(s), "
        f"{precision}",
        "s/step",
    )
    for take in contenders.values():
        take(1)  # traces
    counts = {name: _steps_per_round(take) for name, take in contenders.items()}
    for _ in range(rounds):
        for name, take in contenders.items():
            table.add(name, _seconds(take, counts[name]))
    table.remark(f"{batch / table.median('step'):.2f} pairs/s")
    if against:
        table.compare("step", against)
    return table


def our_step(config: Config, precision: str, strategy: tf.distribute.Strategy) -> Take:
    """The project's own step, on noise."""
    step = make_step(config, TrainingState(config, strategy, precision), strategy, _STEPS)
    pairs = iter(_noise(config))

    def take(steps: int) -> None:
        losses = step.run(pairs, tf.constant(steps))
        float(losses["generator_ab"])  # waits for the device

    return take


def _tutorial_step(config: Config) -> Take:
    step, pairs = TutorialStep(config), iter(_noise(config))

    def take(steps: int) -> None:
        for _ in range(steps):
            float(step.run(*next(pairs)))

    return take


def _steps_per_round(take: Take) -> int:
    return max(1, int(_SECONDS_PER_ROUND / _seconds(take, 1)))


def _seconds(take: Take, steps: int) -> float:
    start = time.perf_counter()
    take(steps)
    return (time.perf_counter() - start) / steps


def _noise(config: Config) -> tf.data.Dataset:
    shape = [config.run.batch_size, config.data.image_size, config.data.image_size, 3]
    pictures = [tf.random.stateless_uniform(shape, [config.run.seed, i], -1.0, 1.0) for i in (0, 1)]
    return tf.data.Dataset.from_tensors(tuple(pictures)).repeat()
