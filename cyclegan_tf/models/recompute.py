"""Gradient checkpointing (Chen et al. 2016): less memory for one more forward pass of the blocks.

A generator's residual blocks all work at one size, so each keeps as much for the backward pass as
the next. Recomputed, a block keeps only its input, and is run again when its gradient is due.
"""

from __future__ import annotations

import re

import tensorflow as tf
from tensorflow import keras

_BLOCKS_START = re.compile(r"down_\d+_relu")
_BLOCK_END = re.compile(r"block_\d+_(add|concatenate)")


class Recomputed:
    """A generator whose residual blocks are run again in the backward pass.

    Called like the generator, with the same weights, values and gradients.

    Args:
        generator: what ``build_generator`` makes.
    """

    def __init__(self, generator: keras.Model) -> None:
        start = _outputs(generator, _BLOCKS_START)[-1]
        ends = _outputs(generator, _BLOCK_END)
        self._before = keras.Model(generator.input, start)
        self._blocks = [keras.Model(*pair) for pair in zip([start, *ends], ends)]
        self._skips = any(layer.name == "skip_add" for layer in generator.layers)
        inputs = [ends[-1], generator.input] if self._skips else ends[-1]
        self._after = keras.Model(inputs, generator.output)

    def __call__(self, images: tf.Tensor, training: bool) -> tf.Tensor:
        x = self._before(images, training=training)
        for block in self._blocks:
            x = tf.recompute_grad(lambda x, block=block: block(x, training=training))(x)
        return self._after([x, images] if self._skips else x, training=training)


def _outputs(generator: keras.Model, name: re.Pattern) -> list:
    """What the layers of such a name return, in their order."""
    return [layer.output for layer in generator.layers if name.fullmatch(layer.name)]
