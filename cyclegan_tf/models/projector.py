"""The projector of one-sided training: features of patches to points that can be compared.

Park et al. 2020, "Contrastive Learning for Unpaired Image-to-Image Translation", section 3.2.
"""

from __future__ import annotations

from tensorflow import keras

from cyclegan_tf.config import Config
from cyclegan_tf.models.generator import BLOCK_END, DOWN_END, normal_initializers, outputs_of

_UNITS = 256
_SEED = 1 << 20  # far from those of the networks


def encoder_layers(generator: keras.Model) -> list:
    """The generator's features that are compared, beside the pixels: symbolic tensors.

    As in the paper the ends of the way down's convolutions, and the first and the middle residual
    block.
    """
    blocks = outputs_of(generator, BLOCK_END)
    middle = blocks[len(blocks) // 2 : len(blocks) // 2 + 1] if len(blocks) > 1 else []
    return [*outputs_of(generator, DOWN_END), blocks[0], *middle]


def build_projector(config: Config, generator: keras.Model) -> keras.Model:
    """A small network for the pixels and for each of ``encoder_layers``: 256 units, ReLU, 256.

    Args:
        config: the settings; the seed.
        generator: whose features will be projected.

    Returns:
        A model: a list of float [batch, patches, channels], one per layer, to a list of float32
        [batch, patches, 256] of length 1.
    """
    initializers = normal_initializers(4 * config.run.seed + _SEED)
    inputs, outputs = [], []
    for number, layer in enumerate([generator.input, *encoder_layers(generator)]):
        x = keras.Input((None, layer.shape[-1]), name=f"patches_{number}")
        inputs.append(x)
        for name in ("hidden", "point"):
            x = keras.layers.Dense(
                _UNITS,
                kernel_initializer=next(initializers),
                dtype="float32",  # It is small, and its biases' gradients are long sums.
                name=f"{name}_{number}",
            )(x)
            if name == "hidden":
                x = keras.layers.ReLU(dtype="float32", name=f"relu_{number}")(x)
        outputs.append(keras.layers.UnitNormalization(dtype="float32", name=f"unit_{number}")(x))
    return keras.Model(inputs, outputs, name="projector")
