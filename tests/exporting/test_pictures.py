"""Picture files in and out."""

from __future__ import annotations

import io
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from cyclegan_tf import files
from cyclegan_tf.exporting import pictures
from cyclegan_tf.exporting.pictures import (
    BadFile,
    Picture,
    read_picture,
    save_picture,
    unfinished_file,
)
from tests.exporting.helpers import pixels
from tfrecords_tools.images import prepare


def test_exif_orientation_is_applied_and_not_written_again(tmp_path):
    picture = pixels(20, 30)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter to the right
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    read = read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(read.pixels, np.rot90(picture, -1))
    save_picture(read, tmp_path / "b.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "b.png").pixels, read.pixels)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff"])
def test_alpha_is_kept(tmp_path, suffix):
    picture = Picture(pixels(16, 24), pixels(16, 24, seed=1)[..., 0])
    save_picture(picture, tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read_picture(tmp_path / f"a{suffix}").alpha, picture.alpha)


def test_alpha_of_a_palette_is_kept(tmp_path):
    image = Image.fromarray(pixels(16, 16)).quantize(16)
    image.save(tmp_path / "a.png", transparency=0)
    alpha = read_picture(tmp_path / "a.png").alpha
    np.testing.assert_array_equal(alpha == 0, np.asarray(image) == 0)
    assert (alpha == 0).any()


def test_the_network_sees_transparent_pixels_on_white_as_in_training(tmp_path):
    alpha = np.zeros((16, 16), np.uint8)
    alpha[:, 8:] = np.arange(0, 256, 36)
    image = Image.fromarray(np.dstack([pixels(16, 16), alpha]))
    image.save(tmp_path / "a.png")
    read = read_picture(tmp_path / "a.png")
    assert (read.pixels[:, :8] == 255).all()
    packed = Image.open(io.BytesIO(prepare((tmp_path / "a.png").read_bytes()).data))
    np.testing.assert_array_equal(read.pixels, np.asarray(packed))
    np.testing.assert_array_equal(read.alpha, alpha)


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_damaged_exif_costs_no_picture(tmp_path, suffix):
    image = Image.fromarray(pixels(16, 16))
    image.save(tmp_path / f"a{suffix}", exif=b"Exif\0\0no tags", lossless=True)
    read = read_picture(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read.pixels, np.asarray(image))


def test_a_colour_profile_is_converted(tmp_path):
    image = Image.fromarray(pixels(16, 16))
    lab = ImageCms.createProfile("LAB", 5000)
    assert read_picture(save_with(image, lab, tmp_path / "odd.png")).pixels.shape == (16, 16, 3)
    linear = Image.fromarray(np.full((8, 8, 3), 55, np.uint8))  # 0.0382 of the light in sRGB
    profile = display_profile(gamma=1.0)
    linear.save(tmp_path / "linear.png", icc_profile=profile)
    level = read_picture(tmp_path / "linear.png").pixels.mean()
    expected = 255 * (1.055 * (55 / 255) ** (1 / 2.4) - 0.055)
    assert abs(level - expected) < 2


def save_with(image: Image.Image, profile, path):
    image.save(path, icc_profile=ImageCms.ImageCmsProfile(profile).tobytes())
    return path


def display_profile(gamma: float) -> bytes:
    """sRGB's profile with another gamma in its three curves."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for index in range(int.from_bytes(data[128:132], "big")):
        entry = data[132 + 12 * index : 144 + 12 * index]
        start = int.from_bytes(entry[4:8], "big")
        if entry[:4] in (b"rTRC", b"gTRC", b"bTRC"):
            assert data[start : start + 4] == b"para"
            # Type 0: Y = X ** gamma, as a 16.16 number
            data[start + 8 : start + 16] = bytes(4) + int(gamma * 65536).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize("suffix", [".jfif", ".avif", ".jp2", ".ppm"])
def test_rarer_kinds_come_and_go(suffix, tmp_path):
    picture = Picture(pixels(32, 48))
    save_picture(picture, tmp_path / f"a{suffix}")
    read = read_picture(tmp_path / f"a{suffix}")
    assert np.abs(read.pixels.astype(int) - picture.pixels).mean() < 6
    assert read.alpha is None


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "GIF"])
def test_an_animation_is_not_taken_for_its_first_frame(tmp_path, kind):
    frames = [Image.fromarray(pixels(16, 16, seed)) for seed in (0, 1, 2)]
    frames[0].save(tmp_path / "a.png", kind, save_all=True, append_images=frames[1:])
    with pytest.raises(BadFile, match=r"holds 3 frames; the command takes \.gif and video"):
        read_picture(tmp_path / "a.png")


def test_two_processes_never_publish_each_others_half(tmp_path, monkeypatch):
    with unfinished_file(tmp_path / "a.png") as ours:
        ours.write_bytes(b"half")
        monkeypatch.setattr("os.getpid", lambda: -1)
        pictures._remove_leftovers.cache_clear()  # as in another process
        with unfinished_file(tmp_path / "a.png") as theirs:
            theirs.write_bytes(b"theirs")
        assert (tmp_path / "a.png").read_bytes() == b"theirs"
        ours.write_bytes(b"ours, whole")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "a.png": b"ours, whole"
    }


def test_what_killed_processes_left_is_removed_once(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    names = [f".unfinished-{ended.pid}-{machine}-0.png" for machine in (files.MACHINE, "other")]
    for name in names:
        (tmp_path / name).touch()
    save_picture(Picture(pixels(8, 8)), tmp_path / "a.png")
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", names[1]}
    before = pictures._remove_leftovers.cache_info().misses
    save_picture(Picture(pixels(8, 8)), tmp_path / "b.png")
    assert pictures._remove_leftovers.cache_info().misses == before


def test_containers_of_one_host_are_machines_of_their_own(monkeypatch):
    monkeypatch.setattr(Path, "readlink", lambda _: Path("pid:[4026531836]"))
    one = files._machine()
    monkeypatch.setattr(Path, "readlink", lambda _: Path("pid:[4026532000]"))
    assert files._machine() != one


def test_a_name_may_be_as_long_as_there_can_be(tmp_path):
    save_picture(Picture(pixels(8, 8)), tmp_path / f"{'x' * 251}.png")
    assert (tmp_path / f"{'x' * 251}.png").is_file()
    with pytest.raises(BadFile, match=r"y\.png cannot be written \(File name too long\)$"):
        save_picture(Picture(pixels(8, 8)), tmp_path / f"{'y' * 252}.png")


def test_floating_point_pixels_are_refused(tmp_path):
    Image.fromarray(np.full((16, 16), 0.5, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(BadFile, match="floating-point pixels"):
        read_picture(tmp_path / "a.tif")


def test_sixteen_bits_keep_their_range(tmp_path):
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "a.png")
    levels = read_picture(tmp_path / "a.png").pixels
    np.testing.assert_array_equal(levels[..., 0].ravel(), np.arange(256))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LA", "RGBA"])
def test_every_mode_becomes_rgb(mode):
    read = read_picture(Image.fromarray(pixels(12, 10)).convert(mode))
    assert read.pixels.shape == (12, 10, 3)
    assert (read.alpha is not None) == (mode in ("LA", "RGBA"))


@pytest.mark.parametrize("height, width, shape", [(40, 80, (20, 40)), (80, 40, (40, 20))])
def test_size_is_the_shorter_side(height, width, shape):
    picture = Picture(pixels(height, width), pixels(height, width)[..., 0]).resized(20)
    assert picture.pixels.shape == (*shape, 3)
    assert picture.alpha.shape == shape


def test_a_thin_picture_does_not_become_too_large():
    with pytest.raises(BadFile, match="512 × 1024000 pixels at size 512, more than 89,478,485"):
        Picture(pixels(2000, 1)).resized(512)
    assert Picture(pixels(2000, 1)).resized(8).pixels.shape == (16000, 8, 3)


def test_jpeg_is_written_near_to_lossless(tmp_path):
    picture = Picture(pixels(32, 32))
    save_picture(picture, tmp_path / "a.jpg")
    difference = read_picture(tmp_path / "a.jpg").pixels.astype(int) - picture.pixels
    assert np.abs(difference).mean() < 4


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "missing"])
def test_a_bad_file_has_a_short_reason(tmp_path, damage):
    buffer = io.BytesIO()
    Image.fromarray(pixels(64, 64)).save(buffer, "PNG")
    contents = {"empty": b"", "text": b"none", "truncated": buffer.getvalue()[:-500]}
    if damage in contents:
        (tmp_path / "a.png").write_bytes(contents[damage])
    with pytest.raises(BadFile) as error:
        read_picture(tmp_path / "a.png")
    assert 0 < len(str(error.value)) < 200
    assert "\n" not in str(error.value)


def test_a_link_in_place_of_the_result_is_replaced_not_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "_numbers", itertools.count(7))
    unfinished = f".unfinished-{os.getpid()}-{files.MACHINE}-7.png"
    (tmp_path / "precious.png").write_bytes(b"precious")
    for name in ("a.png", unfinished):
        (tmp_path / name).symlink_to(tmp_path / "precious.png")
    save_picture(Picture(pixels(8, 8)), tmp_path / "a.png")
    assert (tmp_path / "precious.png").read_bytes() == b"precious"
    assert not (tmp_path / "a.png").is_symlink()
