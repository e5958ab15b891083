"""Winograd's algorithm against the library's convolution and its gradients."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from cyclegan_tf.models import layers, winograd


def normal(shape: list[int], seed: int) -> tf.Tensor:
    return tf.random.stateless_normal(shape, [seed, 7])


def values_and_gradients(convolution, padded, kernel, upstream) -> list[tf.Tensor]:
    with tf.GradientTape() as tape:
        tape.watch([padded, kernel])
        outputs = convolution(padded, kernel)
    gradients = tape.gradient(outputs, [padded, kernel], output_gradients=upstream)
    return [outputs, *gradients]


def library_convolution(padded: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    return tf.nn.conv2d(padded, kernel, 1, "VALID")


@pytest.fixture
def everywhere(monkeypatch):
    """Small maps of few channels go by Winograd's algorithm, too."""
    monkeypatch.setattr(winograd, "_FEWEST_CHANNELS", 1)
    monkeypatch.setattr(winograd, "_FEWEST_PIXELS", 1)


@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize(
    ("batch", "height", "width", "channels", "filters"),
    [(1, 2, 2, 1, 1), (2, 6, 10, 5, 3), (3, 4, 2, 2, 4), (1, 32, 32, 64, 64)],
)
def test_it_is_the_convolution(batch, height, width, channels, filters, in_graph):
    padded = normal([batch, height + 2, width + 2, channels], 1)
    kernel = normal([3, 3, channels, filters], 2)
    upstream = normal([batch, height, width, filters], 3)
    right = values_and_gradients(library_convolution, padded, kernel, upstream)

    def ours(padded, kernel, upstream):
        return values_and_gradients(winograd.convolve, padded, kernel, upstream)

    found = (tf.function(ours) if in_graph else ours)(padded, kernel, upstream)
    for mine, theirs in zip(found, right):
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, atol=3e-6 * float(tf.reduce_max(abs(theirs))))


@pytest.mark.parametrize("most", [1, 8 * 6 * 4, 5 * 8 * 6 * 4 // 2])
def test_large_maps_are_taken_in_parts(monkeypatch, most):
    monkeypatch.setattr(winograd, "_MOST_NUMBERS", most)
    padded, kernel = normal([5, 8, 6, 4], 1), normal([3, 3, 4, 3], 2)
    upstream = normal([5, 6, 4, 3], 3)
    found, right = (
        values_and_gradients(each, padded, kernel, upstream)
        for each in (winograd.convolve, library_convolution)
    )
    for mine, theirs in zip(found, right):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)


def test_one_tile_worked_by_hand():
    """Ones under a kernel of ones: every output pixel is a sum of nine."""
    outputs = winograd.convolve(tf.ones([1, 4, 4, 1]), tf.ones([3, 3, 1, 1]))
    np.testing.assert_array_equal(outputs, 9.0 * np.ones([1, 2, 2, 1]))


@pytest.mark.parametrize(
    ("shape", "kernel", "strides", "dtype"),
    [
        ([1, 33, 34, 128], [3, 3, 128, 128], (1, 1), tf.float32),  # odd sides
        ([1, 34, 34, 128], [3, 3, 128, 128], (2, 2), tf.float32),
        ([1, 34, 34, 128], [4, 4, 128, 128], (1, 1), tf.float32),
        ([1, 34, 34, 128], [3, 3, 128, 128], (1, 1), tf.bfloat16),
        ([1, 34, 34, 128], [3, 3, 128, 32], (1, 1), tf.float32),  # few channels
        ([1, 18, 18, 128], [3, 3, 128, 128], (1, 1), tf.float32),  # a small map
    ],
)
def test_where_it_does_not_pay(shape, kernel, strides, dtype):
    assert not winograd.pays(tf.zeros(shape, dtype), tf.zeros(kernel), strides)


def test_where_it_pays():
    padded, kernel = tf.zeros([1, 34, 34, 128]), tf.zeros([3, 3, 128, 128])
    assert winograd.pays(padded, kernel, (1, 1))

    @tf.function(input_signature=[tf.TensorSpec([None, 34, 34, 128])])
    def of_unknown_batch(padded):
        return tf.constant(winograd.pays(padded, kernel, (1, 1)))

    assert not of_unknown_batch(padded)


def operations(layer, training: bool) -> list[str]:
    traced = tf.function(lambda images: layer(images, training=training))
    graph = traced.get_concrete_function(tf.TensorSpec([2, 8, 6, 4])).graph
    return [operation.type for operation in graph.get_operations()]


@pytest.mark.parametrize("pad", [0, 1])
def test_a_layer_takes_it_in_training_only_and_only_in_its_scope(everywhere, pad):
    with layers.winograd_scope(True):
        inside = layers.Conv2D(5, 3, pad=pad, bias_initializer="ones")
    outside = layers.Conv2D(5, 3, pad=pad, bias_initializer="ones")
    images = normal([2, 8, 6, 4], 4)
    for layer in (inside, outside):
        layer(images)
    outside.set_weights(inside.get_weights())
    np.testing.assert_allclose(
        inside(images, training=True), outside(images, training=True), atol=1e-5
    )
    assert "Conv2D" not in operations(inside, training=True)
    assert "Conv2D" in operations(inside, training=False)
    assert "Conv2D" in operations(outside, training=True)


@pytest.mark.parametrize("recompute", [False, True])
def test_a_step_has_the_same_gradients(
    everywhere, recompute, tiny_config, new_training, pictures, monkeypatch
):
    calls, convolve = [], winograd.convolve
    monkeypatch.setattr(winograd, "convolve", lambda *given: calls.append(1) or convolve(*given))
    results, arguments = [], (pictures(2), pictures(2, seed=1), 1.0)
    for used in ("on", "off"):
        config = tiny_config(batch_size=2, winograd=used, recompute=recompute)
        step = new_training(config)
        run = tf.function(lambda *given, step=step: step.strategy.run(
            step.generator_gradients, args=given
        )[0])  # fmt: skip
        results.append([gradient.numpy() for gradient in run(*arguments)])
        assert bool(calls) == (used == "on")
        calls.clear()
    for ours, theirs in zip(*results):
        assert np.linalg.norm(ours - theirs) <= 1e-3 * np.linalg.norm(theirs)
