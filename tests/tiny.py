"""Tiny data sets of real pictures, packed for real, and a look into what a run has saved."""

from __future__ import annotations

import dataclasses
import functools
import signal
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, Phase, settings
from PIL import Image
from tensorflow import keras

from cyclegan_tf.data import portraits
from cyclegan_tf.data.shards import Shards
from cyclegan_tf.evaluation.features import FeatureNetwork, name_file
from cyclegan_tf.reporting.progress import Progress
from tfrecords_tools.build import build

SIDE = 24
FUZZ = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def chart(number: int, side: int = SIDE) -> Image.Image:
    """A picture whose pixels tell their column (red), row (green) and number (blue), times 10."""
    rows, columns = np.mgrid[:side, :side]
    pixels = np.stack([columns, rows, np.full_like(rows, number)], axis=-1) * 10
    return Image.fromarray(pixels.astype(np.uint8))


def pack_charts(folder: Path, **counts: int) -> Shards:
    """Shards of ``chart(0)``, ``chart(1)``…, so many in each split, from a folder of PNG files."""
    for split, count in counts.items():
        (folder / "pictures" / split).mkdir(parents=True)
        for number in range(count):
            chart(number).save(folder / "pictures" / split / f"{number}.png")
    build(str(folder / "pictures"), folder / "shards", workers=1, quiet=True)
    return Shards.open(folder / "shards")


def tiny_features(name: str, weights: Path | None = None) -> FeatureNetwork:
    """What ``load_feature_network`` is replaced with: the means of four quarters of a picture."""
    image = keras.Input((8, 8, 3))
    pooled = keras.layers.Flatten()(keras.layers.AveragePooling2D(4)(image))
    model = keras.Model(image, [pooled, image])
    told = name_file(weights) if weights else ""
    return FeatureNetwork(name, 8, model, lambda pixels: pixels / 255.0, told)


def few_people(train: int, test: int):
    """What ``portraits.demo_items`` is replaced with to draw only a few people, 32 pixels large."""
    return functools.partial(portraits.demo_items, size=32, train=train, test=test)


def pack_demo(folder: Path, train: int = 4, test: int = 3) -> Shards:
    """Shards of the built-in pair, with few people."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(portraits, "demo_items", few_people(train, test))
        build("demo", folder, workers=1, quiet=True)
    return Shards.open(folder)


def with_shards_of(shards: Shards, split: str, change) -> Shards:
    """The data set with the row of one split's shards changed."""
    splits = {**shards.manifest.splits, split: change(shards.manifest.splits[split])}
    return Shards(shards.folder, dataclasses.replace(shards.manifest, splits=splits))


def interrupted_after(training, step: int) -> bool:
    """Runs the training with a Ctrl-C after that step; what ``run`` returns."""
    update = Progress.update

    def update_and_interrupt(self, steps, losses):
        update(self, steps, losses)
        if training.state.steps_done() == step:
            signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "update", update_and_interrupt)
        return training.run()


def saved_state(run_dir: Path) -> dict[str, np.ndarray]:
    """Every number of a run's newest checkpoint, but for how often it was saved."""
    reader = tf.train.load_checkpoint(str(run_dir / "checkpoints"))
    names = set(reader.get_variable_to_shape_map())
    return {
        name: reader.get_tensor(name)
        for name in sorted(names)
        if not name.startswith(("save_counter", "_CHECKPOINTABLE_OBJECT_GRAPH"))
    }


def assert_same_state(one: Path, other: Path) -> None:
    """The newest checkpoints of two runs hold the same, to the bit."""
    found, right = saved_state(one), saved_state(other)
    assert list(found) == list(right)
    assert sum(array.size for array in right.values()) > 1000
    for name, array in right.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def content(folder: Path) -> dict[str, bytes]:
    """The bytes of every file below ``folder``, and its folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"folder"
        for path in sorted(folder.rglob("*"))
    }
