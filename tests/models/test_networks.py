"""The four networks: each with weights of its own, all functions of the seed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from cyclegan_tf.errors import UserError
from cyclegan_tf.models.discriminator import build_discriminator
from cyclegan_tf.models.networks import build_generators, build_networks, present
from cyclegan_tf.presets import make_config


def kernels_of(networks) -> list[np.ndarray]:
    weights = [weight for model in networks for weight in model.get_weights()]
    return [weight for weight in weights if weight.ndim == 4]


def all_equal(networks, others) -> bool:
    pairs = zip(kernels_of(networks), kernels_of(others))
    return all(np.array_equal(one, other) for one, other in pairs)


def test_every_preset_builds_its_networks(preset, tiny_config):
    networks = build_networks(tiny_config(preset), 16)
    models = present(networks)
    assert [model.name for model in models.values()] == list(models)
    assert {type(model).__name__ for model in models.values()} == {"Functional"}
    names = ["generator_ab", "discriminator_b"] if preset == "cut" else list(networks._fields)
    assert list(models) == names
    for name, model in models.items():
        assert model.output_shape[1:3] == (16, 16) or name.startswith("discriminator")


def test_no_two_kernels_start_equal(preset, tiny_config):
    """Neither inside a network nor between two of them, whatever their shapes."""
    kernels = kernels_of(present(build_networks(tiny_config(preset), 16)).values())
    for one, other in itertools.combinations(kernels, 2):
        shared = min(one.size, other.size)
        assert not np.array_equal(one.ravel()[:shared], other.ravel()[:shared])


def test_equal_seeds_give_equal_weights_and_others_others(tiny_config):
    first, again, other = (build_networks(tiny_config(seed=seed), 16) for seed in (3, 3, 4))
    assert all_equal(first, again)
    for one, two in itertools.product(kernels_of(first), kernels_of(other)):
        assert one.shape != two.shape or not np.array_equal(one, two)


def test_the_largest_seed_is_a_seed(tiny_config):
    assert kernels_of(build_generators(tiny_config(seed=2**30)))


def test_weights_start_around_zero_with_deviation_002(tiny_config):
    config = tiny_config(generator_filters=16, discriminator_filters=16)
    for kernel in kernels_of(build_networks(config, 16)):
        noise = 0.02 / np.sqrt(kernel.size)
        assert abs(kernel.mean()) < 5 * noise
        assert abs(kernel.std() - 0.02) < 5 * noise


def test_biases_start_at_zero(tiny_config):
    weights = [
        weight for model in build_networks(tiny_config(), 16) for weight in model.get_weights()
    ]
    assert all(not weight.any() for weight in weights if weight.ndim == 1)


def test_generators_alone_are_those_of_the_networks(tiny_config):
    config = tiny_config(seed=5)
    assert all_equal(build_generators(config, 16), build_networks(config, 16)[:2])


@pytest.mark.parametrize(
    ("name", "smallest"), [("demo", 12), ("paper", 24), ("selfie2anime-v1", 8)]
)
@pytest.mark.parametrize("size", [8, 12, 16, 20, 24, 28])
def test_a_side_builds_or_is_refused_by_its_flag(name, smallest, size):
    """A side too small for the discriminator is the user's error, in one line."""
    if size < smallest:
        with pytest.raises(UserError, match=f"^--image-size {size}: "):
            make_config(name, image_size=size)
    else:
        config = make_config(name, image_size=size, discriminator_filters=2)
        assert build_discriminator(config, image_size=size).output_shape[1] >= 1
