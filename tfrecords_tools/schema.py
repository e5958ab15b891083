"""The one definition of an example: how an image lies in a TFRecord.

An image is stored as the encoded JPEG or PNG it came as, never as pixels, so that shards stay as
small as the source and decoding can be chosen at training time.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

DOMAINS = ("A", "B")
SPLITS = ("trainA", "trainB", "testA", "testB")

IMAGE = "image"
FILENAME = "filename"
HEIGHT = "height"
WIDTH = "width"
DOMAIN = "domain"


def domain_of(split: str) -> str:
    """Returns the domain, "A" or "B", of a split such as "trainA"."""
    return split[-1]


def encode_example(image: bytes, filename: str, height: int, width: int, domain: str) -> bytes:
    """Returns a serialized ``tf.train.Example``.

    Args:
        image: An encoded JPEG or PNG that ``tf.io.decode_image`` reads as uint8 RGB.
        filename: Path of the image inside its split, with "/" between folders.
        height: Height of the decoded image in pixels.
        width: Width of the decoded image in pixels.
        domain: "A" or "B".
    """
    import tensorflow as tf

    def of_bytes(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    def of_int(value: int) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    features = {
        IMAGE: of_bytes(image),
        FILENAME: of_bytes(os.fsencode(filename)),
        HEIGHT: of_int(height),
        WIDTH: of_int(width),
        DOMAIN: of_bytes(domain.encode()),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    # Map fields have no order of their own; without this the same input could give other bytes.
    return example.SerializeToString(deterministic=True)


def parse_example(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """Parses one serialized example; for ``tf.data.Dataset.map`` as well as eagerly.

    Args:
        serialized: A scalar string, as ``tf.data.TFRecordDataset`` yields it.

    Returns:
        Scalars: ``image``, ``filename`` and ``domain`` (string), ``height`` and ``width`` (int64).

    Raises:
        tf.errors.InvalidArgumentError: If it is no such example or a feature is missing.
    """
    import tensorflow as tf

    kinds = {
        IMAGE: tf.string,
        FILENAME: tf.string,
        HEIGHT: tf.int64,
        WIDTH: tf.int64,
        DOMAIN: tf.string,
    }
    features = {name: tf.io.FixedLenFeature([], dtype) for name, dtype in kinds.items()}
    return tf.io.parse_single_example(serialized, features)
