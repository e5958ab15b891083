"""How fast the input makes training examples, beside a plain Pillow and NumPy loader."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from PIL import Image

from cyclegan_tf.benchmarking.table import Table
from cyclegan_tf.config import Config, DataConfig
from cyclegan_tf.data.pipeline import BATCHES_AHEAD, PARALLEL_DECODES, training_pairs
from cyclegan_tf.data.shards import Shards
from cyclegan_tf.data.sources import open_data, readable
from tfrecords_tools.schema import parse_example

_PICTURES = 400  # of both domains, in each round, at least


def measure_data(config: Config, rounds: int) -> Table:
    """Images per second from shards, and from a single-threaded Pillow loader over the same bytes.

    Both decode, resize to the load size, crop and flip. The two take turns in one process.

    Args:
        config: ``config.data`` and the batch size.
        rounds: how often to measure each.

    Raises:
        UserError: if there are no such pictures, or a record cannot be read or decoded.
    """
    shards = open_data(config.data.data)
    with readable(shards):
        return _measured(shards, config, rounds)


def _measured(shards: Shards, config: Config, rounds: int) -> Table:
    batches = iter(
        training_pairs(shards, config.data, batch_size=config.run.batch_size, seed=config.run.seed)
    )
    next(batches)  # Opening files and starting threads is no part of the rate.
    # What tf.data has made ahead while Pillow had its turn must not count, so it is taken first,
    # and much more than that is measured.
    ahead = BATCHES_AHEAD + math.ceil(2 * PARALLEL_DECODES / config.run.batch_size)
    count = max(_PICTURES, 20 * ahead * config.run.batch_size)
    encoded = _encoded(shards)
    rng = np.random.default_rng(config.run.seed)
    table = Table(f"input at {config.data.image_size} px from {config.data.data}", "images/s")
    for _ in range(rounds):
        for _ in range(ahead):
            next(batches)
        table.add("tf.data from shards", _rate(_pipeline_pictures(batches, count)))
        table.add("Pillow + NumPy", _rate(_pillow_pictures(encoded, config.data, rng)))
    return table


def _rate(pictures: Iterator[int]) -> float:
    start, count = time.perf_counter(), 0
    for made in pictures:
        count += made
    return count / (time.perf_counter() - start)


def _pipeline_pictures(batches: Iterator, count: int) -> Iterator[int]:
    made = 0
    while made < count:
        batch_a, _ = next(batches)
        made += 2 * int(batch_a.shape[0])
        yield 2 * int(batch_a.shape[0])


def _encoded(shards: Shards) -> list[bytes]:
    encoded = []
    for split in ("trainA", "trainB"):
        paths = [str(path) for path in shards.paths(split)]
        examples = tf.data.TFRecordDataset(paths).map(parse_example).take(_PICTURES // 2)
        encoded += [example["image"].numpy() for example in examples]
    return encoded


def _pillow_pictures(encoded: list[bytes], config: DataConfig, rng) -> Iterator[int]:
    load, size = config.effective_load_size(), config.image_size
    for data in encoded:
        picture = Image.open(io.BytesIO(data)).convert("RGB").resize((load, load), Image.BICUBIC)
        x, y = rng.integers(0, load - size + 1, 2)
        pixels = np.asarray(picture, np.float32)[y : y + size, x : x + size] / 127.5 - 1.0
        np.ascontiguousarray(pixels[:, ::-1] if rng.random() < 0.5 else pixels)
        yield 1
