"""The convolution with spectral norm, against numpy's singular values."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from cyclegan_tf.models import layers
from cyclegan_tf.models.discriminator import build_discriminator


def converged(layer, images):
    """After as many power iterations as the singular values 1, 1/2, 1/3 … can need."""
    layer.build(images.shape)
    shape = tuple(layer.kernel.shape)
    drawn = np.random.default_rng(0).normal(size=(int(np.prod(shape[:-1])), shape[-1]))
    left, _, right = np.linalg.svd(drawn, full_matrices=False)
    values = 1 / np.arange(1, shape[-1] + 1)
    layer.kernel.assign(((left * values) @ right).reshape(shape))
    for _ in range(30):
        layer(images, training=True)
    return layer


def normalized_kernel(layer) -> np.ndarray:
    kernel = tf.convert_to_tensor(layer.kernel).numpy()
    largest = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)[0]
    return kernel / largest


@pytest.mark.parametrize(("pad", "strides"), [(1, 2), (1, 1), ("same", 2), (0, 1)])
def test_the_kernel_is_divided_by_its_largest_singular_value(pad, strides, pictures):
    images = tf.constant(pictures(2))
    layer = converged(layers.SpectralConv2D(5, 4, pad=pad, strides=strides), images)
    padded = images if pad == "same" else tf.pad(images, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
    expected = tf.nn.conv2d(
        padded, normalized_kernel(layer), strides, "SAME" if pad == "same" else "VALID"
    )
    np.testing.assert_allclose(layer(images, training=False), expected, rtol=1e-3, atol=1e-4)
    assert tuple(layer.compute_output_shape((2, 16, 16, 3))) == tuple(expected.shape)


def test_one_iteration_per_call_in_training_and_none_otherwise(pictures):
    layer = layers.SpectralConv2D(5, 3, pad=1)
    layer(pictures(1), training=False)
    before = tf.convert_to_tensor(layer.vector).numpy()
    layer(pictures(1), training=False)
    np.testing.assert_array_equal(layer.vector, before)
    layer(pictures(1), training=True)
    kernel = tf.convert_to_tensor(layer.kernel).numpy().reshape(-1, 5)
    expected = before @ kernel.T @ kernel
    np.testing.assert_allclose(layer.vector, expected / np.linalg.norm(expected), rtol=1e-4)


def test_the_gradient_is_that_of_the_normalized_kernel(pictures):
    """σ = uᵀ W v with fixed u and v: the outputs do not change along the kernel itself."""
    images = tf.constant(pictures(1))
    layer = converged(layers.SpectralConv2D(4, 3, pad=1, use_bias=False), images)
    variable = layers.trainable_variables(layer)[0]
    with tf.GradientTape() as tape:
        tape.watch(variable)
        total = tf.reduce_sum(tf.square(layer(images, training=False)))
    gradient = tape.gradient(total, variable)
    along = float(tf.reduce_sum(gradient * variable))
    assert abs(along) < 1e-2 * float(tf.norm(gradient) * tf.norm(variable))


@pytest.mark.parametrize("padding", ["one", "same"])
def test_every_convolution_of_the_discriminator_has_it(tiny_config, padding, pictures):
    config = tiny_config(discriminator_spectral_norm=True, discriminator_padding=padding)
    plain = tiny_config(discriminator_padding=padding)
    with_norm, without = (build_discriminator(c, image_size=16) for c in (config, plain))
    found = [layer for layer in with_norm.layers if isinstance(layer, layers.SpectralConv2D)]
    assert len(found) == 4
    assert with_norm.output_shape == without.output_shape
    # Instance norm would undo it, and the bias.
    norms = [layers.InstanceNormalization in map(type, one.layers) for one in (with_norm, without)]
    assert norms == [False, True]
    assert all(layer.use_bias for layer in found)
    copy = type(with_norm).from_config(with_norm.get_config())
    copy.set_weights(with_norm.get_weights())
    np.testing.assert_allclose(copy(pictures(1)), with_norm(pictures(1)), atol=1e-6)
