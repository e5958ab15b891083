"""The learning rate over time (Zhu et al. 2017, section 4)."""

from __future__ import annotations

import math

import tensorflow as tf

from cyclegan_tf.config import Config


def steps_per_epoch(config: Config, pairs: int) -> int:
    """Steps that show ``pairs`` pairs once; ``pairs`` is max(|A|, |B|)."""
    return math.ceil(pairs / config.run.batch_size)


def total_steps(config: Config, pairs: int) -> int:
    """The length of the training in optimizer steps."""
    return config.run.steps or config.run.epochs * steps_per_epoch(config, pairs)


def learning_rate(config: Config, step: tf.Tensor, total: int) -> tf.Tensor:
    """The rate of one step: constant, then falling linearly, to reach zero at the last step's end.

    A function of the step alone, so a resumed run goes on where it was.

    Args:
        config: ``config.optimizer``.
        step: int64 scalar, steps done before this one.
        total: steps of the whole training.

    Returns:
        A float32 scalar.
    """
    start = config.optimizer.decay_start * total
    left = (total - tf.cast(step, tf.float32)) / max(total - start, 1.0)
    return config.optimizer.learning_rate * tf.clip_by_value(left, 0.0, 1.0)
