from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from cyclegan_tf import files
from cyclegan_tf.reporting.samples import (
    CAPTION,
    GAP,
    STRIP_CELL,
    STRIP_PICTURES,
    grid,
    list_strips,
    read_strip,
    save_samples,
)

COLUMNS = {"ab": ("real_a", "fake_b", "cycled_a"), "ba": ("real_b", "fake_a", "cycled_b")}


@pytest.mark.parametrize("direction", ["ab", "ba"])
@pytest.mark.parametrize(("size", "cell"), [(16, 128), (100, 200), (128, 128), (200, 200)])
def test_grid_holds_every_picture_to_the_pixel(make_samples, direction, size, cell):
    samples = make_samples(count=3, size=size)
    drawn = grid(samples, direction)
    pitch = cell + GAP
    assert drawn.shape == (CAPTION + GAP + 3 * pitch, GAP + 3 * pitch, 3)
    assert drawn.dtype == np.uint8
    expected = drawn[:1, :1].repeat(drawn.shape[0], axis=0).repeat(drawn.shape[1], axis=1)
    for column, name in enumerate(COLUMNS[direction]):
        for row, picture in enumerate(getattr(samples, name)):
            magnified = np.kron(picture, np.ones((cell // size, cell // size, 1), np.uint8))
            top, left = CAPTION + GAP + row * pitch, GAP + column * pitch
            expected[top : top + cell, left : left + cell] = magnified
    np.testing.assert_array_equal(drawn[CAPTION:], expected[CAPTION:])


def test_each_column_has_a_caption_that_fits(make_samples):
    caption = grid(make_samples(size=128), "ba")[:CAPTION].astype(int)
    ink = np.abs(caption - caption[0, 0]).max(axis=(0, 2)) > 60
    for column in range(3):
        left = GAP + column * (128 + GAP)
        assert ink[left : left + 128].sum() > 20
        assert not ink[left - GAP : left].any()


@pytest.mark.parametrize("change", ["shape", "dtype", "flat"])
def test_samples_must_be_of_one_kind(make_samples, change):
    samples = make_samples()
    wrong = {
        "shape": {"fake_b": samples.fake_b[:1]},
        "dtype": {"cycled_a": samples.cycled_a.astype(np.float32)},
        "flat": {"real_a": samples.real_a[0]},
    }[change]
    with pytest.raises(ValueError, match=r"uint8|shape"):
        dataclasses.replace(samples, **wrong)


def test_saved_grids_are_what_grid_draws(tmp_path, make_samples):
    samples = make_samples()
    paths = save_samples(tmp_path, 1000, samples)
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "samples/step-0001000-ab.png",
        "samples/step-0001000-ba.png",
    ]
    for path, direction in zip(paths, ("ab", "ba")):
        np.testing.assert_array_equal(np.array(Image.open(path)), grid(samples, direction))
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_strips_come_back_in_order_of_the_steps(tmp_path, make_samples):
    for step in (10_000_000, 2000, 0):  # By name, the first would come between.
        save_samples(tmp_path, step, make_samples())
    (tmp_path / "samples" / "strips" / "step-x-ab.jpg").write_bytes(b"")
    for direction in ("ab", "ba"):
        assert [step for step, _ in list_strips(tmp_path, direction)] == [0, 2000, 10_000_000]
    assert list_strips(tmp_path / "none", "ab") == []


@pytest.mark.parametrize(
    ("size", "asked", "cell"), [(16, 256, 16), (300, 256, 256), (256, 128, 128)]
)
def test_strip_gives_back_the_first_pictures_small(tmp_path, make_samples, size, asked, cell):
    assert STRIP_CELL == 256
    samples = make_samples(count=STRIP_PICTURES + 1, size=size)
    save_samples(tmp_path, 0, samples)
    ((_, path),) = list_strips(tmp_path, "ba")
    rows = read_strip(path, asked)
    assert len(rows) == STRIP_PICTURES
    for row, pictures in enumerate(rows):
        for name, picture in zip(COLUMNS["ba"], pictures):
            assert picture.size == (cell, cell)
            shrunk = Image.fromarray(getattr(samples, name)[row]).resize(picture.size)
            # JPEG blurs edges of colour; that the cell is the right one shows in its mean.
            difference = np.asarray(picture, float) - np.asarray(shrunk, float)
            assert np.abs(difference.mean(axis=(0, 1))).max() < 6


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.write_atomically(path, b"old")
    monkeypatch.setattr(files.Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        files.write_atomically(path, b"new")
    assert {found.name: found.read_bytes() for found in tmp_path.iterdir()} == {"file": b"old"}
