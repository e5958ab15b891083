"""The preset `auto`: sizes, channels and epochs picked from the pictures and the machine."""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass
from typing import Any

from cyclegan_tf.data.pipeline import picture_sides
from cyclegan_tf.data.shards import Shards

_SIDES = (64, 128, 256)
_SAMPLE = 64  # pictures of each domain that are looked at
_FEW_CORES = 8
# Pairs that a training sees: on a CPU about an hour or a night, on a GPU what the paper takes.
_PAIRS = {"few cores": 20_000, "many cores": 60_000, "gpu": 400_000}
_MOST_EPOCHS, _LEAST_EPOCHS = 200, 2


@dataclass(frozen=True)
class Machine:
    """What the choice depends on of the machine."""

    cores: int
    gpus: int

    @classmethod
    def this(cls) -> Machine:
        """The machine that this runs on; only the cores that the process may use count."""
        import tensorflow as tf

        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        return cls(cores, len(tf.config.list_physical_devices("GPU")))

    @property
    def kind(self) -> str:
        """One of "few cores", "many cores" and "gpu"."""
        if self.gpus:
            return "gpu"
        return "few cores" if self.cores <= _FEW_CORES else "many cores"


def choose_for(shards: Shards, machine: Machine, image_size: int | None = None) -> dict[str, Any]:
    """What ``choose`` picks for a data set."""
    sides = [
        side for split in ("trainA", "trainB") for side in picture_sides(shards, split, _SAMPLE)
    ]
    return choose(shards.pairs_per_epoch(), int(statistics.median(sides)), machine, image_size)


def choose(
    pairs: int, side: int, machine: Machine, image_size: int | None = None
) -> dict[str, Any]:
    """Settings for so many pictures of a size.

    Args:
        pairs: max(|A|, |B|) of the training pictures.
        side: the usual shorter side of a picture in pixels.
        machine: where it will be trained.
        image_size: what was asked for; None leaves the choice here.

    Returns:
        Settings by flat name: never larger pictures than there are, 64 pixels on a few cores, 128
        on many, 256 on a GPU; channels to fit; as many epochs as the machine's share of pairs
        allows, 2 to 200; and a picture for each GPU in a step.
    """
    most = {"few cores": 64, "many cores": 128, "gpu": 256}[machine.kind]
    fitting = [one for one in _SIDES if one <= min(side, most)]
    size = image_size or (max(fitting) if fitting else max(16, side // 4 * 4))
    filters = 64 if machine.gpus else 32
    epochs = _PAIRS[machine.kind] // max(1, pairs)
    return {
        "image_size": size,
        "generator_filters": filters,
        "discriminator_filters": filters,
        "batch_size": max(1, machine.gpus),
        "epochs": min(_MOST_EPOCHS, max(_LEAST_EPOCHS, epochs)),
    }
