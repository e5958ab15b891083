"""The build on Apache Beam gives what the build with threads gives, to the byte."""

from __future__ import annotations

import shutil
import sys

import pytest

from cyclegan_tf.errors import UserError
from tests.tfrecords_tools.helpers import content
from tfrecords_tools.beam import PipelineFailed, _write, is_receipt_name, receipt_name
from tfrecords_tools.build import build, main
from tfrecords_tools.manifest import shard_name
from tfrecords_tools.sources import open_source
from tfrecords_tools.writer import write_shard

RUNNER = "DirectRunner"


@pytest.fixture(scope="module")
def beam():
    return pytest.importorskip("apache_beam", reason="Apache Beam is not installed")


@pytest.fixture(scope="module")
def right(dataset, tmp_path_factory):
    """What threads make of pictures, one of which is broken."""
    source = tmp_path_factory.mktemp("source") / "faces"
    shutil.copytree(dataset, source)
    (source / "trainA" / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    output = tmp_path_factory.mktemp("threads") / "shards"
    build(str(source), output, shards=3, quiet=True)
    return source, content(output)


def test_beam_writes_the_same_files(beam, right, tmp_path):
    source, expected = right
    arguments = ["--input", source, "--output", tmp_path / "shards", "--shards", 3]
    assert main([*map(str, arguments), "--runner", RUNNER]) == 0
    assert content(tmp_path / "shards") == expected


def _write_but_one(work) -> None:
    if work[0].endswith("trainA-00001-of-00003.tfrecord"):
        raise OSError("the machine went away")
    _write(work)


def test_a_build_that_was_stopped_goes_on_with_beam(beam, right, tmp_path, monkeypatch):
    source, expected = right
    output = tmp_path / "shards"
    with monkeypatch.context() as patch, pytest.raises(PipelineFailed):
        patch.setattr("tfrecords_tools.beam._write", _write_but_one)
        build(str(source), output, shards=3, quiet=True, runner=RUNNER)
    assert not (output / "manifest.json").exists()
    build(str(source), output, shards=3, quiet=True, runner=RUNNER)
    assert content(output) == expected


@pytest.mark.parametrize(("mistake", "flags"), [("no Beam", ""), ("an open quote", "--region='eu")])
def test_a_mistake_costs_no_finished_shard(right, tmp_path, monkeypatch, mistake, flags):
    source, expected = right
    output = tmp_path / "shards"

    def stopped(path, *rest):
        if path.name.startswith("trainB"):
            raise KeyboardInterrupt
        return write_shard(path, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("tfrecords_tools.build.write_shard", stopped)
        build(str(source), output, shards=3, quiet=True, workers=1)
    before = content(output)
    assert any(name.endswith(".tfrecord") for name in before)
    with monkeypatch.context() as patch, pytest.raises(UserError, match="--runner"):
        if mistake == "no Beam":
            patch.setitem(sys.modules, "apache_beam", None)
        build(str(source), output, shards=3, quiet=True, runner=RUNNER, runner_args=flags)
    assert content(output) == before
    build(str(source), output, shards=3, quiet=True)
    assert content(output) == expected


def test_a_shard_of_an_earlier_attempt_counts_if_its_settings_were_the_same(dataset, tmp_path):
    items = open_source(str(dataset)).items()
    path, settings = tmp_path / shard_name("trainA", 0, 1), {"fingerprint": "1", "max_side": None}
    _write((str(path), items[:2], settings))
    written = path.read_bytes()
    _write((str(path), items[2:4], settings))
    assert path.read_bytes() == written
    _write((str(path), items[2:4], {**settings, "fingerprint": "2"}))
    assert path.read_bytes() != written


def test_a_wrong_runner_is_one_line(beam, dataset, tmp_path):
    with pytest.raises(UserError, match=r"--runner NoRunner: the pipeline failed \("):
        build(str(dataset), tmp_path / "shards", quiet=True, runner="NoRunner")


def test_an_open_quote_is_one_line(beam, dataset, tmp_path):
    with pytest.raises(UserError, match="--runner-args --region='eu: cannot be taken apart"):
        output, flags = tmp_path / "shards", "--region='eu"
        build(str(dataset), output, quiet=True, runner=RUNNER, runner_args=flags)


def test_without_beam_the_command_says_how_to_get_it(dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(UserError, match=r"pip install '\.\[beam\]'"):
        build(str(dataset), tmp_path / "shards", quiet=True, runner=RUNNER)
    assert list(tmp_path.iterdir()) == []


def test_receipts_are_known_by_name():
    assert is_receipt_name(receipt_name("trainA-00000-of-00008.tfrecord"))
    assert not is_receipt_name("packed-../x.json")


def test_flags_for_a_runner_that_is_not_given_are_refused(dataset, tmp_path):
    with pytest.raises(UserError, match="--runner-args --a=1: is for --runner"):
        build(str(dataset), tmp_path / "out", runner_args="--a=1", quiet=True)
