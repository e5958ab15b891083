"""The layers of the networks. The one module that knows which Keras it runs on.

With tensorflow-addons (TensorFlow 2.15, Keras 2.15) InstanceNormalization extends
tensorflow-addons'
layer; without it (Keras 3) it extends Keras's GroupNormalization with one group per channel.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import tensorflow as tf
from tensorflow import keras

from cyclegan_tf.models import winograd

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tensorflow-addons announces its end of life at import.
        from tensorflow_addons.layers import InstanceNormalization as _InstanceNormalization
    _INSTANCE_NORM_ARGUMENTS: dict[str, Any] = {}
    _NO_AGGREGATION: Any = tf.VariableAggregation.NONE
except ImportError:
    _InstanceNormalization = keras.layers.GroupNormalization
    _INSTANCE_NORM_ARGUMENTS = {"groups": -1}
    _NO_AGGREGATION = "none"

_PACKAGE = "cyclegan_tf"
_MOST_REPLICAS = 1 << 16
_AROUND = [[0, 0], [1, 1], [1, 1], [0, 0]]
# How much of each pixel of a small map each of three taps on the enlarged map sees: [place, pixel,
# tap]. The nearest neighbour's two places lie right and left of the middle between two pixels, the
# bilinear ones on the left and on the right half of the second of three.
_SEEN = {
    "nearest": [[[1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 1]]],
    "bilinear": [
        [[0.75, 0.25, 0], [0.25, 0.75, 0.75], [0, 0, 0.25]],
        [[0.25, 0, 0], [0.75, 0.75, 0.25], [0, 0.25, 0.75]],
    ],
}
_FUSED_BATCH_LIMIT = 8  # Above it, one kernel call per sample costs more than it saves.


_winograd = ContextVar("winograd", default=False)


@contextmanager
def winograd_scope(used: bool):
    """Convolutions made inside are trained by Winograd's algorithm where that pays, if ``used``."""
    token = _winograd.set(used)
    try:
        yield
    finally:
        _winograd.reset(token)


@contextmanager
def precision_scope(precision: str):
    """Layers made inside compute in ``precision``; their weights are float32 either way.

    Args:
        precision: "float32" or "bfloat16".
    """
    policy = "mixed_bfloat16" if precision == "bfloat16" else "float32"
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(policy)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


def trainable_variables(model: keras.Model) -> list[tf.Variable]:
    """The model's trainable weights as plain TensorFlow variables, in the model's order."""
    return [_plain(weight) for weight in model.trainable_variables]


def variables_by_layer(model: keras.Model) -> dict[str, list[tf.Variable]]:
    """All weights, also those that are not trained, as plain variables by their layer's name.

    The same on both stacks, so that each can read what the other has saved.
    """
    return {
        layer.name: [_plain(weight) for weight in layer.weights]
        for layer in model.layers
        if layer.weights
    }


def _plain(weight: Any) -> tf.Variable:
    """A Keras 3 variable holds its TensorFlow variable in ``value``; a Keras 2 variable is one."""
    return weight if isinstance(weight, tf.Variable) else weight.value


def library_instance_norm() -> keras.layers.Layer:
    """The instance norm of tensorflow-addons or Keras as it is, to measure ours against."""
    return _InstanceNormalization(**_INSTANCE_NORM_ARGUMENTS)


@keras.utils.register_keras_serializable(_PACKAGE)
class InstanceNormalization(_InstanceNormalization):
    """Instance normalization (Ulyanov et al. 2016) with float32 statistics.

    Each channel of each picture is brought to mean 0 and variance 1 over its height and width. With
    ``affine``, a learnt scale (gamma, from 1) and shift (beta, from 0) per channel follow.

    In training, each sample goes through the batch norm kernel on its own: for one picture, batch
    norm
    in training mode is instance norm, in one operation instead of eight. Otherwise, and so in every
    exported graph, plain mean, squared difference and rsqrt are used.

    Shapes: [batch, height, width, channels] to the same, in the input's own float type.

    >>> layer = InstanceNormalization(affine=True)
    >>> layer(tf.random.normal([1, 8, 8, 3])).shape
    TensorShape([1, 8, 8, 3])
    """

    def __init__(self, affine: bool = False, epsilon: float = 1e-5, **kwargs: Any) -> None:
        # The statistics are float32 whatever the input is, so the layer must not cast its input.
        kwargs.update(_INSTANCE_NORM_ARGUMENTS, dtype="float32", autocast=False)
        kwargs.update(scale=affine, center=affine)
        super().__init__(axis=-1, epsilon=epsilon, **kwargs)
        self.affine = affine

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        batch = inputs.shape[0]
        if training and batch is not None and batch <= _FUSED_BATCH_LIMIT:
            return self._fused(inputs)
        return self._plain(inputs)

    def _fused(self, inputs: tf.Tensor) -> tf.Tensor:
        scale, offset = self._scale_and_offset(inputs.shape[-1])
        samples = tf.split(inputs, inputs.shape[0]) if inputs.shape[0] > 1 else [inputs]
        outputs = [
            tf.raw_ops.FusedBatchNormV3(
                x=sample, scale=scale, offset=offset, mean=[], variance=[], epsilon=self.epsilon
            ).y
            for sample in samples
        ]
        return tf.concat(outputs, axis=0) if len(outputs) > 1 else outputs[0]

    def _plain(self, inputs: tf.Tensor) -> tf.Tensor:
        wide = tf.cast(inputs, tf.float32)
        mean = tf.reduce_mean(wide, axis=[1, 2], keepdims=True)
        variance = tf.reduce_mean(
            tf.math.squared_difference(wide, mean), axis=[1, 2], keepdims=True
        )
        outputs = (wide - mean) * tf.math.rsqrt(variance + self.epsilon)
        if self.affine:
            outputs = outputs * tf.convert_to_tensor(self.gamma) + tf.convert_to_tensor(self.beta)
        return tf.cast(outputs, inputs.dtype)

    def _scale_and_offset(self, channels: int) -> tuple[tf.Tensor, tf.Tensor]:
        if self.affine:
            return tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        return tf.ones([channels]), tf.zeros([channels])

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        fixed = ("axis", "groups", "scale", "center", "dtype", "autocast")
        return {
            **{key: value for key, value in config.items() if key not in fixed},
            "affine": self.affine,
        }


def _cropped(images: tf.Tensor, start: int, sides: tf.Tensor) -> tf.Tensor:
    """``images[:, start : start + height, start : start + width]``.

    The gradient of a slice is a padding; that of Python's indexing, on a CPU, takes as long as a
    convolution.
    """
    sizes = tf.concat([[-1], sides, [-1]], axis=0)
    return tf.slice(images, [0, start, start, 0], sizes)


def _with_bias(layer: keras.layers.Layer, outputs: tf.Tensor) -> tf.Tensor:
    """Adds the layer's bias, if it has one.

    As a sum: the gradient of tf.nn.bias_add is summed up in bfloat16 on a CPU (TensorFlow 2.15),
    where a sum of many like numbers stops growing.
    """
    return outputs + tf.convert_to_tensor(layer.bias) if layer.use_bias else outputs


def _take_fixed(arguments: dict[str, Any], **fixed: Any) -> None:
    """Takes out of ``arguments`` what has one value only; ValueError if it is given another."""
    for name, value in fixed.items():
        given = arguments.pop(name, None)
        same = tuple(given) == value if isinstance(given, (tuple, list)) else given == value
        if given is not None and not same:
            raise ValueError(f"{name}={given!r}: this layer has {value!r} only")


def _refuse_more_than_a_convolution(layer: keras.layers.Layer) -> None:
    """ValueError for what the layers of Keras can do and ours, with their own ``call``, cannot."""
    if layer.activation is not keras.activations.get(None):
        raise ValueError("activation: this layer has none; add one after it")
    if tuple(layer.dilation_rate) != (1, 1):
        raise ValueError(f"dilation_rate={layer.dilation_rate}: this layer has 1 only")
    if getattr(layer, "groups", 1) != 1:
        raise ValueError(f"groups={layer.groups}: this layer has 1 only")


@keras.utils.register_keras_serializable(_PACKAGE)
class Conv2D(keras.layers.Conv2D):
    """A convolution that pads ``pad`` zeros on every side, as PyTorch's does, or "same" as Keras's.

    TensorFlow's SAME pads a stride-2, 3×3 convolution only right and below, which shifts the
    picture by a pixel against the authors' networks.

    One that was made in a ``winograd_scope`` is computed by Winograd's algorithm in training, where
    that pays, which differs by rounding; otherwise, and so in every exported graph, as a
    convolution.

    Shapes: [batch, h, w, c] to [batch, (h + 2 pad − kernel) // stride + 1, …, filters], or with
    "same" to [batch, h / stride rounded up, …, filters].
    """

    def __init__(
        self, filters: int, kernel_size: int, *, pad: int | str = 0, **kwargs: Any
    ) -> None:
        _take_fixed(kwargs, padding="valid", data_format="channels_last")
        super().__init__(filters, kernel_size, padding="valid", **kwargs)
        _refuse_more_than_a_convolution(self)
        self.pad = pad
        self._winograd = _winograd.get()

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        kernel = tf.convert_to_tensor(self.kernel)
        return _with_bias(self, self._convolved(inputs, kernel, bool(training)))

    def _convolved(self, inputs: tf.Tensor, kernel: tf.Tensor, training: bool) -> tf.Tensor:
        if self.pad == "same":
            return tf.nn.conv2d(inputs, kernel, strides=self.strides, padding="SAME")
        around = [self.pad, self.pad]
        padded = tf.pad(inputs, [[0, 0], around, around, [0, 0]]) if self.pad else inputs
        if training and self._winograd and winograd.pays(padded, kernel, self.strides):
            return winograd.convolve(padded, kernel)
        if self._same_pads_alike(inputs.shape):
            return tf.nn.conv2d(inputs, kernel, strides=self.strides, padding="SAME")
        return tf.nn.conv2d(padded, kernel, strides=self.strides, padding="VALID")

    def _same_pads_alike(self, shape: tf.TensorShape) -> bool:
        """Whether SAME pads just ``pad`` on every side here: it needs no padded copy.

        (The gradients of a convolution with explicit padding do not run in oneDNN, which costs far
        more than the copy.)
        """
        return self.pad > 0 and all(
            side is not None and side % stride == 0 and kernel - stride == 2 * self.pad
            for side, kernel, stride in zip(shape[1:3], self.kernel_size, self.strides)
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, height, width, _ = input_shape
        sides = [
            None if side is None else self._output_side(side, kernel, stride)
            for side, kernel, stride in zip((height, width), self.kernel_size, self.strides)
        ]
        return (batch, *sides, self.filters)

    def _output_side(self, side: int, kernel: int, stride: int) -> int:
        if self.pad == "same":
            return -(-side // stride)
        return (side + 2 * self.pad - kernel) // stride + 1

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pad": self.pad}


@keras.utils.register_keras_serializable(_PACKAGE)
class EnlargingConv2D(Conv2D):
    """Enlarging by two and a 3×3 convolution (Odena et al. 2016, "Deconvolution and checkerboard
    artifacts").

    In training it is computed from the small map, of which an output pixel sees 2×2 pixels if the
    enlarging takes the nearest neighbour, and 3×3 if it is bilinear. So one convolution of that
    size, with the kernel's taps summed for each of the four places that an output pixel may have,
    does the work, in 4/9 of the multiplications or in as many (Shi et al. 2016, "Is the
    deconvolution layer the same as a convolutional layer?"). Otherwise, and so in every exported
    graph, the map is enlarged.

    Args:
        filters: output channels.
        interpolation: "nearest" or "bilinear" (half-pixel centres).
        padding_mode: what is around the small map, one pixel wide, before it is enlarged:
            "reflect" for its edge once more, or "zero".

    Shapes: [batch, h, w, c] to [batch, 2 h, 2 w, filters].
    """

    def __init__(
        self,
        filters: int,
        *,
        interpolation: str = "nearest",
        padding_mode: str = "zero",
        **kwargs: Any,
    ) -> None:
        for fixed in ("kernel_size", "strides", "pad"):
            kwargs.pop(fixed, None)
        super().__init__(filters, 3, **kwargs)
        self.interpolation = interpolation
        self.padding_mode = padding_mode

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        sides = 2 * tf.shape(inputs)[1:3]
        if training:
            mode = "SYMMETRIC" if self.padding_mode == "reflect" else "CONSTANT"
            padded = tf.pad(inputs, _AROUND, mode)
            kernel = self._kernel_of_places()
            places = tf.nn.conv2d(padded, kernel, strides=1, padding="VALID")
            outputs = tf.nn.depth_to_space(places, 2)
            if self.interpolation == "nearest":
                outputs = _cropped(outputs, 1, sides)
        else:
            enlarged = self._enlarged(inputs, sides)
            outputs = tf.nn.conv2d(enlarged, self.kernel, strides=1, padding="VALID")
        return _with_bias(self, outputs)

    def _enlarged(self, inputs: tf.Tensor, sides: tf.Tensor) -> tf.Tensor:
        """The enlarged map, [batch, 2 h + 2, 2 w + 2, c]."""
        if self.interpolation == "nearest":
            # Mirroring the enlarged map's edge repeats the small map's edge.
            mode = "REFLECT" if self.padding_mode == "reflect" else "CONSTANT"
            return tf.pad(tf.image.resize(inputs, sides, "nearest"), _AROUND, mode)
        if self.padding_mode == "reflect":
            # As mirroring with the edge does, which a phone's GPU cannot.
            padded = tf.concat([inputs[:, :1], inputs, inputs[:, -1:]], axis=1)
            padded = tf.concat([padded[:, :, :1], padded, padded[:, :, -1:]], axis=2)
        else:
            padded = tf.pad(inputs, _AROUND)
        enlarged = tf.image.resize(padded, sides + 4, "bilinear")
        return tf.cast(_cropped(enlarged, 1, sides + 2), inputs.dtype)

    def _kernel_of_places(self) -> tf.Tensor:
        """[3, 3, c, filters] to [n, n, c, 4 filters]: the sums for each of the four places."""
        kernel = tf.convert_to_tensor(self.kernel)
        seen = tf.constant(_SEEN[self.interpolation], kernel.dtype)
        summed = tf.einsum("pay,qbx,yxcf->abcpqf", seen, seen, kernel)
        return tf.reshape(summed, [*2 * [seen.shape[1]], -1, 4 * self.filters])

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, height, width, _ = input_shape
        sides = [None if side is None else 2 * side for side in (height, width)]
        return (batch, *sides, self.filters)

    def get_config(self) -> dict[str, Any]:
        ours = {"interpolation": self.interpolation, "padding_mode": self.padding_mode}
        config = {**super().get_config(), **ours}
        return {key: value for key, value in config.items() if key != "pad"}


@keras.utils.register_keras_serializable(_PACKAGE)
class SpectralConv2D(Conv2D):
    """A convolution whose kernel is divided by its largest singular value (Miyato et al. 2018).

    The singular value is that of the kernel as a matrix [height × width × channels, filters],
    followed by one power iteration per call in training; the vector is a weight, so that a resumed
    run goes on with it. No gradient goes into the vector.

    Shapes: as ``Conv2D``.
    """

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.vector = self.add_weight(
            name="vector",
            shape=(1, self.filters),
            initializer=keras.initializers.RandomNormal(seed=0),
            trainable=False,
            aggregation=_NO_AGGREGATION,  # Every replica comes to the same value by itself.
        )

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        kernel = tf.convert_to_tensor(self.kernel)
        kernel /= tf.cast(self._largest_singular_value(bool(training)), kernel.dtype)
        return _with_bias(self, self._convolved(inputs, kernel, bool(training)))

    def _largest_singular_value(self, update: bool) -> tf.Tensor:
        """A float32 scalar; in training the vector takes one power iteration first."""
        kernel = tf.cast(tf.convert_to_tensor(self.kernel), tf.float32)
        matrix = tf.reshape(kernel, [-1, self.filters])
        fixed = tf.stop_gradient(matrix)
        right = tf.cast(tf.convert_to_tensor(self.vector), tf.float32)
        left = tf.math.l2_normalize(tf.matmul(right, fixed, transpose_b=True))
        if update:
            right = tf.math.l2_normalize(tf.matmul(left, fixed))
            self.vector.assign(right)
        else:
            right = tf.math.l2_normalize(right)
        return tf.reduce_sum(tf.matmul(left, matrix) * right)


@keras.utils.register_keras_serializable(_PACKAGE)
class Conv2DTranspose(keras.layers.Conv2DTranspose):
    """The 3×3, stride-2 transposed convolution of the authors' PyTorch code.

    It is the full one with its first row and column cut off (PyTorch: padding 1, output padding 1).

    Shapes: [batch, h, w, c] to [batch, 2 h, 2 w, filters].
    """

    def __init__(self, filters: int, **kwargs: Any) -> None:
        _take_fixed(kwargs, padding="valid", data_format="channels_last", output_padding=None)
        _take_fixed(kwargs, kernel_size=(3, 3), strides=(2, 2))
        super().__init__(filters, 3, strides=2, padding="valid", **kwargs)
        _refuse_more_than_a_convolution(self)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        batch, height, width, _ = tf.unstack(tf.shape(inputs))
        full = tf.nn.conv2d_transpose(
            inputs,
            self.kernel,
            output_shape=tf.stack([batch, 2 * height + 1, 2 * width + 1, self.filters]),
            strides=2,
            padding="VALID",
        )
        outputs = _cropped(full, 1, 2 * tf.shape(inputs)[1:3])
        outputs.set_shape(self.compute_output_shape(inputs.shape))
        return _with_bias(self, outputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, height, width, _ = input_shape
        sides = [None if side is None else 2 * side for side in (height, width)]
        return (batch, *sides, self.filters)


@keras.utils.register_keras_serializable(_PACKAGE)
class ReflectionPadding2D(keras.layers.Layer):
    """Mirrors ``pad`` pixels over every edge, without repeating the edge itself.

    Shapes: [batch, h, w, c] to [batch, h + 2 pad, w + 2 pad, c]; h and w above ``pad``.
    """

    def __init__(self, pad: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pad = pad

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        around = [self.pad, self.pad]
        return tf.pad(inputs, [[0, 0], around, around, [0, 0]], mode="REFLECT")

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, height, width, channels = input_shape
        sides = [None if side is None else side + 2 * self.pad for side in (height, width)]
        return (batch, *sides, channels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pad": self.pad}


@keras.utils.register_keras_serializable(_PACKAGE)
class Blend(keras.layers.Layer):
    """mask × one + (1 − mask) × other.

    Shapes: a list of [batch, h, w, 1] in [0, 1] and two of [batch, h, w, c] to [batch, h, w, c].
    """

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        mask, one, other = inputs
        return other + mask * (one - other)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape[1]


@keras.utils.register_keras_serializable(_PACKAGE)
class PixelShuffle(keras.layers.Layer):
    """Rearranges channels into pixels (Shi et al. 2016).

    Shapes: [batch, h, w, 4 c] to [batch, 2 h, 2 w, c].
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.nn.depth_to_space(inputs, 2)

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, height, width, channels = input_shape
        sides = [None if side is None else 2 * side for side in (height, width)]
        return (batch, *sides, channels // 4)


@keras.utils.register_keras_serializable(_PACKAGE)
class Dropout(keras.layers.Layer):
    """Dropout whose masks are a function of its seed and of how often it was called.

    Keras's own layer draws from a generator whose state is not in the checkpoint on every stack, so
    a resumed run would differ. Here the count of calls is a weight. XLA draws other masks.

    Shapes: any, unchanged.
    """

    def __init__(self, rate: float, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = rate
        self.seed = seed

    def build(self, input_shape: Any) -> None:
        self.calls = self.add_weight(
            name="calls",
            shape=(),
            dtype="int64",
            initializer="zeros",
            trainable=False,
            aggregation=_NO_AGGREGATION,  # Every replica comes to the same value by itself.
        )
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if not training:
            return inputs
        calls = self._next_call()
        replica = tf.distribute.get_replica_context()
        shift = 0 if replica is None else tf.cast(replica.replica_id_in_sync_group, tf.int64)
        seed = tf.stack([tf.constant(self.seed, tf.int64), calls * _MOST_REPLICAS + shift])
        return tf.nn.experimental.stateless_dropout(inputs, self.rate, seed=seed)

    def _next_call(self) -> tf.Tensor:
        calls = tf.convert_to_tensor(self.calls)
        self.calls.assign(calls + 1)
        return calls

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
