"""How long a training will take, from a few timed passes, before it starts."""

from __future__ import annotations

import time
from collections.abc import Collection

import tensorflow as tf
from tensorflow import keras

from cyclegan_tf.config import Config
from cyclegan_tf.models.discriminator import build_discriminator
from cyclegan_tf.models.generator import build_generator
from cyclegan_tf.models.layers import precision_scope, winograd_scope
from cyclegan_tf.training.devices import gpus_of, resolve_winograd
from cyclegan_tf.training.schedule import identity_share

_REPEATS = 3
_WITH_GRADIENT = 3  # A pass with its gradients takes about three times as long as without.
_TO_INPUT = 2  # and with the gradient of its input alone about twice as long


def expected_seconds(
    config: Config,
    precision: str,
    done: int,
    total: int,
    teachers: Collection[keras.Model] = (),
) -> float:
    """The time of the steps that are left, from passes of the generators and discriminators.

    Both directions' passes are timed in one graph, as they share the cores in a step, but one after
    the other where the step takes them so. Both generators translate and translate back, and keep
    pictures for the identity loss; both discriminators judge the generated pictures for the
    generators, and real and generated ones for themselves. The gradient penalty counts as one more
    pass with its gradients. A teacher translates, and a discriminator looks at its picture and at
    the student's. It is an estimate. The passes are those of networks made for this alone, as one
    in training may change a network.

    Args:
        config: the settings.
        precision: "float32" or "bfloat16".
        done: the steps taken, fewer than all.
        total: all steps.
        teachers: the generators that those of the run learn from.
    """
    # Virtual devices of a CPU share its cores: together they are no faster than one.
    batch = config.run.batch_size // max(1, len(gpus_of(config.run)))
    size = config.data.image_size
    images = tf.zeros([batch, size, size, 3])
    with precision_scope(precision), winograd_scope(resolve_winograd(config.run)):
        models = [
            build(config, image_size=size) for build in (build_generator, build_discriminator)
        ]

    def seconds(model: keras.Model, passes: int) -> float:
        if config.has_halves():
            return _seconds(model, [images] * passes)
        return passes * _seconds(model, [images])

    ways = 1 if config.one_sided() else 2
    generator = seconds(models[0], 2 if config.contrast.identity else ways)
    discriminator = seconds(models[1], ways)
    cycle = 1.0 if config.losses.lambda_cycle else 0.0
    identity = 0.0
    if config.losses.lambda_identity:
        identity = identity_share(config, done, total, total)
    own = 3 if config.losses.gradient_penalty else 2
    teaching = sum(_seconds(teacher, [images]) for teacher in teachers)
    teaching += discriminator * (1 + _TO_INPUT) * len(teachers) / ways
    judging = discriminator * (_TO_INPUT + _WITH_GRADIENT * own)
    # One-sided, a half of the generator's forward pass goes for the features.
    passes = 1.5 if config.one_sided() else 1 + cycle + identity
    translating = generator * passes * (_WITH_GRADIENT + config.run.recompute)
    return (total - done) * (translating + judging + teaching)


def duration_text(seconds: float) -> str:
    """A rough time for people: "40 s", "25 min", "3.5 h", "2.1 days"."""
    for limit, unit, name in ((90, 1, "s"), (90 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            value = seconds / unit
            return f"{value:.0f} {name}" if name != "h" else f"{value:.1f} {name}"
    return f"{seconds / 86400:.1f} days"


def _seconds(model, batches: list[tf.Tensor]) -> float:
    """The shortest time of a few that all batches' passes take together, after one that traces."""
    run = tf.function(
        lambda *each: tf.add_n([tf.reduce_sum(model(batch, training=True)) for batch in each])
    )
    times = []
    for _ in range(1 + _REPEATS):
        start = time.monotonic()
        run(*batches).numpy()
        times.append(time.monotonic() - start)
    return min(times[1:])
