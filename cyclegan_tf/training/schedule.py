"""The learning rate over time (Zhu et al. 2017, section 4)."""

from __future__ import annotations

import math

import numpy as np
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
    if config.optimizer.decay_start == 1.0:  # never; the formula would fall after the last step
        return tf.constant(full_rate(config), tf.float32)
    start = config.optimizer.decay_start * total
    left = (total - tf.cast(step, tf.float32)) / max(total - start, 1.0)
    return full_rate(config) * tf.clip_by_value(left, 0.0, 1.0)


def full_rate(config: Config) -> float:
    """The rate before it falls, scaled with the batch as asked (Goyal et al. 2017: linear)."""
    power = {"none": 0.0, "sqrt": 0.5, "linear": 1.0}[config.optimizer.rate_scaling]
    return config.optimizer.learning_rate * config.run.batch_size**power


def identity_weight(config: Config, step: tf.Tensor, total: int) -> tf.Tensor:
    """The weight of the identity loss in one step: constant, or falling linearly to zero.

    In the steps that leave it out it is 0, in the others ``identity_every`` times as large.

    Args:
        config: ``config.losses``.
        step: int64 scalar, steps done before this one.
        total: steps of the whole training.

    Returns:
        A float32 scalar.
    """
    losses = config.losses
    weight = tf.constant(losses.lambda_identity * losses.identity_every, tf.float32)
    if losses.identity_decay:
        done = tf.cast(step, tf.float32) / (losses.identity_decay * total)
        weight *= tf.clip_by_value(1.0 - done, 0.0, 1.0)
    return tf.where(step % losses.identity_every == 0, weight, 0.0)


def identity_share(config: Config, first: int, last: int, total: int) -> float:
    """The share of the steps from ``first`` to before ``last`` that take the identity loss."""
    losses, steps = config.losses, np.arange(first, last)
    taken = steps % losses.identity_every == 0
    if losses.identity_decay:
        taken &= steps < losses.identity_decay * total
    return float(taken.mean())
