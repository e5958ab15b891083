"""The generator: a residual image-to-image network (Johnson et al. 2016; Zhu et al. 2017, 7.2)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tensorflow import keras

from cyclegan_tf.config import STRIDE, Config, GeneratorConfig
from cyclegan_tf.models import layers

# The names of the last layers of its parts.
DOWN_END = re.compile(r"down_\d+_relu")
BLOCK_END = re.compile(r"block_\d+_(add|concatenate)")


def build_generator(
    config: Config, *, image_size: int | None = None, seed: int = 0, name: str = "generator"
) -> keras.Model:
    """A generator as the configuration describes it.

    Args:
        config: the settings; ``config.generator`` and the image size's rule for the blocks.
        image_size: side of the pictures, divisible by 4; None for any height and width.
        seed: seed of the weights, N(0, 0.02) as in the paper (7.1).
        name: the model's name.

    Returns:
        A Functional model, float [batch, size, size, 3] in [-1, 1] to float32 of the same shape and
        range.

    Raises:
        ValueError: if ``image_size`` is not divisible by 4.
    """
    if image_size is not None and image_size % STRIDE:
        raise ValueError(f"image_size {image_size}: must be divisible by {STRIDE}")
    settings, initializers = config.generator, normal_initializers(seed)
    filters = settings.filters
    inputs = keras.Input((image_size, image_size, 3), name="image")
    x = _padded_convolution(inputs, filters, 7, settings, initializers, "stem")
    x = _normalized_relu(x, settings, "stem")
    stages = range(1, settings.downsamplings + 1)
    for i in stages:
        filters *= 2
        x = _downsample(x, filters, settings, initializers, f"down_{i}")
    for i in range(1, config.generator_blocks() + 1):
        x = _residual_block(x, filters, settings, initializers, f"block_{i}", seed * 1009 + i)
    for i in stages:
        filters //= 2
        x = _upsample(x, filters, settings, initializers, f"up_{i}")
    features = x
    x = _padded_convolution(features, 3, 7, settings, initializers, "output", bias=True)
    if settings.skip:
        x = keras.layers.Add(name="skip_add")([x, inputs])
    outputs = keras.layers.Activation("tanh", dtype="float32", name="tanh")(x)
    if settings.mask:
        outputs = _masked(outputs, inputs, features, settings, initializers)
    return keras.Model(inputs, outputs, name=name)


def outputs_of(generator: keras.Model, name: re.Pattern) -> list:
    """What the layers of such a name return, in their order: symbolic tensors."""
    return [layer.output for layer in generator.layers if name.fullmatch(layer.name)]


def _masked(painted, inputs, features, settings: GeneratorConfig, initializers):
    """mask × painted + (1 − mask) × input (Pumarola et al. 2018; Mejjati et al. 2018)."""
    # 1 × 1: one of 7 × 7, as the picture's, sums up so many features that the cycle loss closes the
    # mask for good within some hundred steps, before anything is painted.
    mask = layers.Conv2D(1, 1, kernel_initializer=next(initializers), name="mask_conv")(features)
    mask = keras.layers.Activation("sigmoid", dtype="float32", name="mask")(mask)
    return layers.Blend(dtype="float32", name="blend")([mask, painted, inputs])


def normal_initializers(seed: int) -> Iterator[keras.initializers.Initializer]:
    """Endless N(0, 0.02) initializers, each with a seed of its own.

    One object shared by all layers would give equal kernels to layers of equal shape (Keras 2.15).
    """
    layer = 0
    while True:
        yield keras.initializers.RandomNormal(0.0, 0.02, seed=seed * 1009 + layer)
        layer += 1


def _padded_convolution(
    x, filters, kernel, settings: GeneratorConfig, initializers, name, *, bias=False
):
    """A stride-1 convolution that keeps the size. No bias before a norm, which would cancel it."""
    pad = kernel // 2
    if settings.padding == "reflect":
        x = layers.ReflectionPadding2D(pad, name=f"{name}_pad")(x)
        pad = 0
    return layers.Conv2D(
        filters,
        kernel,
        pad=pad,
        use_bias=bias,
        kernel_initializer=next(initializers),
        name=f"{name}_conv",
    )(x)


def _normalized(x, settings: GeneratorConfig, name):
    return layers.InstanceNormalization(affine=settings.affine, name=f"{name}_norm")(x)


def _normalized_relu(x, settings: GeneratorConfig, name):
    return keras.layers.ReLU(name=f"{name}_relu")(_normalized(x, settings, name))


def _downsample(x, filters, settings: GeneratorConfig, initializers, name):
    x = layers.Conv2D(
        filters,
        3,
        pad=1,
        strides=2,
        use_bias=False,
        kernel_initializer=next(initializers),
        name=f"{name}_conv",
    )(x)
    return _normalized_relu(x, settings, name)


def _residual_block(x, filters, settings: GeneratorConfig, initializers, name, seed):
    convolution = _separable_convolution if settings.separable else _padded_convolution
    y = convolution(x, filters, 3, settings, initializers, f"{name}_1")
    y = _normalized_relu(y, settings, f"{name}_1")
    if settings.dropout:
        y = layers.Dropout(settings.dropout, seed=seed, name=f"{name}_dropout")(y)
    convolved = convolution(y, filters, 3, settings, initializers, f"{name}_2")
    y = _normalized(convolved, settings, f"{name}_2")
    if settings.squeeze_excite:
        y = _squeeze_excite(y, convolved, filters, initializers, f"{name}_se")
    if settings.block == "concatenate":
        # relu([y, x]) with x ≥ 0 already: every block's input ends in a ReLU.
        y = keras.layers.ReLU(name=f"{name}_relu")(y)
        return keras.layers.Concatenate(name=f"{name}_concatenate")([y, x])
    return keras.layers.Add(name=f"{name}_add")([x, y])


def _separable_convolution(x, filters, kernel, settings: GeneratorConfig, initializers, name):
    pad = "same"
    if settings.padding == "reflect":
        x = layers.ReflectionPadding2D(kernel // 2, name=f"{name}_pad")(x)
        pad = "valid"
    x = keras.layers.DepthwiseConv2D(
        kernel,
        padding=pad,
        use_bias=False,
        depthwise_initializer=next(initializers),
        name=f"{name}_depthwise",
    )(x)
    return layers.Conv2D(
        filters, 1, use_bias=False, kernel_initializer=next(initializers), name=f"{name}_conv"
    )(x)


def _squeeze_excite(x, seen, filters, initializers, name):
    """Channels of ``x`` weighted by the means of ``seen`` (Hu et al. 2018, ratio 16).

    ``seen`` is ``x`` before its instance norm, after which every picture has the same means.
    """
    # TensorFlow 2.15 would sum bfloat16 numbers up in bfloat16, which stalls after some hundreds.
    pool = keras.layers.GlobalAveragePooling2D(keepdims=True, dtype="float32", name=f"{name}_pool")
    weights = pool(seen)
    weights = layers.Conv2D(
        max(1, filters // 16),
        1,
        activation=None,
        kernel_initializer=next(initializers),
        name=f"{name}_squeeze",
    )(weights)
    weights = keras.layers.ReLU(name=f"{name}_relu")(weights)
    weights = layers.Conv2D(
        filters, 1, kernel_initializer=next(initializers), name=f"{name}_excite"
    )(weights)
    weights = keras.layers.Activation("sigmoid", name=f"{name}_sigmoid")(weights)
    return keras.layers.Multiply(name=f"{name}_multiply")([x, weights])


def _upsample(x, filters, settings: GeneratorConfig, initializers, name):
    if settings.upsampling == "transpose":
        x = layers.Conv2DTranspose(
            filters, use_bias=False, kernel_initializer=next(initializers), name=f"{name}_conv"
        )(x)
    elif settings.upsampling in ("resize", "bilinear"):
        x = layers.EnlargingConv2D(
            filters,
            interpolation="bilinear" if settings.upsampling == "bilinear" else "nearest",
            padding_mode=settings.padding,
            use_bias=False,
            kernel_initializer=next(initializers),
            name=f"{name}_conv",
        )(x)
    else:
        # The reports' transposed convolution has stride 1, and so is a convolution.
        x = _padded_convolution(x, 4 * filters, 3, settings, initializers, name)
        x = layers.PixelShuffle(name=f"{name}_shuffle")(x)
    return _normalized_relu(x, settings, name)
