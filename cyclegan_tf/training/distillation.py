"""Distillation: generators that learn to imitate those of a trained run, the teacher.

The teacher's generators are no part of what is trained, so they are not in the checkpoints. The run
keeps a copy of them in a folder of its own, and goes on from it even if the teacher has changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
from tensorflow import keras

from cyclegan_tf.config import Config
from cyclegan_tf.errors import UserError
from cyclegan_tf.models.discriminator import feature_extractor
from cyclegan_tf.models.networks import Networks, present
from cyclegan_tf.training.checkpoints import find_checkpoint, generators_of, save_generators
from cyclegan_tf.training.losses import absolute_difference
from cyclegan_tf.training.run_directory import CONFIG_FILE, create_run_directory

FOLDER = "teacher"


class Teacher(NamedTuple):
    """A trained run's settings, and its generators by direction: "ab", "ba" or both."""

    config: Config
    generators: dict[str, keras.Model]


def load_teacher(config: Config, run_dir: Path) -> Teacher | None:
    """The run's copy of its teacher, else the run that ``--teacher`` names; None without one.

    Args:
        config: ``config.distillation``.
        run_dir: the run directory of the student.

    Raises:
        UserError: if there is no trained run.
    """
    if not config.distillation.teacher:
        return None
    copied = Path(run_dir) / FOLDER
    source = copied if (copied / CONFIG_FILE).exists() else Path(config.distillation.teacher)
    try:
        settings = Config.load(source)
        found = find_checkpoint(source)
        generators = present(generators_of(found, settings)) if found else {}
    except UserError as error:
        raise UserError(f"--teacher {source}: cannot be learned from ({error})") from None
    if not generators:
        raise UserError(f"--teacher {source}: no checkpoint there; name a trained run")
    return Teacher(settings, generators)


def keep_teacher(teacher: Teacher, run_dir: Path) -> None:
    """Copies the teacher's generators into the run directory, unless they are there already."""
    copied = Path(run_dir) / FOLDER
    if not (copied / CONFIG_FILE).exists():  # It comes last, so a part of a copy is made anew.
        save_generators(copied, teacher.generators)
        create_run_directory(copied, teacher.config.replace(average=0.0))


class Imitation:
    """How far the student's pictures are from its teacher's, as they are and in features.

    The features are the discriminators' own layers, as in feature matching (Wang et al. 2018,
    pix2pixHD, 3.3), so no other network is needed.

    Args:
        config: ``config.distillation``, the weights of the terms.
        teacher: who is imitated; a direction that it lacks is left alone.
        networks: the student's.
    """

    def __init__(self, config: Config, teacher: Teacher, networks: Networks) -> None:
        self.weights = config.distillation
        self.teachers = teacher.generators
        self.extractors = {
            "ab": feature_extractor(networks.discriminator_b),
            "ba": feature_extractor(networks.discriminator_a),
        }

    def names(self) -> list[str]:
        """The names of the terms."""
        return [f"{kind}_{name}" for kind in ("teacher", "features") for name in self.teachers]

    def terms(self, direction: str, source: tf.Tensor, translated: tf.Tensor) -> dict:
        """The terms of a direction by name, float32 scalars; none where it has no teacher.

        Args:
            direction: "ab" or "ba".
            source: pictures, float32 [batch, size, size, 3] in [-1, 1].
            translated: the same through the student.
        """
        if direction not in self.teachers:
            return {}
        goal = self.teachers[direction](source, training=False)
        extract = self.extractors[direction]
        pairs = zip(extract(translated, training=True), extract(goal, training=True))
        differences = [
            absolute_difference(tf.cast(mine, tf.float32), tf.cast(right, tf.float32))
            for mine, right in pairs
        ]
        return {
            f"teacher_{direction}": absolute_difference(translated, goal),
            f"features_{direction}": tf.add_n(differences) / len(differences),
        }

    def loss(self, terms: dict) -> tf.Tensor | float:
        """The weighted sum of ``terms``."""
        weights = {"teacher": self.weights.lambda_teacher, "features": self.weights.lambda_features}
        return sum(weights[name.partition("_")[0]] * term for name, term in terms.items())
