"""The PatchGAN discriminator (Isola et al. 2017; Zhu et al. 2017, 7.2)."""

from __future__ import annotations

from tensorflow import keras

from cyclegan_tf.config import Config, DiscriminatorConfig
from cyclegan_tf.models import layers
from cyclegan_tf.models.generator import normal_initializers

_MAX_WIDENING = 8  # 64-128-256-512, and no wider.


def build_discriminator(
    config: Config, *, image_size: int | None = None, seed: int = 0, name: str = "discriminator"
) -> keras.Model:
    """A discriminator as the configuration describes it.

    Args:
        config: the settings; ``config.discriminator``.
        image_size: side of the pictures; None for any height and width.
        seed: seed of the weights, N(0, 0.02) as in the paper (7.1).
        name: the model's name.

    Returns:
        A Functional model, float [batch, size, size, 3] in [-1, 1] to float32 logits [batch, h, w,
        channels], one per patch: 30×30 patches of 70×70 pixels for `paper` at 256 pixels.

    Raises:
        ValueError: if the pictures are too small for the layers.
    """
    settings, initializers = config.discriminator, normal_initializers(seed)
    if image_size is not None and settings.map_side(image_size) < 1:
        raise ValueError(
            f"image_size {image_size}: too small for {settings.strided} stride-2 layers"
        )
    inputs = keras.Input((image_size, image_size, 3), name="image")
    x = inputs
    for i in range(settings.strided):
        filters = settings.filters * min(2**i, _MAX_WIDENING)
        x = _layer(x, filters, 2, settings, initializers, f"layer_{i + 1}", norm=i > 0)
    filters = settings.filters * min(2**settings.strided, _MAX_WIDENING)
    x = _layer(x, filters, 1, settings, initializers, f"layer_{settings.strided + 1}")
    x = _convolution(x, settings.channels, 1, settings, initializers, "decision", bias=True)
    outputs = keras.layers.Activation("linear", dtype="float32", name="logits")(x)
    return keras.Model(inputs, outputs, name=name)


def feature_extractor(discriminator: keras.Model) -> keras.Model:
    """The same pictures to the outputs of all layers but the decision, with the same weights."""
    outputs = [layer.output for layer in discriminator.layers if layer.name.endswith("_relu")]
    return keras.Model(discriminator.input, outputs, name=f"{discriminator.name}_features")


def _layer(x, filters, stride, settings: DiscriminatorConfig, initializers, name, *, norm=True):
    norm = norm and not settings.spectral_norm  # which it would undo
    x = _convolution(x, filters, stride, settings, initializers, name, bias=not norm)
    if norm:
        x = layers.InstanceNormalization(affine=settings.affine, name=f"{name}_norm")(x)
    return keras.layers.LeakyReLU(0.2, name=f"{name}_relu")(x)


def _convolution(x, filters, stride, settings: DiscriminatorConfig, initializers, name, *, bias):
    layer = layers.SpectralConv2D if settings.spectral_norm else layers.Conv2D
    return layer(
        filters,
        settings.kernel,
        pad=1 if settings.padding == "one" else "same",
        strides=stride,
        use_bias=bias,
        kernel_initializer=next(initializers),
        name=f"{name}_conv",
    )(x)
