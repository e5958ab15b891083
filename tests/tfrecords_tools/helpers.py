"""Real, small images and folders of them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(seed: int = 0, width: int = 24, height: int = 16) -> Image.Image:
    """A smooth random RGB picture, other for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def fill(root: Path, counts: dict[str, int]) -> Path:
    """Writes so many JPEG files into each split's folder; no two of all have the same content."""
    seed = 0
    for split, count in counts.items():
        (root / split).mkdir(parents=True)
        for number in range(count):
            seed += 1
            (root / split / f"{number:03d}.jpg").write_bytes(encoded(picture(seed)))
    return root


def content(folder: Path) -> dict[str, bytes]:
    """The bytes of every file in ``folder``, hidden ones included."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def records(folder: Path, split: str) -> dict[str, dict[str, Any]]:
    """The examples of a split by file name, read with TensorFlow, as training does."""
    import tensorflow as tf

    from cyclegan_tf.data.shards import Shards
    from tfrecords_tools.schema import parse_example

    paths = [str(path) for path in Shards.open(folder).paths(split)]
    examples = list(tf.data.TFRecordDataset(paths).map(parse_example).as_numpy_iterator())
    named = {example["filename"].decode(): example for example in examples}
    assert len(named) == len(examples)
    return named
