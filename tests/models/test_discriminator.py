"""The discriminator: decision maps, parameters, and how far each decision sees."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from cyclegan_tf.models import layers
from cyclegan_tf.models.discriminator import build_discriminator
from cyclegan_tf.models.layers import InstanceNormalization, precision_scope
from cyclegan_tf.presets import make_config

AUTHORS_PARAMETERS = 2_764_737  # of the 70×70 PatchGAN, counted in the authors' PyTorch code
CANCELLED_BIASES = 896  # in it, those before an instance norm, which takes them out again


def test_paper_has_the_authors_parameters():
    discriminator = build_discriminator(make_config("paper"), image_size=256)
    assert discriminator.count_params() == AUTHORS_PARAMETERS - CANCELLED_BIASES


@pytest.mark.parametrize(
    ("name", "size", "decisions"),
    [
        ("paper", 256, (30, 30, 1)),
        ("anime-scene", 128, (14, 14, 1)),
        ("anime-character", 128, (14, 14, 1)),
        ("selfie2anime-v1", 256, (16, 16, 1)),
        ("selfie2anime-v2", 256, (16, 16, 1)),
        ("selfie2anime-v3", 256, (16, 16, 1)),
        ("face2anime", 256, (30, 30, 3)),
    ],
)
def test_decision_map(name, size, decisions):
    config = make_config(name, discriminator_filters=2)
    assert config.data.image_size == size
    assert build_discriminator(config, image_size=size).output_shape == (None, *decisions)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("paper", [64, 128, 256, 512, 1]),
        ("anime-scene", [32, 64, 128, 256, 1]),
        ("anime-character", [64, 128, 256, 512, 1]),
        ("selfie2anime-v1", [64, 128, 256, 512, 512, 1]),
        ("face2anime", [64, 128, 256, 512, 3]),
    ],
)
def test_channels(name, channels):
    discriminator = build_discriminator(make_config(name))
    kernels = [weight for weight in discriminator.trainable_variables if len(weight.shape) == 4]
    assert [kernel.shape[-1] for kernel in kernels] == channels


def test_the_first_layer_and_the_decision_have_no_norm():
    discriminator = build_discriminator(make_config("paper", discriminator_filters=2))
    norms = [each.name for each in discriminator.layers if isinstance(each, InstanceNormalization)]
    assert norms == ["layer_2_norm", "layer_3_norm", "layer_4_norm"]


def test_a_decision_of_paper_sees_70_by_70_pixels(monkeypatch):
    """Measured by the gradient; without the norms, whose statistics see the whole picture."""
    monkeypatch.setattr(layers.InstanceNormalization, "call", lambda self, inputs: inputs)
    discriminator = build_discriminator(make_config("paper", discriminator_filters=2))
    images = tf.random.stateless_normal([1, 128, 128, 3], [0, 1])
    with tf.GradientTape() as tape:
        tape.watch(images)
        decisions = discriminator(images)
        middle = decisions[0, decisions.shape[1] // 2, decisions.shape[2] // 2, 0]
    rows, columns, _ = np.nonzero(tape.gradient(middle, images)[0].numpy())
    assert rows.max() - rows.min() + 1 == 70
    assert columns.max() - columns.min() + 1 == 70


@pytest.mark.parametrize("name", ["demo", "paper", "selfie2anime-v1", "face2anime"])
@pytest.mark.parametrize("size", [24, 36])
def test_decisions_on_real_pictures_have_the_models_shape(name, size, pictures):
    config = make_config(name, discriminator_filters=2)
    discriminator = build_discriminator(config, image_size=size)
    decisions = discriminator(pictures(2, size))
    assert decisions.shape[1:] == discriminator.output_shape[1:]
    assert decisions.shape == build_discriminator(config)(pictures(2, size)).shape
    assert decisions.dtype == tf.float32


@pytest.mark.parametrize("size", [8, 12, 16, 20])
def test_pictures_too_small_for_the_layers_are_named(size):
    with pytest.raises(ValueError, match=f"^image_size {size}: too small"):
        build_discriminator(make_config("paper", discriminator_filters=2), image_size=size)


def test_bfloat16_keeps_float32_decisions(tiny_config, pictures):
    discriminator = build_discriminator(tiny_config(), image_size=16)
    with precision_scope("bfloat16"):
        rough = build_discriminator(tiny_config(), image_size=16)
    assert rough(pictures()).dtype == tf.float32
    assert rough.get_layer("layer_2_conv").output.dtype == tf.bfloat16
    np.testing.assert_allclose(rough(pictures()), discriminator(pictures()), atol=0.05)
