"""The four networks of a CycleGAN."""

from __future__ import annotations

from typing import NamedTuple

from tensorflow import keras

from cyclegan_tf.config import Config
from cyclegan_tf.models.discriminator import build_discriminator
from cyclegan_tf.models.generator import build_generator

DIRECTIONS = ("ab", "ba")


class Networks(NamedTuple):
    """Two generators and two discriminators; in the paper G, F, D_X and D_Y."""

    generator_ab: keras.Model
    generator_ba: keras.Model
    discriminator_a: keras.Model
    discriminator_b: keras.Model


class Generators(NamedTuple):
    """One generator for each direction."""

    ab: keras.Model
    ba: keras.Model


def build_networks(config: Config, image_size: int | None = None) -> Networks:
    """The four networks, each with weights of its own, as functions of the configuration's seed."""
    seed = 4 * config.run.seed
    return Networks(
        *build_generators(config, image_size),
        build_discriminator(config, image_size=image_size, seed=seed + 2, name="discriminator_a"),
        build_discriminator(config, image_size=image_size, seed=seed + 3, name="discriminator_b"),
    )


def build_generators(config: Config, image_size: int | None = None) -> Generators:
    """The two generators alone, with the weights that ``build_networks`` starts them with."""
    seed = 4 * config.run.seed
    return Generators(
        build_generator(config, image_size=image_size, seed=seed, name="generator_ab"),
        build_generator(config, image_size=image_size, seed=seed + 1, name="generator_ba"),
    )
