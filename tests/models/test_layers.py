"""The layers against formulas, the libraries' own layers, and themselves after serialisation."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from cyclegan_tf.models import layers
from cyclegan_tf.models.layers import InstanceNormalization

EPSILON = 1e-5


def library_layer(affine: bool) -> keras.layers.Layer:
    """The stack's own instance norm: tensorflow-addons' or Keras 3's."""
    arguments = {"axis": -1, "epsilon": EPSILON, "scale": affine, "center": affine}
    try:
        from tensorflow_addons.layers import InstanceNormalization as Library
    except ImportError:
        return keras.layers.GroupNormalization(groups=-1, **arguments)
    return Library(**arguments)


def formula(images: np.ndarray, upstream: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Instance norm without scale and shift, and its gradient, in float64."""
    images, upstream = images.astype(np.float64), upstream.astype(np.float64)

    def mean(values):
        return values.mean(axis=(1, 2), keepdims=True)

    deviation = np.sqrt(mean((images - mean(images)) ** 2) + EPSILON)
    normal = (images - mean(images)) / deviation
    return normal, (upstream - mean(upstream) - normal * mean(upstream * normal)) / deviation


def values_and_gradients(layer, images: tf.Tensor, upstream: tf.Tensor, **call):
    """What the layer returns, and the gradients of its input and of its weights."""
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = layer(images, **call)
    weights = layers.trainable_variables(layer)
    gradients = tape.gradient(outputs, [images, *weights], output_gradients=upstream)
    return [tf.cast(values, tf.float32).numpy() for values in (outputs, *gradients)]


def normal(shape, seed: int = 0, dtype=tf.float32) -> tf.Tensor:
    return tf.cast(tf.random.stateless_normal(shape, [seed, 1]), dtype)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch", [1, 4, 9])
def test_instance_norm_is_the_formula(batch, training):
    images, upstream = 3.0 + 2.0 * normal([batch, 6, 5, 3]), normal([batch, 6, 5, 3], seed=2)
    found = values_and_gradients(InstanceNormalization(), images, upstream, training=training)
    for mine, right in zip(found, formula(images.numpy(), upstream.numpy())):
        np.testing.assert_allclose(mine, right, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("batch", [1, 4, 9])
def test_instance_norm_is_the_librarys_in_values_and_gradients(batch, affine, training):
    images, upstream = normal([batch, 6, 5, 3]), normal([batch, 6, 5, 3], seed=2)
    mine, theirs = InstanceNormalization(affine=affine), library_layer(affine)
    for layer in (mine, theirs):
        layer.build(images.shape)
        layer.set_weights([normal([3], seed=3 + i).numpy() for i in range(2 * affine)])
    found = values_and_gradients(mine, images, upstream, training=training)
    right = values_and_gradients(theirs, images, upstream)
    assert len(found) == len(right) == (4 if affine else 2)
    for one, other in zip(found, right):
        np.testing.assert_allclose(one, other, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch", [1, 4, 9])
def test_instance_norm_has_float32_statistics_for_bfloat16(batch, training):
    # bfloat16 numbers near 100 are 0.5 apart: a mean rounded to bfloat16 would be wrong by 0.1.
    images = tf.cast(100.0 + 3.0 * normal([batch, 16, 16, 3]), tf.bfloat16)
    upstream = normal([batch, 16, 16, 3], seed=2, dtype=tf.bfloat16)
    layer = InstanceNormalization(affine=True)
    assert layer(images, training=training).dtype == tf.bfloat16
    assert all(weight.dtype == tf.float32 for weight in layers.trainable_variables(layer))
    found = values_and_gradients(layer, images, upstream, training=training)
    right = formula(*(tf.cast(each, tf.float32).numpy() for each in (images, upstream)))
    for mine, exact in zip(found, right):
        np.testing.assert_allclose(mine, exact, atol=2**-8 * np.abs(exact).max())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("spread", [0.0, 1e-4])
def test_instance_norm_of_a_nearly_constant_picture(spread, training):
    images, upstream = 0.7 + spread * normal([1, 8, 8, 2]), normal([1, 8, 8, 2], seed=2)
    found = values_and_gradients(InstanceNormalization(), images, upstream, training=training)
    for mine, right in zip(found, formula(images.numpy(), upstream.numpy())):
        # Where nothing varies, 1/deviation is 316: rounding errors grow with it.
        np.testing.assert_allclose(mine, right, rtol=1e-3, atol=2e-3)


def test_instance_norm_starts_as_the_identity_of_its_scale_and_shift():
    layer = InstanceNormalization(affine=True)
    layer.build((None, 8, 8, 3))
    np.testing.assert_array_equal(layer.gamma, np.ones(3))
    np.testing.assert_array_equal(layer.beta, np.zeros(3))
    assert InstanceNormalization(affine=False)(normal([1, 8, 8, 3])).shape == (1, 8, 8, 3)
    assert not InstanceNormalization(affine=False).weights


@pytest.mark.parametrize(
    ("batch", "training", "kernels"),
    [(1, True, 1), (4, True, 4), (9, True, 0), (None, True, 0), (4, False, 0), (4, None, 0)],
)
def test_the_fast_kernel_is_for_training_in_small_batches(batch, training, kernels):
    layer = InstanceNormalization()
    graph = tf.function(lambda images: layer(images, training=training)).get_concrete_function(
        tf.TensorSpec([batch, 8, 8, 3])
    )
    types = [operation.type for operation in graph.graph.get_operations()]
    assert types.count("FusedBatchNormV3") == kernels


LAYERS = {
    "norm": (lambda: InstanceNormalization(), (2, 8, 6, 4)),
    "affine_norm": (lambda: InstanceNormalization(affine=True, epsilon=1e-3), (2, 8, 6, 4)),
    "convolution": (lambda: layers.Conv2D(5, 3, pad=1, strides=2), (2, 8, 6, 4)),
    "convolution_4": (lambda: layers.Conv2D(5, 4, pad=1, use_bias=False), (2, 9, 7, 4)),
    "convolution_same": (lambda: layers.Conv2D(5, 4, pad="same", strides=2), (2, 9, 7, 4)),
    "enlarging": (lambda: layers.EnlargingConv2D(5, padding_mode="reflect"), (2, 4, 3, 4)),
    "bilinear": (lambda: layers.EnlargingConv2D(5, interpolation="bilinear"), (2, 4, 3, 4)),
    "transpose": (lambda: layers.Conv2DTranspose(5), (2, 4, 3, 4)),
    "padding": (lambda: layers.ReflectionPadding2D(3), (2, 8, 6, 4)),
    "shuffle": (lambda: layers.PixelShuffle(), (2, 4, 3, 8)),
    "dropout": (lambda: layers.Dropout(0.4, seed=5), (2, 4, 3, 8)),
}


@pytest.fixture(params=list(LAYERS))
def layer_and_images(request):
    """Every layer in turn, built, with pictures for it."""
    make, shape = LAYERS[request.param]
    layer, images = make(), normal(shape)
    layer(images)
    return layer, images


@pytest.mark.parametrize("copied", ["serialize", "from_config"])
def test_a_layer_survives_serialisation(layer_and_images, copied):
    layer, images = layer_and_images
    if copied == "serialize":
        twin = keras.layers.deserialize(keras.layers.serialize(layer))
    else:
        twin = type(layer).from_config(layer.get_config())
    assert type(twin) is type(layer)
    assert twin.get_config() == layer.get_config()
    twin(images)  # Builds it.
    twin.set_weights(layer.get_weights())
    np.testing.assert_array_equal(twin(images, training=True), layer(images, training=True))


def test_a_layers_shape_is_what_it_says(layer_and_images):
    layer, images = layer_and_images
    shape = tuple(layer(images).shape)
    assert tuple(layer.compute_output_shape(tuple(images.shape))) == shape
    symbolic = type(layer).from_config(layer.get_config())(
        keras.Input((None, None, images.shape[-1]))
    )
    assert tuple(symbolic.shape) == (None, None, None, shape[-1])


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("kernel", [2, 4])
def test_same_is_keras_same(kernel, strides):
    images = normal((2, 9, 8, 3))
    mine = layers.Conv2D(5, kernel, pad="same", strides=strides, bias_initializer="normal")
    theirs = keras.layers.Conv2D(5, kernel, strides, padding="same")
    upstream = normal(mine(images).shape, seed=2)
    theirs(images)
    theirs.set_weights(mine.get_weights())
    found, right = (values_and_gradients(layer, images, upstream) for layer in (mine, theirs))
    for one, other in zip(found, right):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 4, 6, 3), (2, 1, 5, 2)])
@pytest.mark.parametrize("padding", ["reflect", "zero"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("training", [True, False])
def test_enlarging_convolution_is_a_convolution_of_the_enlarged_map(
    training, interpolation, padding, shape
):
    layer = layers.EnlargingConv2D(
        5,
        interpolation=interpolation,
        padding_mode=padding,
        bias_initializer="random_normal",
    )
    images, upstream = normal(shape), normal([shape[0], 2 * shape[1], 2 * shape[2], 5], seed=2)
    layer.build(images.shape)
    kernel, bias = layers.trainable_variables(layer)
    found = values_and_gradients(layer, images, upstream, training=training)
    with tf.GradientTape() as tape:
        tape.watch(images)
        around = [[0, 0], [1, 1], [1, 1], [0, 0]]
        padded = tf.pad(images, around, "SYMMETRIC" if padding == "reflect" else "CONSTANT")
        enlarged = keras.layers.UpSampling2D(2, interpolation=interpolation)(padded)
        outputs = tf.nn.conv2d(enlarged[:, 1:-1, 1:-1], kernel, 1, "VALID") + bias
    right = [outputs, *tape.gradient(outputs, [images, kernel, bias], output_gradients=upstream)]
    for mine, theirs in zip(found, right):
        np.testing.assert_allclose(mine, theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_enlarging_in_training_never_makes_the_enlarged_map(interpolation):
    layer = layers.EnlargingConv2D(4, interpolation=interpolation)
    graph = tf.function(lambda images: layer(images, training=True)).get_concrete_function(
        tf.TensorSpec([1, 8, 8, 3])
    )
    types = {operation.type for operation in graph.graph.get_operations()}
    assert "DepthToSpace" in types and not any(kind.startswith("Resize") for kind in types)


def test_bilinear_enlarging_leaves_no_grid_on_a_slope():
    """The nearest neighbour makes stairs of it, which is where a checkerboard comes from."""

    def middle_tap(shape, dtype=None):
        return tf.reshape(tf.one_hot(4, 9), shape)

    slope = tf.reshape(tf.range(8.0), [1, 8, 1, 1]) * tf.ones([1, 1, 8, 1])
    steps = {}
    for interpolation in ("nearest", "bilinear"):
        layer = layers.EnlargingConv2D(
            1, interpolation=interpolation, kernel_initializer=middle_tap, padding_mode="reflect"
        )
        steps[interpolation] = np.diff(layer(slope)[0, 2:-2, 8, 0])
    np.testing.assert_array_equal(steps["nearest"], [0, 1] * 5 + [0])
    np.testing.assert_array_equal(steps["bilinear"], [0.5] * 11)


@pytest.mark.parametrize(
    "settings",
    [
        {"activation": "relu"},
        {"dilation_rate": 2},
        {"padding": "same"},
        {"data_format": "channels_first"},
    ],
)
@pytest.mark.parametrize(
    "make",
    [lambda **more: layers.Conv2D(4, 3, **more), lambda **more: layers.Conv2DTranspose(4, **more)],
)
def test_what_a_convolution_would_leave_out_is_refused(make, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        make(**settings)


def test_groups_and_other_kernels_are_refused():
    with pytest.raises(ValueError, match="groups"):
        layers.Conv2D(4, 3, groups=2)
    with pytest.raises(ValueError, match="strides"):
        layers.Conv2DTranspose(4, strides=(1, 1))


def test_reflection_mirrors_without_the_edge():
    row = tf.reshape(tf.range(4.0), [1, 1, 4, 1]) * tf.ones([1, 4, 1, 1])
    padded = layers.ReflectionPadding2D(2)(row)[0, :, :, 0].numpy()
    np.testing.assert_array_equal(padded, np.tile([2, 1, 0, 1, 2, 3, 2, 1], (8, 1)))


def test_pixel_shuffle_puts_four_channels_in_a_square():
    squares = layers.PixelShuffle()(tf.reshape(tf.range(8.0), [1, 1, 2, 4]))[0, :, :, 0]
    np.testing.assert_array_equal(squares, [[0, 1, 4, 5], [2, 3, 6, 7]])


def test_dropout_keeps_the_mean_and_drops_its_share():
    outputs = layers.Dropout(0.25, seed=1)(tf.ones([1, 100, 100, 4]), training=True).numpy()
    assert abs((outputs == 0).mean() - 0.25) < 0.01
    np.testing.assert_allclose(outputs[outputs != 0], 1 / 0.75, rtol=1e-6)


@pytest.mark.parametrize("training", [False, None])
def test_dropout_rests_outside_training(training):
    layer, images = layers.Dropout(0.5), normal([1, 4, 4, 2])
    np.testing.assert_array_equal(layer(images, training=training), images)
    assert int(tf.convert_to_tensor(layer.calls)) == 0


def test_dropout_is_a_function_of_seed_and_calls():
    images = tf.ones([1, 8, 8, 4])
    first, twin, other = (layers.Dropout(0.5, seed=seed) for seed in (1, 1, 2))
    masks = [tf.function(first)(images, training=True).numpy() for _ in range(2)]
    assert (masks[0] != masks[1]).any()
    for mask in masks:
        np.testing.assert_array_equal(twin(images, training=True), mask)
    assert (other(images, training=True).numpy() != masks[0]).any()


def test_dropout_draws_other_masks_on_other_replicas(mirrored):
    """Nor does one layer draw on its second replica what the next layer draws on its first."""
    strategy, masks, images = mirrored(2), [], tf.ones([1, 8, 8, 4])
    for seed in (1, 2):
        with strategy.scope():
            layer = layers.Dropout(0.5, seed=seed)
            layer.build(images.shape)
        drop = tf.function(lambda drop=layer: drop(images, training=True))
        masks += strategy.experimental_local_results(strategy.run(drop))
    assert len({mask.numpy().tobytes() for mask in masks}) == 4


def test_precision_scope_ends_with_its_block():
    before = keras.mixed_precision.global_policy().name
    with pytest.raises(KeyError), layers.precision_scope("bfloat16"):
        inside = layers.Conv2D(2, 3, pad=1)
        raise KeyError
    outputs = inside(normal([1, 8, 8, 3]))
    assert outputs.dtype == tf.bfloat16
    assert all(weight.dtype == tf.float32 for weight in layers.trainable_variables(inside))
    assert keras.mixed_precision.global_policy().name == before == "float32"


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Conv2D(3, 3, pad=1),
        lambda: layers.Conv2D(3, 2, pad="same", strides=2),
        lambda: layers.SpectralConv2D(3, 3, pad=1),
        lambda: layers.EnlargingConv2D(3),
        lambda: layers.Conv2DTranspose(3),
    ],
    ids=["convolution", "same", "spectral", "enlarging", "transposed"],
)
def test_a_biass_gradient_is_summed_in_float32(layer):
    """In bfloat16, a sum of many like numbers stops growing."""
    with layers.precision_scope("bfloat16"):
        convolution = layer()
    images = tf.zeros([1, 32, 32, 2], tf.bfloat16)
    upstream = tf.ones_like(convolution(images))
    *_, bias = values_and_gradients(convolution, images, upstream, training=True)
    np.testing.assert_allclose(bias, 3 * [upstream.shape[1] * upstream.shape[2]])
