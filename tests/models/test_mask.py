"""The attention mask: what need not change stays."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from cyclegan_tf.models.generator import build_generator


def parts(generator) -> keras.Model:
    """The mask and what is painted, beside the output."""
    outputs = [generator.get_layer(name).output for name in ("mask", "tanh")]
    return keras.Model(generator.input, [*outputs, generator.output])


@pytest.mark.parametrize("skip", [False, True])
def test_output_is_between_the_input_and_what_is_painted(tiny_config, pictures, skip):
    generator = build_generator(
        tiny_config(generator_mask=True, generator_skip=skip), image_size=16
    )
    images = pictures(2)
    mask, painted, output = (value.numpy() for value in parts(generator)(images))
    assert mask.shape == (2, 16, 16, 1)
    assert ((mask > 0) & (mask < 1)).all()
    np.testing.assert_allclose(output, mask * painted + (1 - mask) * images, atol=1e-6)
    assert np.abs(output).max() <= 1.0


def test_a_closed_mask_gives_the_picture_back(tiny_config, pictures):
    generator = build_generator(tiny_config(generator_mask=True), image_size=16)
    convolution = generator.get_layer("mask_conv")
    kernel, bias = convolution.get_weights()
    convolution.set_weights([0 * kernel, bias - 50.0])
    images = pictures(2)
    np.testing.assert_allclose(generator(images), images, atol=1e-6)


def test_the_other_weights_are_those_without_a_mask(tiny_config):
    one, other = (
        build_generator(tiny_config(generator_mask=mask), image_size=16, seed=3)
        for mask in (False, True)
    )
    assert len(other.weights) == len(one.weights) + 2  # the mask's kernel and bias
    for layer in one.layers:
        for weight, same in zip(layer.get_weights(), other.get_layer(layer.name).get_weights()):
            np.testing.assert_array_equal(weight, same)


def test_the_mask_is_still_open_when_the_cycle_loss_has_pulled_for_a_while(tiny_config, pictures):
    config = tiny_config(generator_mask=True, generator_filters=16, generator_blocks=1)
    generator = build_generator(config, image_size=16)
    optimizer = keras.optimizers.Adam(2e-4, 0.5)
    images = tf.constant(pictures(2))

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = 10.0 * tf.reduce_mean(tf.abs(generator(images, training=True) - images))
        weights = generator.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))

    for _ in range(40):
        step()
    mask, *_ = parts(generator)(images)
    assert float(tf.reduce_mean(mask)) > 0.4  # of 0.5; a kernel of 7 × 7 leaves 0.17
