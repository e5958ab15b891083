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
from cyclegan_tf.training.devices import resolve_winograd

_REPEATS = 3
_WITH_GRADIENT = 3  # A pass with its gradients takes about three times as long as without.
_TO_INPUT = 2  # and with the gradient of its input alone about twice as long


def expected_seconds_per_step(
    config: Config, precision: str, replicas: int = 1, teachers: Collection[keras.Model] = ()
) -> float:
    """A step's time from those of passes of its generators and of its discriminators.

    Both directions' passes are timed in one graph, as they share the cores in a step. Both
    generators translate and translate back, and keep pictures for the identity loss; both
    discriminators judge the generated pictures for the generators, and real and generated ones for
    themselves. The gradient penalty counts as one more pass with its gradients. A teacher
    translates, and a discriminator looks at its picture and at the student's. It is an estimate.
    The passes are those of networks made for this alone, as one in training may change a network.

    Args:
        config: the settings.
        precision: "float32" or "bfloat16".
        replicas: devices that share the batch.
        teachers: the generators that those of the run learn from.
    """
    batch, size = config.run.batch_size // replicas, config.data.image_size
    images = tf.zeros([batch, size, size, 3])
    with precision_scope(precision), winograd_scope(resolve_winograd(config.run)):
        models = [
            build(config, image_size=size) for build in (build_generator, build_discriminator)
        ]
    ways = 1 if config.one_sided() else 2
    generator, discriminator = (_seconds(model, [images] * ways) for model in models)
    cycle = 1.0 if config.losses.lambda_cycle else 0.0
    identity = 1.0 if config.losses.lambda_identity else 0.0
    identity /= config.losses.identity_every
    own = 3 if config.losses.gradient_penalty else 2
    teaching = sum(_seconds(teacher, [images]) for teacher in teachers)
    teaching += discriminator * (1 + _TO_INPUT) * len(teachers) / ways
    judging = discriminator * (_TO_INPUT + _WITH_GRADIENT * own)
    if config.one_sided():  # one generator; a half of its forward pass goes for the features
        passes = 1.5 * (2 if config.contrast.identity else 1)
    else:
        passes = 1 + cycle + identity
    return generator * _WITH_GRADIENT * passes + judging + teaching


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
