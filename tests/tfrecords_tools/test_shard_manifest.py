from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest

from cyclegan_tf.errors import UserError
from tfrecords_tools.manifest import FILE_NAME, VERSION, Manifest, Shard

SHARD = Shard("trainA-00000-of-00002.tfrecord", 3, 300, "0" * 64)
OTHER = Shard("trainA-00001-of-00002.tfrecord", 4, 400, "1" * 64)
TEST = Shard("testB-00000-of-00001.tfrecord", 5, 500, "2" * 64)
MANIFEST = Manifest(
    VERSION, "faces", "f" * 64, False, 2, None, {"trainA": (SHARD, OTHER), "testB": (TEST,)}
)


def test_round_trip(tmp_path):
    MANIFEST.save(tmp_path)
    assert Manifest.load(tmp_path) == MANIFEST
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_sums():
    assert (MANIFEST.count("trainA"), MANIFEST.bytes("trainA")) == (7, 700)
    assert (MANIFEST.count("trainB"), MANIFEST.bytes("trainB")) == (0, 0)


def test_intact(tmp_path):
    path = tmp_path / "testA-00000-of-00001.tfrecord"
    shard = Shard(path.name, 1, 4, hashlib.sha256(b"data").hexdigest())
    assert not shard.is_intact(tmp_path)
    path.write_bytes(b"data")
    assert shard.is_intact(tmp_path)
    path.write_bytes(b"dato")
    assert not shard.is_intact(tmp_path)


def test_missing(tmp_path):
    with pytest.raises(UserError, match=rf"{tmp_path}: no manifest.json here"):
        Manifest.load(tmp_path)
    with pytest.raises(UserError, match=r"no manifest\.json here"):
        Manifest.load(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, "\udcff"])
def test_damaged(tmp_path, text):
    path = tmp_path / FILE_NAME
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=rf"{path}: (not valid JSON|holds no JSON object)"):
        Manifest.load(tmp_path)


def altered(*keys_and_value):
    """The manifest as JSON, with one value replaced, or removed if it is ``...``."""
    *keys, last, value = keys_and_value
    fields = json.loads(json.dumps(dataclasses.asdict(MANIFEST)))
    place = fields
    for key in keys:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return fields


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        (altered("version", 3), "version 3 is unknown; this software reads versions 1 and 2"),
        (altered("version", ...), "version None is unknown"),
        (altered("source", ...), "source must be str, not missing"),
        (altered("paired", 1), "paired must be bool, not 1"),
        (altered("max_side", "256"), "max_side must be int or null, not '256'"),
        (altered("shards", True), "shards must be int or null, not True"),
        (altered("splits", []), "splits must be dict"),
        (altered("splits", "valA", []), "split 'valA' must be one of trainA"),
        (altered("splits", "trainA", []), "splits.trainA must be a list of shards"),
        (altered("splits", "trainA", {}), "splits.trainA must be a list of shards"),
        (altered("splits", "trainA", 0, "x"), "splits.trainA must list JSON objects"),
        (altered("splits", "trainA", 0, "examples", 3.0), "examples must be int, not 3.0"),
        (altered("splits", "trainA", 0, "sha256", ...), "sha256 must be str, not missing"),
        (altered("splits", "trainA", 0, "bytes", -1), "has a negative size"),
        (altered("splits", "trainA", 0, "examples", 19), "cannot hold 19 examples in 300 bytes"),
        (altered("splits", "trainA", 0, "examples", 1 << 4000), "cannot hold 1318204093"),
        (altered("splits", "trainA", 0, "bytes", 1 << 63), "cannot hold 3 examples in 92233720"),
        (altered("splits", "trainA", 0, "file", OTHER.file), "names a shard twice"),
    ],
)
def test_wrong_fields(tmp_path, fields, named):
    (tmp_path / FILE_NAME).write_text(json.dumps(fields))
    with pytest.raises(UserError) as error:
        Manifest.load(tmp_path)
    assert named in str(error.value)
    assert str(tmp_path / FILE_NAME) in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../trainA-00000-of-00002.tfrecord",
        "sub/trainA-00000-of-00002.tfrecord",
        "..",
        "",
        ".",
        "trainA-00000-of-00002.tfrecord\n",
        "trainA-00000-of-00002.tfrecord\0",
        "C:\\trainA-00000-of-00002.tfrecord",
        "trainB-00000-of-00002.tfrecord",  # of another split
        "manifest.json",
    ],
)
def test_names_that_lead_elsewhere(tmp_path, name):
    fields = altered("splits", "trainA", 0, "file", name)
    (tmp_path / FILE_NAME).write_text(json.dumps(fields))
    with pytest.raises(UserError, match="must be a plain file of this folder"):
        Manifest.load(tmp_path)


def test_links_that_lead_elsewhere(tmp_path):
    MANIFEST.save(tmp_path)
    (tmp_path / OTHER.file).symlink_to("/etc/passwd")
    with pytest.raises(UserError, match=rf"{OTHER.file}.* must be a plain file"):
        Manifest.load(tmp_path)
