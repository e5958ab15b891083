"""Gradient checkpointing (Chen et al. 2016): less memory for one more forward pass.

A generator is cut into its way down, groups of about √n of its n residual blocks, and its way up.
Each keeps only its input for the backward pass, and is run again when its gradient is due.
"""

from __future__ import annotations

import math

import tensorflow as tf
from tensorflow import keras

from cyclegan_tf.models.generator import BLOCK_END, DOWN_END, outputs_of

_WITH_IMAGE = ("skip_add", "blend")  # the layers at the end that take the image, too


class Recomputed:
    """A generator whose parts are run again in the backward pass.

    Called like the generator, with the same weights, values and gradients.

    Args:
        generator: what ``build_generator`` makes.
    """

    def __init__(self, generator: keras.Model) -> None:
        ends = outputs_of(generator, BLOCK_END)
        group = math.isqrt(len(ends))
        # The last group is the one that may be smaller.
        cuts = [outputs_of(generator, DOWN_END)[-1], *ends[group - 1 : -1 : group], ends[-1]]
        self._parts = [keras.Model(*pair) for pair in zip([generator.input, *cuts], cuts)]
        self._sees_image = any(layer.name in _WITH_IMAGE for layer in generator.layers)
        image = [generator.input] if self._sees_image else []
        self._way_up = keras.Model([cuts[-1], *image], generator.output)

    def __call__(self, images: tf.Tensor, training: bool) -> tf.Tensor:
        x = images
        for part in self._parts:
            x = tf.recompute_grad(lambda x, part=part: part(x, training=training))(x)
        way_up = tf.recompute_grad(lambda *inputs: self._way_up(list(inputs), training=training))
        return way_up(x, images) if self._sees_image else way_up(x)
