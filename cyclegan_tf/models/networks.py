"""The four networks of a CycleGAN."""

from __future__ import annotations

from typing import NamedTuple

from tensorflow import keras

from cyclegan_tf.config import Config
from cyclegan_tf.models.discriminator import build_discriminator
from cyclegan_tf.models.generator import build_generator

DIRECTIONS = ("ab", "ba")


class Networks(NamedTuple):
    """Two generators and two discriminators; in the paper G, F, D_X and D_Y.

    A one-sided training (``Config.one_sided``) has the generator A to B and B's discriminator.
    """

    generator_ab: keras.Model
    generator_ba: keras.Model | None
    discriminator_a: keras.Model | None
    discriminator_b: keras.Model


class Generators(NamedTuple):
    """One generator for each direction; of a one-sided training only A to B.

    A run that was imported may hold B to A alone.
    """

    ab: keras.Model | None
    ba: keras.Model | None


def present(models: Networks | Generators) -> dict[str, keras.Model]:
    """Those that are there, by name."""
    return {name: model for name, model in models._asdict().items() if model is not None}


def build_networks(config: Config, image_size: int | None = None) -> Networks:
    """The networks, each with weights of its own, as functions of the configuration's seed."""

    def discriminator(number: int, name: str) -> keras.Model:
        seed = 4 * config.run.seed + number
        return build_discriminator(config, image_size=image_size, seed=seed, name=name)

    return Networks(
        *build_generators(config, image_size),
        None if config.one_sided() else discriminator(2, "discriminator_a"),
        discriminator(3, "discriminator_b"),
    )


def build_generators(config: Config, image_size: int | None = None) -> Generators:
    """The generators alone, with the weights that ``build_networks`` starts them with."""

    def generator(number: int, name: str) -> keras.Model:
        seed = 4 * config.run.seed + number
        return build_generator(config, image_size=image_size, seed=seed, name=name)

    return Generators(
        generator(0, "generator_ab"),
        None if config.one_sided() else generator(1, "generator_ba"),
    )
