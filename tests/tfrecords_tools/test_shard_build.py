from __future__ import annotations

import functools
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclegan_tf.data import portraits
from cyclegan_tf.errors import UserError
from tests.tfrecords_tools.helpers import content, encoded, fill, picture, records
from tfrecords_tools import build as build_module
from tfrecords_tools import manifest as manifest_module
from tfrecords_tools import verify as verify_module
from tfrecords_tools.build import build, main, plan_shards
from tfrecords_tools.manifest import Manifest
from tfrecords_tools.schema import SPLITS
from tfrecords_tools.sources import Item, open_source
from tfrecords_tools.verify import verify

quiet_build = functools.partial(build, quiet=True)


@pytest.fixture(scope="module")
def built(dataset, tmp_path_factory) -> Path:
    """The shards of ``dataset``; not to be written to."""
    output = tmp_path_factory.mktemp("built") / "shards"
    quiet_build(str(dataset), output, workers=1)
    return output


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


# --- What is written -----------------------------------------------------------------------------


def test_every_image_is_stored_as_it_came(dataset, built):
    for split in SPLITS:
        files = {path.name: path.read_bytes() for path in (dataset / split).iterdir()}
        examples = records(built, split)
        assert {name: example["image"] for name, example in examples.items()} == files
        for example in examples.values():
            assert (example["height"], example["width"]) == (16, 24)
            assert example["domain"] == split[-1].encode()


def test_manifest(dataset, built):
    found = Manifest.load(built)
    assert (found.source, found.paired, found.shards, found.max_side) == (
        "faces",
        False,
        None,
        None,
    )
    assert found.fingerprint == open_source(str(dataset)).fingerprint()
    counts = {split: found.count(split) for split in SPLITS}
    assert counts == {"trainA": 12, "trainB": 9, "testA": 3, "testB": 2}
    assert {split: len(found.splits[split]) for split in SPLITS} == {
        "trainA": 8,
        "trainB": 8,
        "testA": 3,
        "testB": 2,
    }
    for split in SPLITS:
        sizes = [(built / shard.file).stat().st_size for shard in found.splits[split]]
        assert found.bytes(split) == sum(sizes)
        assert all(shard.is_intact(built) for shard in found.splits[split])
    names = {shard.file for shards in found.splits.values() for shard in shards}
    assert set(content(built)) == {*names, "manifest.json", "build_report.json"}
    assert json.loads((built / "build_report.json").read_text()) == {
        "left_out": [],
        "reencoded": {},
    }


def test_same_input_same_bytes(dataset, built, tmp_path):
    moved = tmp_path / "elsewhere" / "faces"
    shutil.copytree(dataset, moved)
    for workers in (2, 7):
        quiet_build(str(moved), tmp_path / f"{workers}", workers=workers)
        assert content(tmp_path / f"{workers}") == content(built)


def items_of(count: int, size: int) -> list[Item]:
    return [
        Item("trainA", f"{n:05d}.jpg", f"trainA/{n:05d}.jpg", size, bytes) for n in range(count)
    ]


@pytest.mark.parametrize(
    ("count", "size", "asked", "shards"),
    [
        (3, 1000, None, 3),
        (1000, 1000, None, 8),
        (1000, 800_000, None, 8),
        (1001, 800_000, None, 9),
        (100_000, 120_000, None, 120),
        (1000, 1000, 5, 5),
        (3, 1000, 5, 3),
    ],
)
def test_number_of_shards(count, size, asked, shards):
    plan = plan_shards(items_of(count, size), asked)
    assert len(plan) == shards
    assert sum(map(len, plan.values())) == count
    sizes = [len(items) for items in plan.values()]
    assert max(sizes) - min(sizes) <= 1


def test_neighbours_are_spread_over_the_shards():
    plan = plan_shards(items_of(800, 1))
    for items in plan.values():
        numbers = sorted(int(item.name[:5]) for item in items)
        film = [number for number in numbers if number < 100]  # the first eighth, by name
        assert 4 <= len(film) <= 25
    first = [item.name for item in plan["trainA-00000-of-00008.tfrecord"]]
    assert first != sorted(first)


def test_options(dataset, tmp_path):
    found = quiet_build(str(dataset), tmp_path / "out", shards=2, max_side=20)
    assert (found.shards, found.max_side) == (2, 20)
    assert [len(found.splits[split]) for split in SPLITS] == [2, 2, 2, 2]
    examples = records(tmp_path / "out", "trainA").values()
    assert {(e["height"], e["width"]) for e in examples} == {(13, 20)}
    report = json.loads((tmp_path / "out" / "build_report.json").read_text())
    assert report["reencoded"] == {"larger than --max-side": 26}


def test_held_out_images_are_named_like_the_others(tmp_path):
    root = fill(tmp_path / "x", {"trainA": 30, "trainB": 30})
    found = quiet_build(str(root), tmp_path / "out")
    for domain in "AB":
        train = records(tmp_path / "out", f"train{domain}")
        test = records(tmp_path / "out", f"test{domain}")
        assert set(train) | set(test) == {f"{number:03d}.jpg" for number in range(30)}
        assert 1 <= len(test) == 30 - len(train) == found.count(f"test{domain}")


def test_demo(monkeypatch, tmp_path):
    draw = functools.partial(portraits.demo_items, size=32, train=3, test=2)
    monkeypatch.setattr(portraits, "demo_items", draw)
    found = quiet_build("demo", tmp_path / "out", workers=1)
    assert found.paired and Manifest.load(tmp_path / "out").paired
    stored = {
        (split, name): example["image"]
        for split in SPLITS
        for name, example in records(tmp_path / "out", split).items()
    }
    assert stored == {(item.split, item.file_name): item.encode() for item in draw()}
    assert verify(tmp_path / "out", quiet=True) == []

    monkeypatch.setattr(portraits, "demo_items", None)  # a finished demo is not drawn again
    assert quiet_build("demo", tmp_path / "out") == found


def test_tfds(tmp_path):
    import tensorflow_datasets as tfds

    with tfds.testing.mock_data(num_examples=4):
        found = quiet_build("tfds:cycle_gan/horse2zebra", tmp_path / "out")
    assert found.source == "tfds:cycle_gan/horse2zebra"
    assert not found.paired
    assert [found.count(split) for split in SPLITS] == [4, 4, 4, 4]
    assert verify(tmp_path / "out", quiet=True) == []


# --- Bad images ----------------------------------------------------------------------------------


def noise() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), "PNG")


BAD = {
    "empty.jpg": (b"", "empty"),
    "notes.txt": (b"a note", "not an image"),
    "half.png": (noise()[:6000], "truncated"),
    "flipped.png": (noise()[:6000] + b"\0\0\0" + noise()[6003:], "unreadable"),
    "white.png": (encoded(Image.new("RGB", (8, 8), "white"), "PNG"), "near-constant"),
    "deep/bomb.bmp": (
        encoded(Image.new("RGB", (2, 2)), "BMP")[:18]
        + (9_460).to_bytes(4, "little") * 2
        + encoded(Image.new("RGB", (2, 2)), "BMP")[26:],
        "too large",
    ),
}


@pytest.fixture
def dirty(tmp_path) -> Path:
    """A folder with one bad file of each kind in trainB."""
    root = fill(tmp_path / "dirty", {"trainA": 5, "trainB": 5, "testA": 2, "testB": 2})
    (root / "trainB" / "deep").mkdir()
    for name, (data, _) in BAD.items():
        (root / "trainB" / name).write_bytes(data)
    (root / "trainB" / "gone.jpg").symlink_to("nowhere")
    return root


def test_bad_images_are_left_out_and_reported(dirty, tmp_path, capsys, recwarn):
    assert main(["--input", str(dirty), "--output", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "build_report.json").read_text())
    told = {entry["file"]: entry["reason"] for entry in report["left_out"]}
    expected = {f"trainB/{name}": reason for name, (_, reason) in BAD.items()}
    assert told == {**expected, "trainB/gone.jpg": "unreadable"}
    assert list(told) == sorted(told)
    assert all(entry["detail"] for entry in report["left_out"])
    assert set(records(tmp_path / "out", "trainB")) == {f"{number:03d}.jpg" for number in range(5)}

    out, err = capsys.readouterr()
    assert not recwarn.list  # Pillow's would come between the progress bars
    assert "reading: " in err and "packing: " in err and "/21 [" in err  # the progress bars
    (line,) = out.splitlines()
    assert "left out 7 (2 unreadable, 1 " in line
    for reason in {reason for _, reason in BAD.values()} - {"unreadable"}:
        assert f"1 {reason}" in line
    assert verify(tmp_path / "out", quiet=True) == []


def test_all_shards_may_stay_empty_but_one(tmp_path):
    root = fill(tmp_path / "x", {"trainA": 1, "trainB": 1, "testA": 1, "testB": 1})
    for number in range(5):
        (root / "trainA" / f"{number}.txt").write_text("no image")
    (root / "testB" / "000.jpg").write_bytes(b"")
    found = quiet_build(str(root), tmp_path / "out")
    assert sorted(shard.examples for shard in found.splits["trainA"]) == [0, 0, 0, 0, 0, 1]
    assert set(records(tmp_path / "out", "trainA")) == {"000.jpg"}
    assert "testB" not in found.splits
    assert not list((tmp_path / "out").glob("testB*"))
    assert verify(tmp_path / "out", quiet=True) == []


def test_strict(dirty, tmp_path, refused):
    arguments = ["--input", dirty, "--output", tmp_path / "out"]
    line = refused(main, *arguments, "--strict")
    assert "trainB/" in line and "--strict" in line
    assert any(reason in line for _, reason in BAD.values())
    assert not (tmp_path / "out").exists()

    # What was built without --strict is complete, and stays, but is not good enough.
    assert main([*map(str, arguments)]) == 0
    before = content(tmp_path / "out")
    line = refused(main, *arguments, "--strict")
    assert "trainB/deep/bomb.bmp: too large" in line
    assert content(tmp_path / "out") == before


def test_strict_is_content_with_good_images(dataset, built, tmp_path):
    quiet_build(str(dataset), tmp_path / "out", strict=True)
    assert content(tmp_path / "out") == content(built)


def test_no_usable_image(tmp_path, refused):
    root = fill(tmp_path / "x", {"trainA": 3, "trainB": 3})
    for number in range(3):
        (root / "trainB" / f"{number:03d}.jpg").write_bytes(b"" if number else b"text")
    line = refused(main, "--input", root, "--output", tmp_path / "out")
    assert f"--input {root}: no usable image in trainB" in line
    assert "2 empty, 1 not an image" in line
    assert not (tmp_path / "out").exists()


# --- Again, and after an interruption ------------------------------------------------------------


def test_a_second_run_does_nothing(dataset, built, monkeypatch, capsys):
    before = times(built)
    monkeypatch.setattr(build_module, "write_shard", None)
    found = build(str(dataset), built)
    assert found == Manifest.load(built)
    assert times(built) == before
    assert "already complete" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "report", "manifest"])
def test_a_damaged_output_is_mended(dataset, built, tmp_path, damage):
    output = shutil.copytree(built, tmp_path / "out")
    path = output / "trainA-00003-of-00008.tfrecord"
    data = path.read_bytes()
    if damage == "flip":
        path.write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])
    elif damage == "cut":
        path.write_bytes(data[:-1])
    elif damage == "remove":
        path.unlink()
    elif damage == "report":
        (output / "build_report.json").unlink()
    else:
        (output / "manifest.json").write_bytes((output / "manifest.json").read_bytes()[:99])
    quiet_build(str(dataset), output)
    assert content(output) == content(built)


class Killed(BaseException):
    pass


def test_an_output_that_is_being_mended_is_not_for_use(dataset, built, tmp_path, monkeypatch):
    def interrupted(*_):
        raise Killed

    output = shutil.copytree(built, tmp_path / "out")
    (output / "testB-00000-of-00002.tfrecord").unlink()
    monkeypatch.setattr(build_module, "write_shard", interrupted)
    with pytest.raises(Killed):
        quiet_build(str(dataset), output)
    with pytest.raises(UserError, match=r"no manifest\.json here"):
        Manifest.load(output)


def test_an_interrupted_build_goes_on(dataset, built, tmp_path, monkeypatch):
    output, write = tmp_path / "out", build_module.write_shard

    def interrupted(path, *rest):
        if path.name.startswith("trainB-00002"):
            raise Killed
        return write(path, *rest)

    monkeypatch.setattr(build_module, "write_shard", interrupted)
    with pytest.raises(Killed):
        quiet_build(str(dataset), output, workers=1)
    done = times(output)
    _, *lines = (output / "build_state.jsonl").read_text().splitlines()
    shards = {json.loads(line)["shard"]["file"] for line in lines}
    assert 8 <= len(shards) < 21 and shards < set(done) and "manifest.json" not in done

    written = set()
    monkeypatch.setattr(
        build_module,
        "write_shard",
        lambda path, *rest: written.add(path.name) or write(path, *rest),
    )
    quiet_build(str(dataset), output, workers=2)
    assert content(output) == content(built)
    assert not shards & written and len(shards | written) == 21
    assert {name: times(output)[name] for name in shards} == {name: done[name] for name in shards}


def test_killed_between_any_two_steps(tmp_path, monkeypatch):
    """Takes a copy of the folder before and after each step, as kill -9 would leave it."""
    root = fill(tmp_path / "x", {"trainA": 3, "trainB": 2, "testA": 1, "testB": 1})
    (root / "trainA" / "bad.jpg").write_bytes(b"")
    copies = []
    one_at_a_time = threading.RLock()

    def watch(owner, name):
        step = getattr(owner, name)

        def watched(path, *rest, **options):
            def keep():
                if (tmp_path / "out").exists():
                    copies.append(tmp_path / f"copy{len(copies)}")
                    shutil.copytree(tmp_path / "out", copies[-1])

            with one_at_a_time:
                keep()
                result = step(path, *rest, **options)
                keep()
                return result

        return owner, name, watched

    with monkeypatch.context() as patch:
        for watched in [watch(Path, name) for name in ("mkdir", "replace", "unlink")]:
            patch.setattr(*watched)
        quiet_build(str(root), tmp_path / "out", workers=1)
    expected = content(tmp_path / "out")
    assert len(copies) > 40
    assert len({frozenset(content(copy)) for copy in copies}) > 15  # and they do differ
    for copy in copies:
        quiet_build(str(root), copy, workers=1)
        assert content(copy) == expected


def test_leftovers_of_other_settings_are_cleared_away(dataset, built, tmp_path, monkeypatch):
    output, write = tmp_path / "out", build_module.write_shard

    def interrupted(path, *rest):
        if path.name.startswith("testB"):
            raise Killed
        return write(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(build_module, "write_shard", interrupted)
        with pytest.raises(Killed):
            quiet_build(str(dataset), output, shards=5, max_side=20, workers=1)
    (output / ".trainA-00004-of-00005.tfrecord.tmp").write_bytes(b"half a shard")
    quiet_build(str(dataset), output)
    assert content(output) == content(built)


def test_a_shard_damaged_between_the_runs_is_written_again(dataset, built, tmp_path, monkeypatch):
    output, write = tmp_path / "out", build_module.write_shard

    def interrupted(path, *rest):
        if path.name.startswith("testB"):
            raise Killed
        return write(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(build_module, "write_shard", interrupted)
        with pytest.raises(Killed):
            quiet_build(str(dataset), output, workers=1)
    (output / "trainA-00001-of-00008.tfrecord").write_bytes(b"")  # as a power cut may leave it
    quiet_build(str(dataset), output)
    assert content(output) == content(built)


@pytest.mark.parametrize("state", ["", "{", "[]", "null\n{}", "\0\0\0\n"])
def test_a_damaged_state_starts_from_the_beginning(dataset, built, tmp_path, state):
    (tmp_path / "build_state.jsonl").write_text(state)
    quiet_build(str(dataset), tmp_path)
    assert content(tmp_path) == content(built)


def test_a_source_that_changed_meanwhile(tmp_path, monkeypatch, refused):
    root = fill(tmp_path / "x", {"trainA": 3, "trainB": 3, "testA": 1, "testB": 1})
    write = build_module.write_shard

    def meddle(path, *rest):
        (root / "testB" / "000.jpg").write_bytes(encoded(picture(77)))
        return write(path, *rest)

    monkeypatch.setattr(build_module, "write_shard", meddle)
    line = refused(main, "--input", root, "--output", tmp_path / "out")
    assert f"{root}/testB/000.jpg: changed while it was packed" in line
    assert not (tmp_path / "out").exists()


def test_a_source_that_went_away_can_be_mended(dataset, built, tmp_path, monkeypatch, refused):
    output, write = tmp_path / "out", build_module.write_shard

    def unplug(path, *rest):
        if path.name.startswith("testB-00001"):
            patch.setattr(Path, "read_bytes", unreadable)
        return write(path, *rest)

    def unreadable(_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(build_module, "write_shard", unplug)
        line = refused(main, "--input", dataset, "--output", output, "--workers", 1)
    assert f"{dataset}/testB/" in line
    assert "cannot be read any more (Input/output error); mend that and run the same" in line
    assert len(list(output.glob("*.tfrecord"))) == 20
    quiet_build(str(dataset), output)
    assert content(output) == content(built)


def test_a_full_disk_can_be_mended(dataset, built, tmp_path, monkeypatch, refused):
    import tensorflow as tf

    output, writer = tmp_path / "out", tf.io.TFRecordWriter

    class Full(writer):
        def write(self, record):
            if b"testA" in path_now[0]:
                raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")
            super().write(record)

    path_now = [b""]

    def open_writer(path):
        path_now[0] = path.encode()
        return Full(path)

    with monkeypatch.context() as patch:
        patch.setattr(tf.io, "TFRecordWriter", open_writer)
        line = refused(main, "--input", dataset, "--output", output, "--workers", 1)
    assert f"--output {output}: cannot be written (No space left on device)" in line
    assert not list(output.glob(".*"))
    assert len(list(output.glob("train*.tfrecord"))) == 16
    quiet_build(str(dataset), output)
    assert content(output) == content(built)


def test_ctrl_c(dataset, tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(build_module, "write_shard", interrupt)
    assert main(["--input", str(dataset), "--output", str(tmp_path / "out")]) == 130
    assert "the same command goes on" in capsys.readouterr().err


# --- Mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "value", "rule"),
    [
        ("--shards", "0", "must be a whole number from 1 to 10,000"),
        ("--shards", "10001", "must be a whole number from 1 to 10,000"),
        ("--shards", "many", "'many'"),
        ("--max-side", "3", "must be a whole number from 16"),
        ("--max-side", "2.5", "'2.5'"),
        ("--workers", "0", "must be a whole number from 1"),
        ("--workers", "-1", "must be a whole number from 1"),
    ],
)
def test_wrong_numbers(dataset, tmp_path, refused, flag, value, rule):
    output = tmp_path / "out"
    line = refused(main, "--input", dataset, "--output", output, f"{flag}={value}")
    assert flag in line and value in line and rule in line
    assert not output.exists()


def test_wrong_flags(refused):
    assert "--input" in refused(main, "--output", "x")
    assert "--output" in refused(main, "--input", "demo")
    assert "--shard-size" in refused(main, "--input", "demo", "--output", "x", "--shard-size", "9")


@pytest.mark.parametrize("source", ["missing", "tfds:mnist", "flat"])
def test_wrong_sources(tmp_path, refused, source):
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "a.jpg").write_bytes(encoded(picture()))
    value = source if source.startswith("tfds") else tmp_path / source
    line = refused(main, "--input", value, "--output", tmp_path / "out")
    assert f"--input {value}: " in line
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_something_else(dataset, tmp_path, refused):
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "holiday.jpg").write_bytes(b"dear to me")
    line = refused(main, "--input", dataset, "--output", foreign)
    assert f"--output {foreign}: holds 'holiday.jpg'" in line
    assert content(foreign) == {"holiday.jpg": b"dear to me"}

    line = refused(main, "--input", dataset, "--output", foreign / "holiday.jpg")
    assert f"--output {foreign / 'holiday.jpg'}: is a file" in line
    line = refused(main, "--input", dataset, "--output", foreign / "holiday.jpg" / "x")
    assert "cannot be created" in line
    line = refused(main, "--input", dataset, "--output", "/proc/shards")
    assert "--output /proc/shards: cannot be created" in line
    line = refused(main, "--input", dataset, "--output", tmp_path / ("x" * 300))
    assert "cannot be read or written (File name too long)" in line
    assert content(foreign) == {"holiday.jpg": b"dear to me"}


def test_links_that_lead_to_themselves(dataset, tmp_path, refused):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    line = refused(main, "--input", dataset, "--output", tmp_path / "loop")
    assert f"--output {tmp_path / 'loop'}: is a file; name a folder" in line
    source = shutil.copytree(dataset, tmp_path / "source")
    shutil.rmtree(source / "testA")
    (source / "testA").symlink_to(source / "testA")
    assert main(["--input", str(source), "--output", str(tmp_path / "out")]) == 0


def test_urls_are_refused(dataset, tmp_path, refused, monkeypatch):
    """Instead of a folder with the name gs: below the current one."""
    monkeypatch.chdir(tmp_path)
    line = refused(main, "--input", dataset, "--output", "gs://bucket/shards")
    assert "--output gs://bucket/shards: must be a local folder, not a URL" in line
    line = refused(main, "--input", "s3://bucket/faces", "--output", "shards")
    assert "--input s3://bucket/faces: must be a local folder, not a URL" in line
    line = refused(verify_module.main, "gs://bucket/shards")
    assert "gs://bucket/shards: must be a local folder, not a URL, for verify; copy" in line
    assert list(tmp_path.iterdir()) == []


def test_shards_whose_manifest_is_lost_are_not_touched(dataset, built, tmp_path, refused):
    output = shutil.copytree(built, tmp_path / "out")
    (output / "manifest.json").unlink()
    before = content(output)
    assert "holds 'build_report.json' but no" in refused(
        main, "--input", dataset, "--output", output
    )
    assert content(output) == before


def test_an_output_of_other_settings_or_images(dataset, built, tmp_path, refused):
    output = shutil.copytree(built, tmp_path / "out")
    line = refused(main, "--input", dataset, "--output", output, "--max-side", "20")
    assert f"--output {output}: holds shards of faces" in line and "--max-side 20" in line
    assert "choose another folder or delete this one" in line
    other = fill(tmp_path / "other", {"trainA": 2, "trainB": 2})
    assert "not of other (" in refused(main, "--input", other, "--output", output)
    assert content(output) == content(built)


def test_an_output_of_an_earlier_way_of_packing(dataset, built, tmp_path, refused):
    output = shutil.copytree(built, tmp_path / "out")
    text = (output / "manifest.json").read_text()
    (output / "manifest.json").write_text(text.replace('"version": 2', '"version": 1'))
    assert Manifest.load(output).version == 1  # Training reads it.
    line = refused(main, "--input", dataset, "--output", output)
    assert "packed in the way of version 1), not of" in line


def test_an_output_inside_the_input(tmp_path, refused):
    root = fill(tmp_path / "x", {"trainA": 2, "trainB": 2})
    for inside in ("trainA", "trainB/shards", "testA"):
        line = refused(main, "--input", root, "--output", root / inside)
        assert f"--output {root / inside}: lies inside {inside[:6].rstrip('/')}" in line
    assert "--output" in refused(main, "--input", root, "--output", root)
    assert {path.name for path in root.rglob("*")} == {"trainA", "trainB", "000.jpg", "001.jpg"}
    quiet_build(str(root), root / "shards")  # beside the splits is fine
    assert Manifest.load(root / "shards").count("trainA") == 1


def test_an_empty_folder_of_the_user_stays(tmp_path, refused):
    (tmp_path / "out").mkdir()
    root = fill(tmp_path / "x", {"trainA": 1, "trainB": 1})
    (root / "trainA" / "000.jpg").write_bytes(b"")
    refused(main, "--input", root, "--output", tmp_path / "out")
    assert content(tmp_path / "out") == {}


def test_output_that_cannot_be_written(dataset, tmp_path, monkeypatch, refused):
    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(manifest_module.os, "fsync", denied)
    line = refused(main, "--input", dataset, "--output", tmp_path / "out")
    assert f"--output {tmp_path / 'out'}: cannot be written (Permission denied)" in line
