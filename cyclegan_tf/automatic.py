"""The preset `auto`: sizes, channels and epochs picked from the pictures and the machine."""

from __future__ import annotations

import itertools
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from cyclegan_tf.cluster import Cluster
from cyclegan_tf.config import Config, RunConfig, flag
from cyclegan_tf.data.pipeline import picture_sides
from cyclegan_tf.data.shards import MENDED, Shards
from cyclegan_tf.data.sources import open_data
from cyclegan_tf.environment import usable_cores
from cyclegan_tf.errors import UserError
from cyclegan_tf.presets import ABOVE, PICKED, PRESETS, make_config
from cyclegan_tf.training.devices import gpus_of, split_cpu
from cyclegan_tf.training.mending import mended
from cyclegan_tf.training.run_directory import CONFIG_FILE

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
    def this(cls, config: RunConfig) -> Machine:
        """The machine that this runs on, as far as a run may use it: its cores and its GPUs."""
        return cls(usable_cores(), len(gpus_of(config)))

    @property
    def kind(self) -> str:
        """One of "few cores", "many cores" and "gpu"."""
        if self.gpus:
            return "gpu"
        return "few cores" if self.cores <= _FEW_CORES else "many cores"


def pick(config: Config, given: dict[str, Any], run_dir: Path) -> Config:
    """The preset `auto` for the pictures and the machine; what was given as a flag stands.

    A run that goes on keeps what it began with, whatever machine it is on by now, and whatever
    `auto` has become.
    """
    if (run_dir / CONFIG_FILE).exists():
        begun = Config.load(run_dir).flat()
        by_size = itertools.chain(*ABOVE["auto"].values())  # may have been others at that time
        names = {*PICKED, *PRESETS["auto"], *by_size} - {"steps"}
        picked = {name: begun[name] for name in sorted(names)}
    else:
        picked = _picked_for(config, given, run_dir)
    if given.get("steps"):
        del picked["epochs"]
    picked = {name: value for name, value in picked.items() if name not in given}
    config = make_config("auto", **picked, **given)
    told = {name: value for name, value in picked.items() if name in PICKED}
    told |= _unlike_fast(config, given)
    if told:
        print("picked: " + ", ".join(f"{flag(name)} {value}" for name, value in told.items()))
    return config


def _unlike_fast(config: Config, given: dict[str, Any]) -> dict[str, Any]:
    """Those settings of `auto` that are not the ones of `fast`, but for what was asked for."""
    fast = make_config("fast").flat()
    return {
        name: value
        for name, value in config.flat().items()
        if value != fast[name] and name not in given and name != "steps"  # it counts epochs
    }


def _picked_for(config: Config, given: dict[str, Any], run_dir: Path) -> dict[str, Any]:
    if Cluster.from_environment().workers > 1:
        raise UserError(
            "--preset auto: not for several workers, whose machines may differ; take fast or paper "
            "and give the sizes"
        )
    split_cpu(config.run)  # before the pictures are read, which starts TensorFlow
    shards = open_data(config.data.data, run_dir / MENDED)
    machine, size = Machine.this(config.run), given.get("image_size")
    try:
        picked = choose_for(shards, machine, size)
    except tf.errors.OpError as error:
        shards, _ = mended(config, run_dir, error)
        picked = choose_for(shards, machine, size)
    return {**picked, "batch_size": config.run.replicas or picked["batch_size"]}


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
