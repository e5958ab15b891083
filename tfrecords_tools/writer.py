"""Writes one shard: from files to a TFRecord that appears when it is whole."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any, Callable

from tfrecords_tools import manifest
from tfrecords_tools.images import BadImage, Picture, prepare
from tfrecords_tools.journal import LeftOut, PackedShard
from tfrecords_tools.manifest import Shard
from tfrecords_tools.schema import domain_of, encode_example
from tfrecords_tools.sources import Item


def write_shard(
    path: Path,
    items: list[Item],
    max_side: int | None = None,
    advance: Callable[[], Any] = lambda: None,
    stop: threading.Event | None = None,
) -> PackedShard:
    """Writes the usable images among ``items`` into a TFRecord file that appears when it is whole.

    Args:
        path: The file to write.
        items: In the order in which they are stored.
        max_side: Longest side in pixels that larger images are shrunk to.
        advance: Called after each item.
        stop: Gives up, with ``CancelledError``, as soon as it is set.
    """
    import tensorflow as tf

    unfinished = manifest.temporary(path)
    left_out: list[LeftOut] = []
    changes: list[str] = []
    stored = 0
    try:
        with tf.io.TFRecordWriter(str(unfinished)) as writer:
            for item in items:
                if stop is not None and stop.is_set():
                    raise CancelledError
                try:
                    picture = prepare(item.read(), max_side)
                except BadImage as error:
                    left_out.append(LeftOut(item.origin, error.reason, error.detail))
                else:
                    writer.write(_example(item, picture))
                    stored += 1
                    changes += [picture.change] if picture.change else []
                advance()
        size, digest = unfinished.stat().st_size, manifest.file_sha256(unfinished)
        unfinished.replace(path)
    except tf.errors.OpError as error:  # how TensorFlow says that the disk is full
        raise OSError(error.message) from error
    finally:
        unfinished.unlink(missing_ok=True)
    shard = Shard(path.name, stored, size, digest)
    return PackedShard(shard, tuple(left_out), dict(Counter(changes)))


def _example(item: Item, picture: Picture) -> bytes:
    domain = domain_of(item.split)
    return encode_example(picture.data, item.name, picture.height, picture.width, domain)
