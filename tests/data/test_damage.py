"""Damaged shards: what is broken is named, and everything else stays where it was."""

from __future__ import annotations

import shutil
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import tensorflow as tf

from cyclegan_tf.data.damage import mend
from cyclegan_tf.data.shards import MENDED, Shards
from cyclegan_tf.errors import UserError
from tests.tiny import content, pack_charts, with_shards_of
from tfrecords_tools.build import build
from tfrecords_tools.schema import encode_example, parse_example


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A folder of shards, five pictures in one shard of each domain; not to be written to."""
    folder = tmp_path_factory.mktemp("sound")
    pack_charts(folder, trainA=5, trainB=5, testA=2, testB=2)
    build(str(folder / "pictures"), folder / "one", shards=1, workers=1, quiet=True)
    return folder / "one"


@pytest.fixture
def shards(sound, tmp_path) -> Shards:
    """A copy that a test may damage."""
    shutil.copytree(sound, tmp_path / "shards")
    return replace(Shards.open(tmp_path / "shards"), mended=tmp_path / "run" / MENDED)


def names(shards: Shards, split: str = "trainA") -> list[str]:
    """The pictures of a split, as training reads them."""
    paths = [str(path) for path in shards.paths(split)]
    examples = tf.data.TFRecordDataset(paths).map(parse_example)
    return [example["filename"].decode() for example in examples.as_numpy_iterator()]


def starts(path: Path) -> list[int]:
    """Where each record begins, and where the last one ends."""
    data, places = path.read_bytes(), [0]
    while places[-1] < len(data):
        places.append(places[-1] + 16 + struct.unpack_from("<Q", data, places[-1])[0])
    return places


def change(path: Path, place: int, new: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[place : place + len(new)] = new
    path.write_bytes(data)


def test_sound_shards_are_left_as_they_are(shards, tmp_path):
    before = content(tmp_path)
    assert mend(shards, 0) == []
    assert content(tmp_path) == before


@pytest.mark.parametrize("broken", [0, 2, 4])
def test_a_flipped_bit_costs_one_record_and_its_neighbour_stands_in(shards, broken):
    right = names(shards)
    path = shards.paths("trainA")[0]
    change(path, starts(path)[broken] + 40, b"\xff\x00\xff")
    found = mend(shards, 1)
    assert [(one.shard, one.record) for one in found] == [(path.name, broken)]
    assert str(found[0]) == f"{path.name}, record {broken} (its checksum is wrong)"
    assert names(shards) == [
        *right[:broken],
        right[broken - 1 if broken else 1],
        *right[broken + 1 :],
    ]
    assert names(shards, "trainB") == names(replace(shards, mended=None), "trainB")
    assert mend(shards, 1) == []


def test_a_record_that_is_no_picture_is_left_out(shards):
    path = shards.paths("trainA")[0]
    right = names(shards)
    records = [encode_example(b"no picture", "x", 1, 1, "A")]
    records += [one.numpy() for one in tf.data.TFRecordDataset(str(path)).skip(1)]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    assert str(mend(shards, 1)[0]).endswith("record 0 (is no picture that can be decoded)")
    assert names(shards) == [right[1], *right[1:]]


def test_a_shard_that_is_cut_short_keeps_its_length(shards):
    path = shards.paths("trainB")[0]
    right = names(shards, "trainB")
    path.write_bytes(path.read_bytes()[: starts(path)[3] + 5])
    assert [one.record for one in mend(shards, 2)] == [3, 4]
    assert names(shards, "trainB") == [*right[:3], right[2], right[2]]


def test_a_wrong_length_costs_the_rest_of_the_shard(shards):
    path = shards.paths("trainA")[0]
    right = names(shards)
    change(path, starts(path)[1], struct.pack("<Q", 1 << 40))
    assert [one.record for one in mend(shards, 4)] == [1, 2, 3, 4]
    assert names(shards) == [right[0]] * 5


@pytest.mark.parametrize("rest", [b"m", b"more than the header of a record"])
def test_what_lies_behind_the_last_record_costs_none(shards, rest):
    path = shards.paths("trainA")[0]
    right = path.read_bytes()
    path.write_bytes(right + rest)
    assert mend(shards, 0) == []
    assert shards.paths("trainA")[0].read_bytes() == right
    assert shards.paths("trainA")[0].parent == shards.mended


def test_a_manifest_that_promises_too_much_is_no_long_search(shards, tmp_path):
    promised = with_shards_of(shards, "trainA", lambda row: (replace(row[0], examples=10**15),))
    before = content(tmp_path)
    with pytest.raises(UserError, match=r"999999999999995 records are cut off, more than --max"):
        mend(replace(promised, mended=shards.mended), 10)
    assert content(tmp_path) == before


def test_the_allowance_is_for_the_whole_run(shards, tmp_path):
    first, second = shards.paths("trainA")[0], shards.paths("trainB")[0]
    change(first, starts(first)[0] + 40, b"\xff\x00\xff")
    assert len(mend(shards, 1)) == 1
    change(second, starts(second)[0] + 40, b"\xff\x00\xff")
    before = content(tmp_path)
    with pytest.raises(
        UserError, match=r"2 records are broken, more than --max-damaged 1"
    ) as error:
        mend(shards, 1)
    assert f"{first.name}, record 0" in str(error.value)
    assert content(tmp_path) == before
    assert len(mend(shards, 2)) == 1


def test_a_record_of_another_shard_stands_in_for_a_whole_one(sound, tmp_path):
    build(str(sound.parent / "pictures"), tmp_path / "five", shards=5, workers=1, quiet=True)
    shards = replace(Shards.open(tmp_path / "five"), mended=tmp_path / "run" / MENDED)
    right = names(shards)
    shards.paths("trainA")[1].write_bytes(b"x" * 100)
    assert len(mend(shards, 1)) == 1
    assert names(shards) == [right[0], right[0], *right[2:]]


def test_a_split_without_a_sound_record_and_a_shard_that_is_gone_are_named(shards):
    path = shards.paths("testB")[0]
    path.write_bytes(b"x" * 100)
    with pytest.raises(UserError, match=r"no record of testB can be read"):
        mend(shards, 100)
    path.unlink()
    with pytest.raises(UserError, match=f"{path}: is missing"):
        mend(shards, 100)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "{}", "null", "[1]", "[" * 100_000, '{"step": "x"}', '[{"record": 1}]'),
        '[{"shard": [], "record": 0, "reason": ""}]',
    ],
)
def test_a_damaged_list_of_broken_records_is_refused_in_one_line(shards, text):
    place = shards.mended / "left_out.json"
    place.parent.mkdir(parents=True)
    place.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as refused:
        mend(shards, 5)
    assert str(refused.value).startswith(f"{place}: cannot be read (")
    assert str(refused.value).endswith(f"; delete {shards.mended}")
