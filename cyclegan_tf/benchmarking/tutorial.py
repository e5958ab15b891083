"""The training step as tutorials write it, to measure ours against.

The same networks as preset `paper` and the same losses and weights, but: the library's instance
norm, one call per picture and generator, one persistent tape, four Keras optimizers, and one Python
call per step. Like the tutorials, it has no history buffer.
"""

from __future__ import annotations

import tensorflow as tf
from tensorflow import keras

from cyclegan_tf.config import Config, flag
from cyclegan_tf.errors import UserError
from cyclegan_tf.models.layers import library_instance_norm

# In what its settings may differ from those of `paper`; and the rate, which takes no time.
_RENDERED = (
    *("generator_filters", "generator_downsamplings", "generator_blocks", "generator_upsampling"),
    *("discriminator_filters", "discriminator_strided", "discriminator_kernel"),
    *("discriminator_channels", "discriminator_weight", "discriminator_rate"),
)
_ELSE = (
    *("generator_", "discriminator_", "gan_loss", "gradient_penalty", "identity_", "contrast_"),
    "teacher",
)


def check_rendered(config: Config) -> None:
    """Refuses settings that the tutorial's step does not have, as the two would not compare.

    Raises:
        UserError: for the first of them.
    """
    usual = Config().flat()
    for name, value in config.flat().items():
        if value != usual[name] and not _is_rendered(name, value):
            raise UserError(
                f"--against tutorial: its step has no {flag(name)} {value}; compare without it, as "
                "with --preset paper"
            )


def _is_rendered(name: str, value: object) -> bool:
    if name == "lambda_cycle":
        return value != 0.0  # It goes round the cycle in any case, and ours does not.
    if name in _RENDERED:
        return value != "shuffle"
    return not name.startswith(_ELSE)


class TutorialStep:
    """Four networks and four optimizers, float32, on one device.

    Args:
        config: widths, depths, batch, losses' weights and Adam's settings; only networks like those
            of `paper` (transposed or resize convolutions, additive blocks) are meant.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.generator_ab, self.generator_ba = (_generator(config) for _ in range(2))
        self.discriminator_a, self.discriminator_b = (_discriminator(config) for _ in range(2))
        networks = self._networks()
        rate, betas = config.optimizer.learning_rate, config.optimizer
        self.optimizers = [
            keras.optimizers.Adam(rate, betas.beta_1, betas.beta_2) for _ in networks
        ]
        for optimizer, network in zip(self.optimizers, networks):
            optimizer.build(network.trainable_variables)

    def _networks(self) -> list[keras.Model]:
        return [self.generator_ab, self.generator_ba, self.discriminator_a, self.discriminator_b]

    @tf.function
    def run(self, real_a: tf.Tensor, real_b: tf.Tensor) -> tf.Tensor:
        """One step on a batch of A and one of B, float32 [batch, size, size, 3] in [-1, 1] each.

        Returns:
            The cycle loss, a float32 scalar.
        """
        weights = self.config.losses
        with tf.GradientTape(persistent=True) as tape:
            fake_b = self.generator_ab(real_a, training=True)
            cycled_a = self.generator_ba(fake_b, training=True)
            fake_a = self.generator_ba(real_b, training=True)
            cycled_b = self.generator_ab(fake_a, training=True)
            judged = [
                [judge(images, training=True) for images in (real, fake)]
                for judge, real, fake in (
                    (self.discriminator_a, real_a, fake_a),
                    (self.discriminator_b, real_b, fake_b),
                )
            ]
            cycle = _distance(cycled_a, real_a) + _distance(cycled_b, real_b)
            loss_ab = _squared(judged[1][1], 1.0) + weights.lambda_cycle * cycle
            loss_ba = _squared(judged[0][1], 1.0) + weights.lambda_cycle * cycle
            if weights.lambda_identity:
                same_a = self.generator_ba(real_a, training=True)
                same_b = self.generator_ab(real_b, training=True)
                loss_ab += weights.lambda_identity * _distance(same_b, real_b)
                loss_ba += weights.lambda_identity * _distance(same_a, real_a)
            loss_a, loss_b = (
                weights.discriminator_weight * (_squared(real, 1.0) + _squared(fake, 0.0))
                for real, fake in judged
            )
        losses = (loss_ab, loss_ba, loss_a, loss_b)
        for loss, network, optimizer in zip(losses, self._networks(), self.optimizers):
            variables = network.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        return cycle


def _distance(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.abs(one - other))


def _squared(decisions: tf.Tensor, target: float) -> tf.Tensor:
    return tf.reduce_mean(tf.square(decisions - target))


class _ReflectionPadding(keras.layers.Layer):
    def __init__(self, pad: int) -> None:
        super().__init__()
        self.pad = pad

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        around = [self.pad, self.pad]
        return tf.pad(inputs, [[0, 0], around, around, [0, 0]], "REFLECT")

    def compute_output_shape(self, shape):
        return (shape[0], *(side + 2 * self.pad for side in shape[1:3]), shape[3])


def _convolution(x, filters: int, kernel: int, strides: int = 1, padding: str = "reflect"):
    initializer = keras.initializers.RandomNormal(0.0, 0.02)
    if padding == "reflect":
        x, padding = _ReflectionPadding(kernel // 2)(x), "valid"
    return keras.layers.Conv2D(
        filters, kernel, strides, padding, kernel_initializer=initializer, use_bias=True
    )(x)


def _normalized_relu(x):
    return keras.layers.ReLU()(library_instance_norm()(x))


def _generator(config: Config) -> keras.Model:
    filters, size = config.generator.filters, config.data.image_size
    inputs = keras.Input((size, size, 3))
    x = _normalized_relu(_convolution(inputs, filters, 7))
    for _ in range(config.generator.downsamplings):
        filters *= 2
        x = _normalized_relu(_convolution(x, filters, 3, 2, "same"))
    for _ in range(config.generator_blocks()):
        y = _normalized_relu(_convolution(x, filters, 3))
        x = keras.layers.Add()([x, library_instance_norm()(_convolution(y, filters, 3))])
    for _ in range(config.generator.downsamplings):
        filters //= 2
        x = _normalized_relu(_enlarged(x, filters, config.generator.upsampling))
    return keras.Model(inputs, keras.layers.Activation("tanh")(_convolution(x, 3, 7)))


def _enlarged(x, filters: int, upsampling: str):
    if upsampling != "transpose":
        interpolation = "nearest" if upsampling == "resize" else "bilinear"
        enlarged = keras.layers.UpSampling2D(2, interpolation=interpolation)(x)
        return _convolution(enlarged, filters, 3)
    initializer = keras.initializers.RandomNormal(0.0, 0.02)
    return keras.layers.Conv2DTranspose(filters, 3, 2, "same", kernel_initializer=initializer)(x)


def _discriminator(config: Config) -> keras.Model:
    settings, size = config.discriminator, config.data.image_size
    inputs = keras.Input((size, size, 3))
    x = inputs
    for i in range(settings.strided + 1):
        strides = 2 if i < settings.strided else 1
        x = _convolution(x, settings.filters * min(2**i, 8), settings.kernel, strides, "same")
        x = keras.layers.LeakyReLU(0.2)(library_instance_norm()(x) if i else x)
    return keras.Model(inputs, _convolution(x, settings.channels, settings.kernel, 1, "same"))
