"""The generator: shapes, parameters, and what each setting changes."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from cyclegan_tf.models import layers
from cyclegan_tf.models.generator import build_generator
from cyclegan_tf.models.layers import InstanceNormalization, precision_scope
from cyclegan_tf.presets import make_config
from tests.exporting.helpers import distinct_generators

AUTHORS_PARAMETERS = 11_378_179  # of the 9-block generator, counted in the authors' PyTorch code
CANCELLED_BIASES = 5_248  # in it, those before an instance norm, which takes them out again


def is_functional(model: keras.Model) -> bool:
    return type(model).__name__ == "Functional"


def layers_of(model: keras.Model, kind: type) -> list:
    return [layer for layer in model.layers if isinstance(layer, kind)]


def test_paper_has_the_authors_parameters():
    generator = build_generator(make_config("paper"), image_size=256)
    assert generator.count_params() == AUTHORS_PARAMETERS - CANCELLED_BIASES
    assert not any(layer.weights for layer in layers_of(generator, InstanceNormalization))


def test_a_learnt_scale_and_shift_adds_two_per_channel():
    generator = build_generator(make_config("paper", generator_affine=True), image_size=256)
    assert generator.count_params() == AUTHORS_PARAMETERS + CANCELLED_BIASES


@pytest.mark.parametrize(("size", "blocks"), [(128, 6), (256, 9)])
def test_paper_has_six_blocks_up_to_128_pixels_and_nine_above(size, blocks):
    config = make_config("paper", image_size=size, generator_filters=2)
    additions = layers_of(build_generator(config), keras.layers.Add)
    assert len(additions) == blocks


@pytest.mark.parametrize("size", [8, 12, 20, 36])
def test_every_preset_translates_any_side_divisible_by_4(size, tiny_config, pictures):
    configs = distinct_generators(tiny_config, discriminator_strided=1, image_size=size)
    for preset, config in configs.items():
        generator = build_generator(config)
        assert is_functional(generator), preset
        outputs = generator(pictures(2, size))
        assert outputs.shape == (2, size, size, 3), preset
        assert outputs.dtype == tf.float32, preset
        assert np.abs(outputs).max() <= 1.0, preset


@pytest.mark.parametrize("size", [10, 15, 33])
def test_a_side_not_divisible_by_4_is_named(size, tiny_config):
    with pytest.raises(ValueError, match=f"image_size {size}: must be divisible by 4"):
        build_generator(tiny_config(), image_size=size)


def test_a_fixed_size_changes_only_the_shape(tiny_config, pictures):
    fixed, free = build_generator(tiny_config(), image_size=16), build_generator(tiny_config())
    assert fixed.input_shape == fixed.output_shape == (None, 16, 16, 3)
    assert free.input_shape == free.output_shape == (None, None, None, 3)
    np.testing.assert_array_equal(fixed(pictures()), free(pictures()))


def test_any_height_and_width(tiny_config):
    assert build_generator(tiny_config())(tf.zeros([1, 12, 28, 3])).shape == (1, 12, 28, 3)


@pytest.mark.parametrize("name", ["paper", "anime-character", "selfie2anime-v1", "mobile"])
def test_training_and_inference_agree(name, tiny_config, pictures):
    """The fused kernel against the plain one, through a whole generator."""
    generator = build_generator(tiny_config(name), image_size=16)
    trained, plain = (generator(pictures(2), training=training) for training in (True, False))
    np.testing.assert_allclose(trained, plain, atol=1e-4)


def test_one_downsampling_leaves_the_blocks_at_half_the_side(tiny_config, pictures):
    config = tiny_config(generator_filters=3, generator_downsamplings=1, image_size=16)
    generator = build_generator(config, image_size=16)
    assert generator.get_layer("block_1_add").output.shape == (None, 8, 8, 6)
    assert generator(pictures(1, 16)).shape == (1, 16, 16, 3)


def test_concatenating_blocks_widen_the_picture(tiny_config):
    generator = build_generator(tiny_config("selfie2anime-v1", generator_blocks=8), image_size=16)
    joins = layers_of(generator, keras.layers.Concatenate)
    assert [join.output.shape[-1] for join in joins] == [8 * (i + 2) for i in range(8)]


def test_concatenating_blocks_end_in_a_relu(tiny_config, pictures):
    generator = build_generator(tiny_config("selfie2anime-v1"), image_size=16)
    joins = layers_of(generator, keras.layers.Concatenate)
    inside = keras.Model(generator.input, [join.output for join in joins])
    assert all(np.min(outputs) >= 0 for outputs in inside(pictures()))


def test_shuffling_convolutions_double_the_paper_channels_before_they_shuffle(tiny_config):
    generator = build_generator(tiny_config("selfie2anime-v1"), image_size=16)
    shuffles = layers_of(generator, layers.PixelShuffle)
    assert [shuffle.input.shape[-1] for shuffle in shuffles] == [16, 8]
    assert [tuple(shuffle.output.shape) for shuffle in shuffles] == [
        (None, 8, 8, 4),
        (None, 16, 16, 2),
    ]


def test_squeeze_and_excitation_stands_in_each_block(tiny_config):
    generator = build_generator(tiny_config("anime-character", generator_blocks=3), image_size=16)
    assert len(layers_of(generator, keras.layers.Multiply)) == 3
    assert not layers_of(build_generator(tiny_config("anime-scene")), keras.layers.Multiply)


def test_squeeze_and_excitation_looks_at_the_picture(tiny_config, pictures):
    """The mean of what an instance norm returns is always its shift: it must look elsewhere."""
    config = tiny_config("anime-character", generator_filters=8, generator_blocks=1)
    generator = build_generator(config, image_size=16)
    squeezed = keras.Model(generator.input, generator.get_layer("block_1_se_pool").output)
    means = squeezed(np.concatenate([pictures(8), pictures(8, seed=1) > 0.8])).numpy()
    assert means.shape == (16, 1, 1, 32)
    assert means.std(axis=0).max() > 1e-3


def test_dropout_stands_in_each_block_and_rests_outside_training(tiny_config, pictures):
    generator = build_generator(tiny_config("face2anime", generator_blocks=3), image_size=16)
    assert len(layers_of(generator, layers.Dropout)) == 3
    np.testing.assert_array_equal(generator(pictures()), generator(pictures()))
    first, second = (generator(pictures(), training=True).numpy() for _ in range(2))
    assert np.abs(first - second).max() > 1e-4


def test_no_two_dropouts_draw_the_same_masks(tiny_config):
    config = tiny_config("face2anime", generator_blocks=6)
    generators = [build_generator(config, seed=seed) for seed in (0, 1)]
    dropouts = [layer for model in generators for layer in layers_of(model, layers.Dropout)]
    images = tf.ones([1, 16, 16, 8])
    masks = {layer(images, training=True).numpy().tobytes() for layer in dropouts}
    assert len(masks) == len(dropouts)


def test_mobile_is_smaller_than_the_same_with_full_convolutions():
    mobile, full = make_config("mobile"), make_config("mobile", generator_separable=False)
    assert build_generator(mobile).count_params() < build_generator(full).count_params() / 3


def test_bfloat16_keeps_float32_weights_and_output(tiny_config, pictures):
    generator = build_generator(tiny_config(), image_size=16)
    with precision_scope("bfloat16"):
        rough = build_generator(tiny_config(), image_size=16)
    assert all(weight.dtype == tf.float32 for weight in layers.trainable_variables(rough))
    assert rough(pictures()).dtype == tf.float32
    assert rough.get_layer("block_1_1_conv").output.dtype == tf.bfloat16
    np.testing.assert_allclose(rough(pictures()), generator(pictures()), atol=0.1)


@pytest.mark.parametrize(
    "name", ["paper", "anime-character", "selfie2anime-v1", "face2anime", "mobile"]
)
def test_a_saved_generator_is_the_same_again(name, tiny_config, pictures, tmp_path):
    generator = build_generator(tiny_config(name), image_size=16)
    generator.save(tmp_path / "generator.keras")
    loaded = keras.models.load_model(tmp_path / "generator.keras")
    np.testing.assert_array_equal(loaded(pictures()), generator(pictures()))
    np.testing.assert_array_equal(
        loaded(pictures(), training=True), generator(pictures(), training=True)
    )


def test_squeeze_and_excitation_averages_large_pictures_in_float32(tiny_config):
    """In bfloat16, a sum of many like numbers stops growing."""
    with precision_scope("bfloat16"):
        generator = build_generator(tiny_config(generator_squeeze_excite=True))
    (pool, *_) = layers_of(generator, keras.layers.GlobalAveragePooling2D)
    seen = tf.fill([1, 96, 96, 4], tf.constant(1.25, tf.bfloat16))
    np.testing.assert_allclose(pool(seen), tf.fill([1, 1, 1, 4], 1.25), rtol=1e-4)
