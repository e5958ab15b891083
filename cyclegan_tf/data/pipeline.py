"""From shards to batches of unpaired pictures: read → cache → shuffle → decode → augment → batch.

The cache stands before every random operation, so that no augmentation is ever frozen, and every
random choice is a function of the seed and of the position in the stream, so that a run can go on
from any step exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

import tensorflow as tf

from cyclegan_tf.config import DataConfig
from cyclegan_tf.data.shards import Shards
from tfrecords_tools.paths import AnyPath
from tfrecords_tools.schema import parse_example

Example = dict[str, tf.Tensor]  # a parsed record

_PARALLEL_READS = 4
PARALLEL_DECODES = 8  # more than that outruns any step; threads are as many as the cores
BATCHES_AHEAD = 4
_MEGABYTE = 1 << 20
_PASSES = 1 << 40  # More passes over the data than any training makes.


def training_pairs(
    shards: Shards, config: DataConfig, *, batch_size: int, seed: int, start_step: int = 0
) -> tf.data.Dataset:
    """Endless batches of unpaired training pictures, from ``start_step`` on.

    Each domain is an endless row of passes over its own pictures, each pass in an order of its own,
    so the shorter domain is reshuffled independently and the pairing differs in every epoch. One of
    several workers (``shards.part``) gets pictures that no other gets.

    Args:
        shards: the data set.
        config: size, augmentation and cache budget.
        batch_size: pairs per batch, of this worker.
        seed: every order and augmentation is a function of it and of the position.
        start_step: batches to leave out at the front, as if they had been taken.

    Returns:
        Pairs (A, B), each float32 [batch_size, image_size, image_size, 3] in [-1, 1].
    """
    cached = _is_cached(shards, config)
    domains = [
        _training_stream(shards, split, config, cached, 2 * seed + i, start_step * batch_size)
        for i, split in enumerate(("trainA", "trainB"))
    ]
    options = _options()
    options.threading.private_threadpool_size = 0  # as many as the cores, beside the step's own
    return (
        tf.data.Dataset.zip(tuple(domains))
        .batch(batch_size, drop_remainder=True)
        .prefetch(BATCHES_AHEAD)
        .with_options(options)
    )


def batch_names(
    shards: Shards, config: DataConfig, batch_size: int, seed: int, step: int
) -> list[str]:
    """The files of one batch of ``training_pairs``: "trainA/NAME", then "trainB/NAME".

    Args:
        shards: the data set.
        config: as given to ``training_pairs``.
        batch_size: as given to ``training_pairs``.
        seed: as given to ``training_pairs``.
        step: batches before this one.
    """
    cached = _is_cached(shards, config)
    names = []
    for i, split in enumerate(("trainA", "trainB")):
        # Names alone: the pictures may take all the memory that there is, and training has them.
        found = _examples(shards, split, config, cached, 2 * seed + i, step * batch_size, _name)
        for _, name in found.take(batch_size).as_numpy_iterator():
            names.append(f"{split}/{name.decode(errors='replace')}")
    return names


def test_images(
    shards: Shards,
    split: str,
    config: DataConfig,
    limit: int = -1,
    names: Sequence[bytes] | None = None,
) -> tf.data.Dataset:
    """The pictures of one split in the shards' order, as ``fit`` brings them to size.

    Args:
        shards: the data set.
        split: "testA", "testB", "trainA" or "trainB".
        config: the size, and how training comes to it.
        limit: at most so many; -1 for all.
        names: the file names of those to take instead.

    Returns:
        (image, filename): float32 [image_size, image_size, 3] in [-1, 1] and a string.
    """

    def load(example: Example) -> tuple[tf.Tensor, tf.Tensor]:
        return to_range(fit(decode(example["image"]), config)), _name(example)

    examples = _records(shards, split)
    if names is None:
        examples = examples.take(limit)
    else:
        examples = examples.filter(lambda example: tf.reduce_any(_name(example) == names))
    return examples.map(load, num_parallel_calls=PARALLEL_DECODES).with_options(_options())


def picture_names(shards: Shards, split: str) -> list[bytes]:
    """The file names of a split's pictures, in the shards' order."""
    return list(_records(shards, split).map(_name).as_numpy_iterator())


def picture_sides(shards: Shards, split: str, limit: int) -> list[int]:
    """The shorter sides of a split's first pictures, in pixels."""
    examples = _records(shards, split).take(limit).as_numpy_iterator()
    return [int(min(example["height"], example["width"])) for example in examples]


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Encoded JPEG, PNG or BMP bytes to float32 [height, width, 3] in [0, 255]."""
    pixels = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.cast(tf.ensure_shape(pixels, [None, None, 3]), tf.float32)


def resize(pixels: tf.Tensor, size: tuple[int, int] | tf.Tensor) -> tf.Tensor:
    """The one filter of training, evaluation and export: bicubic, with a low-pass for shrinking.

    It is the authors' (PyTorch code, data/base_dataset.py) and Pillow's. A bilinear one blurs
    enough for KID to see (docs/results.md).

    Args:
        pixels: float32 [height, width, 3] in [0, 255].
        size: the new height and width.

    Returns:
        float32 [*size, 3] in [0, 255]; what overshoots is clipped.
    """
    return tf.clip_by_value(tf.image.resize(pixels, size, "bicubic", antialias=True), 0.0, 255.0)


def to_range(pixels: tf.Tensor) -> tf.Tensor:
    """Pixels in [0, 255] to the networks' range [-1, 1]."""
    return pixels / 127.5 - 1.0


def to_pixels(images: tf.Tensor) -> tf.Tensor:
    """The networks' range [-1, 1] to uint8 pixels, rounded and clipped."""
    return tf.saturate_cast(tf.round((images + 1.0) * 127.5), tf.uint8)


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    # Its thread sleeps for up to a minute, and the end of the iteration waits until it wakes up.
    options.autotune.enabled = False
    return options


def _is_cached(shards: Shards, config: DataConfig) -> bool:
    size = sum(shards.manifest.bytes(split) for split in ("trainA", "trainB"))
    return size <= config.cache_mb * _MEGABYTE


def _records(shards: Shards, split: str, seed: tf.Tensor | None = None) -> tf.data.Dataset:
    """Parsed examples of a split, its shards read interleaved; with a seed, in shuffled order."""
    return _records_of(shards.paths(split), seed)


def _own_records(shards: Shards, split: str, seed: tf.Tensor | None = None) -> tf.data.Dataset:
    """The records of a split that this worker trains on; no other worker has any of them."""
    number, parts = shards.part
    if shards.is_parted_by_file(split):
        return _records_of(shards.paths(split)[number::parts], seed)
    return _records(shards, split, seed).shard(parts, number)


def _records_of(files: list[AnyPath], seed: tf.Tensor | None) -> tf.data.Dataset:
    paths = [str(path) for path in files]
    files = tf.data.Dataset.from_tensor_slices(paths)
    if seed is not None:
        files = files.shuffle(len(paths), seed=seed)
    return files.interleave(
        lambda path: tf.data.TFRecordDataset(path).map(parse_example),
        cycle_length=_PARALLEL_READS,
        num_parallel_calls=_PARALLEL_READS,
        deterministic=True,
    )


def _training_stream(
    shards: Shards, split: str, config: DataConfig, cached: bool, seed: int, start: int
) -> tf.data.Dataset:
    """Endless augmented pictures of one domain, from position ``start`` on."""

    # Two workers are at the same positions at the same time, but augment differently.
    choices = seed + (shards.part[0] << 32)

    def load(position: tf.Tensor, example: Example) -> tf.Tensor:
        return augment(decode(example["image"]), config, tf.stack([choices, position]))

    examples = _examples(shards, split, config, cached, seed, start)
    return examples.map(load, num_parallel_calls=PARALLEL_DECODES, deterministic=True)


def _examples(
    shards: Shards,
    split: str,
    config: DataConfig,
    cached: bool,
    seed: int,
    start: int,
    select: Callable[[Example], Any] = lambda example: example,
) -> tf.data.Dataset:
    """Endless (position, what ``select`` takes of it) of one domain, from ``start`` on."""
    count = shards.part_count(split)
    kept = _own_records(shards, split).map(select).cache() if cached else None

    def one_pass(number: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.stateless_uniform([], [seed, number], None, None, tf.int64)
        if kept is not None:
            return kept.shuffle(count, seed=order, reshuffle_each_iteration=False)
        records = _own_records(shards, split, order).map(select)
        return records.shuffle(config.shuffle_buffer, seed=order, reshuffle_each_iteration=False)

    passes = tf.data.Dataset.range(start // count, _PASSES).flat_map(one_pass)
    return passes.skip(start % count).enumerate(start)


def augment(pixels: tf.Tensor, config: DataConfig, seed: tf.Tensor) -> tf.Tensor:
    """One training example from one picture.

    Args:
        pixels: float32 [height, width, 3] in [0, 255].
        config: how to resize, whether to flip, and the size to crop.
        seed: int64 [2]; crop and flip are a function of it.

    Returns:
        float32 [image_size, image_size, 3] in [-1, 1].
    """
    size = config.image_size
    load = config.effective_load_size()
    pixels = _at_least(_to_load_size(pixels, config.preprocess, load), size)
    pixels = tf.image.stateless_random_crop(pixels, [size, size, 3], seed)
    if config.flip:
        pixels = tf.image.stateless_random_flip_left_right(pixels, seed + [0, 1 << 40])
    return to_range(pixels)


def fit(pixels: tf.Tensor, config: DataConfig) -> tf.Tensor:
    """A picture to look at or to judge by, at the scale of training but without any chance.

    Whole where training resizes to a square, as the authors' test does; else the middle.

    Args:
        pixels: float32 [height, width, 3] in [0, 255].
        config: how training resizes, and the size.

    Returns:
        float32 [image_size, image_size, 3] in [0, 255].
    """
    size = config.image_size
    pixels = _at_least(_to_load_size(pixels, config.preprocess, size), size)
    return tf.image.resize_with_crop_or_pad(pixels, size, size)


def _name(example: Example) -> tf.Tensor:
    return example["filename"]


def _to_load_size(pixels: tf.Tensor, preprocess: str, load: int) -> tf.Tensor:
    if preprocess == "resize_and_crop":
        return resize(pixels, (load, load))
    if preprocess == "scale_width":
        height, width = tf.unstack(tf.shape(pixels)[:2])
        return resize(pixels, (tf.maximum(1, height * load // width), load))
    return pixels


def _at_least(pixels: tf.Tensor, size: int) -> tf.Tensor:
    """Enlarges a picture that is smaller than the crop, keeping its proportions."""
    sides = tf.cast(tf.shape(pixels)[:2], tf.float32)
    factor = size / tf.reduce_min(sides)
    enlarged = tf.cast(tf.math.ceil(sides * factor - 1e-3), tf.int32)
    return tf.cond(factor > 1.0, lambda: resize(pixels, tf.maximum(enlarged, size)), lambda: pixels)
