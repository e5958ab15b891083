from __future__ import annotations

import hashlib

import pytest

from tests.tfrecords_tools.helpers import encoded, picture
from tfrecords_tools import schema


def test_round_trip_in_a_dataset():
    import tensorflow as tf

    image = encoded(picture())
    serialized = schema.encode_example(image, "côté/1.jpg", 16, 24, "B")
    dataset = tf.data.Dataset.from_tensors(serialized).map(schema.parse_example)
    assert {k: (v.shape, v.dtype.name) for k, v in dataset.element_spec.items()} == {
        "image": ((), "string"),
        "filename": ((), "string"),
        "height": ((), "int64"),
        "width": ((), "int64"),
        "domain": ((), "string"),
    }
    (example,) = dataset.as_numpy_iterator()
    assert example["image"] == image
    assert example["filename"].decode() == "côté/1.jpg"
    assert (example["height"], example["width"], example["domain"]) == (16, 24, b"B")


def test_file_name_that_is_no_text():
    serialized = schema.encode_example(
        b"x", b"\xff.jpg".decode("utf-8", "surrogateescape"), 1, 2, "A"
    )
    assert schema.parse_example(serialized)["filename"].numpy() == b"\xff.jpg"


def test_bytes_are_the_same_on_every_stack():
    # The digest was made once; another one means that shards of the same input differ.
    serialized = schema.encode_example(b"image", "name.jpg", 3, 4, "A")
    golden = "e11509525cd08523453bb1be0905b59eb27d946f7df49d8308e61261752f2993"
    assert hashlib.sha256(serialized).hexdigest() == golden


def test_other_records_are_refused():
    import tensorflow as tf

    with pytest.raises(tf.errors.InvalidArgumentError):
        schema.parse_example(b"no example")
    with pytest.raises(tf.errors.InvalidArgumentError):
        schema.parse_example(tf.train.Example().SerializeToString())
