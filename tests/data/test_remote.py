"""Shards on a file system that only TensorFlow knows: its in-memory one, as gs:// would be."""

from __future__ import annotations

import uuid

import numpy as np
import pytest
import tensorflow as tf

from cyclegan_tf.config import DataConfig
from cyclegan_tf.data.pipeline import training_pairs
from cyclegan_tf.data.shards import Shards
from cyclegan_tf.data.sources import open_data, readable
from cyclegan_tf.errors import UserError
from tests.tiny import pack_charts
from tfrecords_tools.verify import verify


@pytest.fixture
def remote(tmp_path) -> tuple[Shards, str]:
    """Shards, and the URL of a copy of them."""
    local = pack_charts(tmp_path, trainA=4, trainB=3, testA=1, testB=1)
    url = f"ram://{uuid.uuid4().hex}/shards"
    tf.io.gfile.makedirs(url)
    for path in local.folder.iterdir():
        with tf.io.gfile.GFile(f"{url}/{path.name}", "wb") as file:
            file.write(path.read_bytes())
    return local, url


@pytest.mark.parametrize("end", ["", "/"])
def test_remote_shards_give_the_same_batches(remote, end):
    local, url = remote
    config = DataConfig(image_size=16)
    ours, theirs = (
        list(training_pairs(shards, config, batch_size=2, seed=1).take(4).as_numpy_iterator())
        for shards in (local, open_data(url + end))
    )
    assert len(ours) == len(theirs) == 4
    for pair, right in zip(ours, theirs):
        for batch, expected in zip(pair, right):
            np.testing.assert_array_equal(batch, expected)


def test_what_is_missing_is_named(remote):
    _, url = remote
    shard = f"{url}/{open_data(url).manifest.splits['trainB'][0].file}"
    tf.io.gfile.remove(shard)
    with pytest.raises(UserError, match=f"{shard}: missing or not of"):
        open_data(url)
    with pytest.raises(UserError, match=r"ram://nowhere/at/all: no manifest.json here"):
        open_data("ram://nowhere/at/all")
    with pytest.raises(UserError, match=r"wrong://x/manifest.json: cannot be read \("):
        open_data("wrong://x")


def test_of_a_broken_record_a_local_copy_is_to_be_verified(remote):
    """As verify takes no URL."""
    shards = open_data(remote[1])
    error = tf.errors.DataLossError(None, None, "corrupted record at 0")
    with pytest.raises(UserError) as caught, readable(shards):
        raise error
    assert str(caught.value) == (
        f"{remote[1]}: a record cannot be read (corrupted record at 0); python -m "
        "tfrecords_tools.verify A LOCAL COPY tells which, so that the shards can be built again"
    )
    with pytest.raises(UserError, match=rf"^{remote[1]}: must be a local folder, .* copy the sha"):
        verify(remote[1], quiet=True)
