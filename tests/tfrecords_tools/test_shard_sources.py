from __future__ import annotations

import functools
import os
import shutil
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cyclegan_tf.data import portraits
from cyclegan_tf.errors import UserError
from tests.tfrecords_tools.helpers import encoded, fill, picture
from tfrecords_tools.images import BadImage
from tfrecords_tools.sources import HELD_OUT, DemoSource, SourceLost, open_source

# --- Folders -------------------------------------------------------------------------------------


def listed(root):
    return {item.origin: item for item in open_source(str(root)).items()}


def test_items_of_a_folder(dataset):
    items = listed(dataset)
    assert len(items) == 26
    item = items["trainB/008.jpg"]
    data = (dataset / "trainB" / "008.jpg").read_bytes()
    assert (item.split, item.name, item.size) == ("trainB", "008.jpg", len(data))
    assert item.read() == data
    source = open_source(f"{dataset}/../faces")
    assert (source.name, source.paired) == ("faces", False)


def test_fingerprint_is_of_names_and_content(dataset, tmp_path):
    first = open_source(str(dataset)).fingerprint()
    copy = tmp_path / "elsewhere"
    shutil.copytree(dataset, copy)
    assert open_source(str(copy), workers=2).fingerprint() == first

    (copy / "trainA" / "000.jpg").rename(copy / "trainA" / "renamed.jpg")
    renamed = open_source(str(copy)).fingerprint()
    (copy / "trainA" / "renamed.jpg").rename(copy / "trainA" / "000.jpg")
    assert open_source(str(copy)).fingerprint() == first

    path = copy / "testB" / "001.jpg"
    path.write_bytes(path.read_bytes() + b"\0")
    assert len({first, renamed, open_source(str(copy)).fingerprint()}) == 3


def test_subfolders_links_and_litter(tmp_path):
    root = fill(tmp_path / "x", {"trainA": 1, "trainB": 1, "testA": 1, "testB": 1})
    inner = root / "trainA" / "film" / "scene"
    inner.mkdir(parents=True)
    shutil.copy(root / "trainA" / "000.jpg", inner / "000.jpg")
    (root / "trainA" / "linked.jpg").symlink_to(root / "trainB" / "000.jpg")
    (root / "trainA" / "circle").symlink_to(root / "trainA")
    (root / "trainA" / "dangling.jpg").symlink_to("nowhere")
    os.mkfifo(root / "trainA" / "pipe")
    for name in (".DS_Store", "Thumbs.db", "._000.jpg", ".hidden/x.jpg", "__MACOSX/x.jpg"):
        path = root / "trainA" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"litter")

    items = {origin: item for origin, item in listed(root).items() if item.split == "trainA"}
    assert set(items) == {
        "trainA/000.jpg",
        "trainA/film/scene/000.jpg",
        "trainA/linked.jpg",
        "trainA/circle",
        "trainA/dangling.jpg",
        "trainA/pipe",
    }
    assert items["trainA/film/scene/000.jpg"].name == "film/scene/000.jpg"
    assert items["trainA/linked.jpg"].read() == (root / "trainB" / "000.jpg").read_bytes()
    for name in ("circle", "dangling.jpg", "pipe"):
        with pytest.raises(BadImage, match="unreadable: not a regular file"):
            items[f"trainA/{name}"].read()


def test_file_that_changes_after_the_fingerprint(tmp_path):
    root = fill(tmp_path / "x", {"trainA": 1, "trainB": 1, "testA": 1, "testB": 1})
    item = listed(root)["trainA/000.jpg"]
    (root / "trainA" / "000.jpg").write_bytes(encoded(picture(99)))
    with pytest.raises(UserError, match=r"000.jpg: changed while it was packed"):
        item.read()


def test_file_that_is_lost_after_the_fingerprint(tmp_path):
    root = fill(tmp_path / "x", {"trainA": 1, "trainB": 1, "testA": 1, "testB": 1})
    item = listed(root)["trainA/000.jpg"]
    (root / "trainA" / "000.jpg").unlink()
    with pytest.raises(SourceLost, match=r"000.jpg: cannot be read any more \(No such file"):
        item.read()


@pytest.mark.parametrize(
    ("folders", "files", "told"),
    [
        ([], ["a.jpg", "b.jpg"], "no folder trainA and trainB in it, only 2 files;"),
        ([], [], "no folder trainA and trainB in it, only nothing;"),
        (["train_A", "TrainB"], [], "only TrainB/, train_A/;"),
        (["trainA"], ["x.txt", ".DS_Store"], "no folder trainB in it, only trainA/, 1 file;"),
        (list("abcdefgh"), [], "only a/, b/, c/, d/, e/, more folders;"),
        (["trainA", "trainB"], [], "trainA holds no files"),
    ],
)
def test_folders_that_are_no_data_set(tmp_path, folders, files, told):
    for name in folders:
        (tmp_path / name).mkdir()
    for name in files:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError) as error:
        open_source(str(tmp_path), flag="--data")
    assert str(error.value).startswith(f"--data {tmp_path}: ")
    assert told in str(error.value)


def test_no_folder(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for name, told in (("missing", "does not exist"), ("file", "is not a folder")):
        with pytest.raises(
            UserError, match=rf"--input .*{name}: {told}; give a folder with trainA"
        ):
            open_source(str(tmp_path / name))
    with pytest.raises(UserError, match="cannot be read"):
        open_source(str(tmp_path / ("x" * 300)))


# --- Held-out images -----------------------------------------------------------------------------


def split_of_each(root):
    return {origin: item.split for origin, item in listed(root).items()}


def test_share_that_is_held_out(tmp_path):
    root = fill(tmp_path / "x", {"trainA": 200, "trainB": 2, "testB": 1})
    splits = split_of_each(root)
    held_out = {origin for origin, split in splits.items() if split == "testA"}
    assert 0.5 * HELD_OUT < len(held_out) / 200 < 1.6 * HELD_OUT
    assert all(origin.startswith("trainA/") for origin in held_out)
    # Domain B has a test folder and keeps all of its training images.
    assert [splits[f"trainB/{name}.jpg"] for name in ("000", "001")] == ["trainB", "trainB"]

    # New images, and new names, move none of the others to the other side.
    for number in range(50):
        (root / "trainA" / f"new{number}.jpg").write_bytes(encoded(picture(1000 + number)))
    for number in range(100):
        path = root / "trainA" / f"{number:03d}.jpg"
        path.rename(path.with_name(f"{number:03d} renamed.jpg"))
    after = {o.replace(" renamed", ""): split for o, split in split_of_each(root).items()}
    assert {origin: after[origin] for origin in splits} == splits


def test_equal_images_are_on_the_same_side(tmp_path):
    root = fill(tmp_path / "x", {"trainA": 40, "trainB": 40})
    for path in (root / "trainA").glob("*.jpg"):
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    splits = split_of_each(root)
    assert set(splits.values()) == {"trainA", "trainB", "testA", "testB"}
    for number in range(40):
        assert splits[f"trainA/{number:03d}.jpg"] == splits[f"trainA/copy of {number:03d}.jpg"]


@pytest.mark.parametrize("seed", range(8))
def test_few_images_give_each_side_a_usable_one(tmp_path, seed):
    root = tmp_path / "x"
    for split in ("trainA", "trainB"):
        (root / split).mkdir(parents=True)
        for number in range(2):
            image = encoded(picture(100 * seed + number + (split == "trainB") * 10))
            (root / split / f"{number}.jpg").write_bytes(image)
        for number in range(10):
            (root / split / f"{number}.txt").write_text(f"no image {seed} {split} {number}")
    sides = split_of_each(root)
    for domain in "AB":
        images = {sides[f"train{domain}/{number}.jpg"] for number in range(2)}
        assert images == {f"train{domain}", f"test{domain}"}


@pytest.mark.parametrize("seed", range(4))
def test_two_of_three_images_are_for_training(tmp_path, monkeypatch, seed):
    """Whatever share their hashes say, as a training needs two."""
    monkeypatch.setattr("tfrecords_tools.sources.HELD_OUT", 0.99)
    root = tmp_path / "x"
    for split in ("trainA", "trainB"):
        (root / split).mkdir(parents=True)
        for number in range(3):
            image = encoded(picture(100 * seed + number))
            (root / split / f"{number}.jpg").write_bytes(image)
        (root / split / "3.txt").write_text(f"no image {seed}")
    sides = split_of_each(root)
    for domain in "AB":
        images = sorted(sides[f"train{domain}/{number}.jpg"] for number in range(3))
        assert images == [f"test{domain}", f"train{domain}", f"train{domain}"]


def test_a_single_image_is_for_training(tmp_path):
    root = fill(tmp_path / "x", {"trainA": 1, "trainB": 1})
    assert split_of_each(root) == {"trainA/000.jpg": "trainA", "trainB/000.jpg": "trainB"}


# --- The demo ------------------------------------------------------------------------------------


@pytest.fixture
def small_demo(monkeypatch):
    draw = functools.partial(portraits.demo_items, size=32, train=3, test=2)
    monkeypatch.setattr(portraits, "demo_items", draw)
    return {(d.split, d.file_name): d.encode() for d in draw()}


@pytest.mark.parametrize("workers", [1, 2])
def test_demo(small_demo, workers):
    source = open_source("demo", workers=workers)
    items = source.items()
    assert {(item.split, item.name): item.read() for item in items} == small_demo
    assert [item.size for item in items] == [len(item.read()) for item in items]
    assert (source.name, source.paired) == ("demo", True)
    assert {i.name for i in items if i.split == "testA"} == {"0001.png", "0002.png"}
    assert {i.name for i in items if i.split == "testB"} == {"0001.png", "0002.png"}


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="Windows")
def test_ctrl_c_that_another_thread_takes_waits_until_the_processes_have_started(
    small_demo, monkeypatch
):
    """Libraries' threads do not keep it back; a process that is half started prints a traceback."""
    done, started = threading.Event(), []
    other = threading.Thread(target=done.wait)
    other.start()

    class Starting(ThreadPoolExecutor):
        def map(self, *arguments, **options):
            signal.pthread_kill(other.ident, signal.SIGINT)
            time.sleep(0.1)  # Python runs the handler as soon as this thread goes on.
            started.append(True)
            return super().map(*arguments, **options)

    monkeypatch.setattr(DemoSource, "_pool", lambda _: Starting(2))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            open_source("demo", workers=2).items()
        assert started
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.signal(signal.SIGINT, before)
        done.set()
        other.join()


def test_demo_fingerprint_is_that_of_its_code(monkeypatch, tmp_path):
    first = open_source("demo").fingerprint()
    assert open_source("demo").fingerprint() == first
    changed = tmp_path / "portraits.py"
    changed.write_bytes(Path(portraits.__file__).read_bytes() + b"\n# another stroke")
    monkeypatch.setattr(portraits, "__file__", str(changed))
    assert open_source("demo").fingerprint() != first


# --- TensorFlow Datasets -------------------------------------------------------------------------


@pytest.fixture
def tfds():
    import tensorflow_datasets

    with tensorflow_datasets.testing.mock_data(num_examples=3):
        yield tensorflow_datasets


def test_tfds(tfds):
    source = open_source("tfds:cycle_gan/horse2zebra")
    assert (source.name, source.paired) == ("tfds:cycle_gan/horse2zebra", False)
    items = source.items()
    assert [(item.split, item.name) for item in items] == [
        (split, f"{number:06d}")
        for split in ("trainA", "trainB", "testA", "testB")
        for number in range(3)
    ]
    decoders = {"image": tfds.decode.SkipDecoding()}
    loaded = tfds.load("cycle_gan/horse2zebra", split="testB", decoders=decoders)
    expected = [example["image"] for example in loaded.as_numpy_iterator()]
    assert [item.read() for item in items[-3:]] == expected
    assert [item.size for item in items[-3:]] == list(map(len, expected))
    assert expected[0].startswith(b"\x89PNG")  # encoded, not pixels


def test_tfds_fingerprint_is_of_name_and_version(tfds):
    one = open_source("tfds:cycle_gan/horse2zebra").fingerprint()
    version = tfds.builder("cycle_gan/horse2zebra").version
    assert one == open_source(f"tfds:cycle_gan/horse2zebra:{version}").fingerprint()
    assert one != open_source("tfds:cycle_gan/maps").fingerprint()


@pytest.mark.parametrize("name", ["", "mnist", "cycle_gan", "cycle_gan/", "cycle_gan/horses"])
def test_tfds_without_such_a_name(tfds, name):
    with pytest.raises(UserError, match=rf"--input tfds:{name}: no such .* one of .*horse2zebra"):
        open_source(f"tfds:{name}")


def test_tfds_that_cannot_be_loaded(tfds, monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(tfds, "load", fail)
    source = open_source("tfds:cycle_gan/maps", flag="--data")
    with pytest.raises(UserError) as error:
        source.items()
    assert str(error.value).startswith("--data tfds:cycle_gan/maps: cannot be loaded (no route to")


def test_tfds_that_lacks_a_package(tfds, monkeypatch):
    def fail(*_, **__):
        raise ModuleNotFoundError("No module named 'apache_beam'", name="apache_beam")

    monkeypatch.setattr(tfds, "load", fail)
    with pytest.raises(UserError, match=r"cycle_gan/maps: needs .*; pip install apache_beam$"):
        open_source("tfds:cycle_gan/maps").items()


def test_tfds_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match=r"needs tensorflow-datasets.*pip install"):
        open_source("tfds:cycle_gan/horse2zebra")
