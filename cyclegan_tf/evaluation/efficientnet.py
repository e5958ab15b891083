"""EfficientNet-Lite0 in Keras, for weights that were saved by PyTorch.

The architecture is that of Tan and Le 2019 with the changes of the Lite variants: no
squeeze-and-excitation, ReLU6, and a stem and head of fixed width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from tensorflow import keras

SIDE = 224
_EPSILON = 1e-3


class _Stage(NamedTuple):
    blocks: int
    kernel: int
    stride: int
    expansion: int
    filters: int


_STEM, _HEAD = 32, 1280
_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)
_SHOWN = (0, 1, 2, 4, 6)  # the last stage of each resolution: 112, 56, 28, 14 and 7


def build_efficientnet_lite0(weights: dict[str, np.ndarray]) -> keras.Model:
    """The network up to its global average pooling, with weights.

    Args:
        weights: the tensors of the PyTorch package ``efficientnet-lite-pytorch``, by name.

    Returns:
        A model from float32 [batch, 224, 224, 3], pixels scaled by (x − 127) / 128, to a list: the
        pooled features [batch, 1280], then the last activations of each resolution.

    Raises:
        KeyError: if a weight is missing.
        ValueError: if one has another shape.
    """
    inputs = keras.Input((SIDE, SIDE, 3), name="image")
    x = _normalized(_convolution(inputs, _STEM, 3, 2, "_conv_stem"), "_bn0")
    shown = []
    names = _block_names()
    for number, stage in enumerate(_STAGES):
        for index in range(stage.blocks):
            x = _block(x, stage, stage.stride if index == 0 else 1, next(names))
        if number in _SHOWN:
            shown.append(x)
    x = _normalized(_convolution(x, _HEAD, 1, 1, "_conv_head"), "_bn1")
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(x)
    model = keras.Model(inputs, [pooled, *shown], name="efficientnet_lite0")
    _set_weights(model, weights)
    return model


def _block_names() -> Iterator[str]:
    yield from (f"_blocks.{number}" for number in range(sum(stage.blocks for stage in _STAGES)))


def _block(x, stage: _Stage, stride: int, name: str):
    """An inverted residual block (Sandler et al. 2018)."""
    filters = x.shape[-1]
    y = x
    if stage.expansion > 1:
        y = _convolution(y, filters * stage.expansion, 1, 1, f"{name}._expand_conv")
        y = _normalized(y, f"{name}._bn0")
    y = keras.layers.DepthwiseConv2D(
        stage.kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        name=_layer_name(f"{name}._depthwise_conv"),
    )(y)
    y = _normalized(y, f"{name}._bn1")
    y = _convolution(y, stage.filters, 1, 1, f"{name}._project_conv")
    y = _normalized(y, f"{name}._bn2", relu=False)
    if stride == 1 and filters == stage.filters:
        y = keras.layers.Add()([x, y])
    return y


def _convolution(x, filters: int, kernel: int, stride: int, name: str):
    return keras.layers.Conv2D(
        filters, kernel, strides=stride, padding="same", use_bias=False, name=_layer_name(name)
    )(x)


def _normalized(x, name: str, *, relu: bool = True):
    x = keras.layers.BatchNormalization(epsilon=_EPSILON, name=_layer_name(name))(x)
    return keras.layers.ReLU(max_value=6.0)(x) if relu else x


def _layer_name(name: str) -> str:
    """A name in the file as a layer's: Keras takes no dots, nor an underscore at the front."""
    return f"lite0{name.replace('.', '-')}"


def _set_weights(model: keras.Model, weights: dict[str, np.ndarray]) -> None:
    for layer in model.layers:
        if not layer.weights:
            continue
        name = layer.name[len("lite0") :].replace("-", ".")
        if isinstance(layer, keras.layers.BatchNormalization):
            kinds = ("weight", "bias", "running_mean", "running_var")
            layer.set_weights([weights[f"{name}.{kind}"] for kind in kinds])
        else:
            # PyTorch: [out, in, height, width], or [channel, 1, height, width] if depthwise.
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            order = (2, 3, 0, 1) if depthwise else (2, 3, 1, 0)
            layer.set_weights([weights[f"{name}.weight"].transpose(order)])
