from __future__ import annotations

import dataclasses
import shutil
import struct
from pathlib import Path

import pytest

from tests.tfrecords_tools.helpers import encoded, picture
from tfrecords_tools.build import build
from tfrecords_tools.manifest import Manifest, Shard, file_sha256
from tfrecords_tools.schema import encode_example
from tfrecords_tools.verify import main, verify

NAME = "trainA-00000-of-00003.tfrecord"


@pytest.fixture(scope="module")
def built(dataset, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("built") / "shards"
    build(str(dataset), output, shards=3, quiet=True)
    return output


@pytest.fixture
def folder(built, tmp_path) -> Path:
    return shutil.copytree(built, tmp_path / "shards")


def offsets(path: Path) -> list[int]:
    """Where the records of a shard begin."""
    data, found, position = path.read_bytes(), [], 0
    while position < len(data):
        found.append(position)
        position += 8 + 4 + struct.unpack_from("<Q", data, position)[0] + 4
    return found


def replace_shard(folder: Path, records: list[bytes]) -> None:
    """Puts ``records`` in place of a shard's and makes the manifest say so."""
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(folder / NAME)) as writer:
        for record in records:
            writer.write(record)
    found = Manifest.load(folder)
    path = folder / NAME
    shard = Shard(NAME, len(records), path.stat().st_size, file_sha256(path))
    shards = (shard, *found.splits["trainA"][1:])
    dataclasses.replace(found, splits={**found.splits, "trainA": shards}).save(folder)


def test_all_is_well(built, capsys):
    assert verify(built, quiet=True) == []
    assert main([str(built)]) == 0
    assert "all is well: trainA 12, trainB 9, testA 3, testB 2" in capsys.readouterr().out


@pytest.mark.parametrize("record", [0, 2, 3])
def test_flipped_byte(folder, record, capsys):
    path = folder / NAME
    data = bytearray(path.read_bytes())
    data[offsets(path)[record] + 200] ^= 1
    path.write_bytes(data)
    checksum, broken = verify(folder, quiet=True)
    assert checksum == f"{NAME}: its SHA-256 is not that of the manifest"
    assert broken.startswith(f"{NAME}: record {record} is broken (corrupted record at ")
    assert main([str(folder)]) == 1
    out = capsys.readouterr().out
    assert broken in out and "2 problems" in out


def test_truncated_shard(folder):
    path = folder / NAME
    path.write_bytes(path.read_bytes()[:-10])
    size, broken = verify(folder, quiet=True)
    assert size.startswith(f"{NAME}: has ") and "in the manifest" in size
    assert broken.startswith(f"{NAME}: record 3 is broken (truncated record")


def test_whole_records_missing(folder):
    path = folder / NAME
    path.write_bytes(path.read_bytes()[: offsets(path)[2]])
    size, count = verify(folder, quiet=True)
    assert size.startswith(f"{NAME}: has ")
    assert count == f"{NAME}: has 2 records, 4 in the manifest"


def test_missing_shard(folder):
    (folder / NAME).unlink()
    assert verify(folder, quiet=True) == [f"{NAME}: cannot be read (No such file or directory)"]


def test_wrong_checksum(folder):
    found = Manifest.load(folder)
    shards = list(found.splits["testB"])
    shards[1] = dataclasses.replace(shards[1], sha256="0" * 64)
    dataclasses.replace(found, splits={**found.splits, "testB": tuple(shards)}).save(folder)
    assert verify(folder, quiet=True) == [
        f"{shards[1].file}: its SHA-256 is not that of the manifest"
    ]


def test_stray_shard(folder):
    shutil.copy(folder / NAME, folder / "trainA-00007-of-00008.tfrecord")
    assert verify(folder, quiet=True) == ["trainA-00007-of-00008.tfrecord: is not in the manifest"]


JPEG = encoded(picture(5))
GOOD = encode_example(JPEG, "good.jpg", 16, 24, "A")


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (encode_example(JPEG[:-200], "b.jpg", 16, 24, "A"), "record 1 is broken ("),
        (encode_example(b"", "b.jpg", 16, 24, "A"), "record 1 is broken ("),
        (b"no example at all", "record 1 is broken ("),
        (
            encode_example(JPEG, "b.jpg", 24, 16, "A"),
            "record 1 (b.jpg) decodes to [16, 24, 3], not [24, 16, 3] as it says",
        ),
        (
            encode_example(JPEG, "b.jpg", 16, 24, "B"),
            "record 1 (b.jpg) is of domain 'B', in trainA",
        ),
        (GOOD, "record 1 has the file name 'good.jpg', which is empty or in the shard already"),
        (
            encode_example(JPEG, "", 16, 24, "A"),
            "record 1 has the file name '', which is empty or in the shard already",
        ),
    ],
    ids=["half an image", "no image", "no example", "size", "domain", "twice", "nameless"],
)
def test_record_that_was_written_wrong(folder, record, told):
    replace_shard(folder, [GOOD, record, encode_example(JPEG, "c.jpg", 16, 24, "A")])
    (problem,) = verify(folder, quiet=True)
    assert problem.startswith(f"{NAME}: {told}")


def test_several_broken_shards_are_all_named(folder):
    shards = Manifest.load(folder).splits
    broken = [shards["trainA"][1].file, shards["trainB"][0].file, shards["testB"][1].file]
    for file in broken:
        path = folder / file
        path.write_bytes(path.read_bytes()[:-1])
    problems = verify(folder, quiet=True)
    assert len(problems) == 6
    for file in broken:
        assert sum(problem.startswith(f"{file}: ") for problem in problems) == 2


def test_wrong_use(tmp_path, refused):
    assert "no manifest.json here" in refused(main, tmp_path)
    assert f"{tmp_path / 'x'}: no manifest.json here" in refused(main, tmp_path / "x")
    assert "DIR" in refused(main)
    (tmp_path / "manifest.json").write_text("{")
    assert f"{tmp_path / 'manifest.json'}: not valid JSON" in refused(main, tmp_path)
