"""From shards to batches: all pictures in every pass, every random choice a function of the seed.

The pictures are charts: each pixel tells its place, so a crop tells where it was taken.
"""

from __future__ import annotations

import dataclasses
import io
import shutil
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cyclegan_tf.config import DataConfig
from cyclegan_tf.data.pipeline import (
    Shards,
    _examples,
    augment,
    decode,
    fit,
    resize,
    test_images,
    to_pixels,
    to_range,
    training_pairs,
)
from tests.tiny import SIDE, chart, pack_charts
from tfrecords_tools.build import build
from tfrecords_tools.schema import parse_example

test_images.__test__ = False  # A function of the pipeline, not a test.

A, B = 7, 4  # pictures per pass
CROP = 16


class View(NamedTuple):
    """What a training picture shows: the number of its chart, and the place of the crop."""

    number: int
    x: int
    y: int
    flipped: bool


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Shards:
    """Seven charts in A, four in B, five and three to test; not to be written to."""
    return pack_charts(tmp_path_factory.mktemp("data"), trainA=A, trainB=B, testA=5, testB=3)


@pytest.fixture(scope="module")
def equal(tmp_path_factory) -> Shards:
    """Seven charts in both domains."""
    return pack_charts(tmp_path_factory.mktemp("equal"), trainA=A, trainB=A, testA=1, testB=1)


def settings(cached: bool = True, **changes) -> DataConfig:
    """Crops of the pictures as they are."""
    chosen = {"image_size": CROP, "preprocess": "none", "shuffle_buffer": 3, **changes}
    return DataConfig(cache_mb=1 if cached else 0, **chosen)


def stream(shards: Shards, config: DataConfig, seed: int = 0, batch_size: int = 1, start: int = 0):
    return training_pairs(shards, config, batch_size=batch_size, seed=seed, start_step=start)


def take(shards: Shards, count: int, config: DataConfig | None = None, **arguments) -> np.ndarray:
    """The first batches: [2, count × batch size, size, size, 3]."""
    batches = stream(shards, config or settings(), **arguments).take(count).as_numpy_iterator()
    return np.concatenate([np.stack(pair) for pair in batches], axis=1)


def view(image: np.ndarray) -> View:
    x, y, number = (to_pixels(image).numpy() // 10).transpose(2, 0, 1)
    assert (number == number[0, 0]).all()
    return View(int(number[0, 0]), int(x.min()), int(y.min()), bool(x[0, 0] > x[0, -1]))


def views(shards: Shards, count: int, config: DataConfig | None = None, **arguments):
    """The views of A's pictures and of B's, from batches of one."""
    return tuple(
        [view(image) for image in domain] for domain in take(shards, count, config, **arguments)
    )


def passes(seen: list[View], length: int) -> list[list[int]]:
    """The numbers of the charts, pass by pass."""
    return [[one.number for one in seen[i : i + length]] for i in range(0, len(seen), length)]


def test_an_epoch_is_as_long_as_the_longer_domain(tmp_path, shards):
    assert shards.pairs_per_epoch() == A
    assert pack_charts(tmp_path, trainA=2, trainB=3, testA=1, testB=1).pairs_per_epoch() == 3


@pytest.mark.parametrize("cached", [True, False])
def test_every_pass_of_a_domain_shows_each_picture_once_in_an_order_of_its_own(shards, cached):
    seen_a, seen_b = views(shards, 4 * A, settings(cached))
    for seen, length in ((seen_a, A), (seen_b, B)):
        orders = passes(seen, length)
        assert [sorted(order) for order in orders] == [[*range(length)]] * len(orders)
        assert len({tuple(order) for order in orders}) >= 3


@pytest.mark.parametrize("cached", [True, False])
def test_the_pairing_differs_between_epochs_though_both_domains_are_of_one_size(equal, cached):
    pairs = [(a.number, b.number) for a, b in zip(*views(equal, 3 * A, settings(cached)))]
    epochs = [set(pairs[i : i + A]) for i in range(0, 3 * A, A)]
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


@pytest.mark.parametrize("cached", [True, False])
def test_the_same_seed_gives_the_same_and_another_seed_something_else(shards, cached):
    first, again, other = (take(shards, 2 * A, settings(cached), seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert passes([view(image) for image in first[0]], A) != passes(
        [view(image) for image in other[0]], A
    )


def test_the_domains_do_not_share_their_random_choices(equal):
    a, b = views(equal, A)
    assert passes(a, A) != passes(b, A)
    assert [one[1:] for one in a] != [one[1:] for one in b]


def test_the_largest_seed_works(shards):
    assert take(shards, 1, seed=2**30).shape == (2, 1, CROP, CROP, 3)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize(("batch_size", "start"), [(1, 3), (1, 4), (1, 8), (3, 2), (3, 7)])
def test_a_later_start_gives_what_an_uninterrupted_stream_gives_from_there(
    shards, cached, batch_size, start
):
    """Starts in the middle of a pass and at the borders of passes of both domains."""
    arguments = {"config": settings(cached), "batch_size": batch_size}
    whole = take(shards, start + 4, **arguments)
    rest = take(shards, 4, start=start, **arguments)
    np.testing.assert_array_equal(rest, whole[:, start * batch_size :])


def test_augmentation_is_not_frozen_by_the_cache(shards):
    seen, _ = views(shards, 4 * A)
    for number in range(A):
        assert len({one for one in seen if one.number == number}) > 1


def test_what_fits_the_budget_is_read_once(tmp_path, shards):
    shutil.copytree(shards.folder, tmp_path / "shards")
    pairs = iter(stream(Shards.open(tmp_path / "shards"), settings()))
    for _ in range(2 * A):
        next(pairs)
    shutil.rmtree(tmp_path / "shards")
    for _ in range(10 * A):
        next(pairs)


def test_what_does_not_fit_the_budget_is_read_again_and_again(tmp_path, shards):
    shutil.copytree(shards.folder, tmp_path / "shards")
    pairs = iter(stream(Shards.open(tmp_path / "shards"), settings(cached=False)))
    for _ in range(2 * A):
        next(pairs)
    shutil.rmtree(tmp_path / "shards")
    with pytest.raises(tf.errors.NotFoundError):
        for _ in range(100 * A):
            next(pairs)


def test_batches_hold_both_domains_in_range(shards):
    a, b = next(iter(stream(shards, settings(preprocess="resize_and_crop"), batch_size=3)))
    for images in (a, b):
        assert images.shape == (3, CROP, CROP, 3)
        assert images.dtype == tf.float32
        assert -1.0 <= float(tf.reduce_min(images)) < float(tf.reduce_max(images)) <= 1.0


# --- One picture ---------------------------------------------------------------------------------


def noise(height: int, width: int) -> np.ndarray:
    """Of middling levels, as Pillow clips what overshoots after each axis, and we at the end."""
    return np.random.default_rng(0).integers(70, 186, (height, width, 3), dtype=np.uint8)


def augmented(pixels: np.ndarray, config: DataConfig, seed: int) -> np.ndarray:
    return augment(
        tf.constant(pixels, tf.float32), config, tf.constant([0, seed], tf.int64)
    ).numpy()


def places(crop: np.ndarray, picture: np.ndarray) -> list[tuple[int, int]]:
    """Where a crop in [-1, 1] comes from in a picture, but for rounding."""
    windows = np.lib.stride_tricks.sliding_window_view(picture, crop.shape)[:, :, 0]
    differences = np.abs(windows - (crop + 1.0) * 127.5).max(axis=(2, 3, 4))
    return [tuple(place) for place in np.argwhere(differences < 3.0)]


@pytest.mark.parametrize(
    ("preprocess", "load_size", "sides", "resized"),
    [
        ("resize_and_crop", 20, (40, 30), [(20, 20)]),
        ("resize_and_crop", 0, (40, 30), [(18, 18)]),  # 16 × 286/256
        ("scale_width", 20, (60, 40), [(30, 20)]),
        ("scale_width", 20, (30, 40), [(15, 20), (16, 22)]),  # too low for the crop: enlarged
        ("none", 0, (20, 24), []),
        ("none", 0, (8, 12), [(16, 24)]),
        ("none", 0, (13, 5), [(42, 16)]),
    ],
)
def test_a_crop_is_a_window_of_the_resized_picture(preprocess, load_size, sides, resized):
    pixels = noise(*sides)
    picture = Image.fromarray(pixels)
    for height, width in resized:
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    expected = np.asarray(picture, np.float32)
    config = settings(preprocess=preprocess, load_size=load_size, flip=False)
    crops = [augmented(pixels, config, seed) for seed in range(30)]
    found = [places(crop, expected) for crop in crops]
    assert all(len(one) == 1 for one in found)
    rows, columns = (expected.shape[axis] - CROP + 1 for axis in (0, 1))
    assert len({one[0] for one in found}) >= min(4, rows * columns)
    assert all(crop.shape == (CROP, CROP, 3) for crop in crops)
    assert max(np.abs(crop).max() for crop in crops) <= 1.0 + 1e-6


def test_what_overshoots_is_clipped():
    edge = np.zeros((8, 8, 3), np.uint8)
    edge[:, 4:] = 255
    enlarged = resize(tf.constant(edge, tf.float32), (8, 16)).numpy()
    expected = Image.fromarray(edge).resize((16, 8), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(enlarged, np.asarray(expected, np.float32), atol=1)
    assert (enlarged.min(), enlarged.max()) == (0.0, 255.0)


def test_about_half_of_the_pictures_are_mirrored():
    pixels = np.asarray(chart(0))
    seen = [view(augmented(pixels, settings(), seed)) for seed in range(60)]
    assert 15 < sum(one.flipped for one in seen) < 45
    assert len({(one.x, one.y) for one in seen}) > 20


def test_a_mirrored_picture_is_the_same_crop_from_right_to_left():
    pixels = noise(SIDE, SIDE)
    for seed in range(8):
        plain = augmented(pixels, settings(flip=False), seed)
        either = augmented(pixels, settings(), seed)
        assert np.array_equal(either, plain) or np.array_equal(either, plain[:, ::-1])


def test_without_flip_nothing_is_mirrored():
    pixels = np.asarray(chart(0))
    assert not any(
        view(augmented(pixels, settings(flip=False), seed)).flipped for seed in range(20)
    )


# --- Borders -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "BMP", "JPEG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_decode_reads_the_content_whatever_the_file_is_called(kind, mode):
    picture, file = chart(3).convert(mode), io.BytesIO()
    picture.save(file, kind, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {}))
    found = decode(tf.constant(file.getvalue()))
    assert found.dtype == tf.float32
    tolerance = 8.0 if kind == "JPEG" else 0.0
    np.testing.assert_allclose(found, np.asarray(picture.convert("RGB")), atol=tolerance)


def test_a_png_named_jpg_and_a_grey_picture_are_trained_on(tmp_path):
    from tfrecords_tools.build import build

    for split in ("trainA", "trainB", "testA", "testB"):
        (tmp_path / "pictures" / split).mkdir(parents=True)
        chart(1).save(tmp_path / "pictures" / split / "png.jpg", "PNG")
        chart(2).convert("L").save(tmp_path / "pictures" / split / "grey.jpg")
    build(str(tmp_path / "pictures"), tmp_path / "shards", workers=1, quiet=True)
    images, _ = take(Shards.open(tmp_path / "shards"), 2)
    grey = [bool((np.ptp(image, axis=-1) == 0).all()) for image in images]
    assert sorted(grey) == [False, True]


def test_test_pictures_come_whole_and_always_in_the_same_order(shards):
    first, again = (
        list(test_images(shards, "testA", DataConfig(image_size=SIDE))) for _ in range(2)
    )
    names = [name.numpy().decode() for _, name in first]
    assert sorted(names) == [f"{number}.png" for number in range(5)]
    assert names == [name.numpy().decode() for _, name in again]
    for image, name in first:
        number = int(name.numpy().decode()[: -len(".png")])
        np.testing.assert_array_equal(to_pixels(image), np.asarray(chart(number)))


@pytest.mark.parametrize(
    ("preprocess", "width", "height", "box"),
    [
        ("none", 40, 30, (12, 7, 28, 23)),
        ("none", 16, 40, (0, 12, 16, 28)),
        ("scale_width", 16, 48, (0, 16, 16, 32)),
    ],
)
def test_where_training_crops_test_pictures_are_the_middle_at_its_scale(
    preprocess, width, height, box
):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.float32)
    left, top, right, bottom = box
    found = fit(tf.constant(pixels), DataConfig(image_size=CROP, preprocess=preprocess))
    np.testing.assert_array_equal(found, pixels[top:bottom, left:right])


def test_a_width_is_scaled_with_its_height_and_a_low_picture_is_enlarged():
    wide, high = (
        tf.tile(tf.linspace(0.0, 255.0, side)[:, None, None], [1, 32, 3]) for side in (8, 64)
    )
    data = DataConfig(image_size=CROP, preprocess="scale_width")
    for pixels in (wide, high):
        assert fit(pixels, data).shape == (CROP, CROP, 3)
    # Of a ramp over 32 rows, the middle 16: a quarter of it is cut off at either end.
    middle = fit(high, data)[:, 0, 0].numpy()
    assert middle[0] == pytest.approx(0.25 * 255, abs=5)
    assert middle[-1] == pytest.approx(0.75 * 255, abs=5)


def test_test_pictures_are_resized_without_cropping(shards):
    image, name = next(iter(test_images(shards, "testB", DataConfig(image_size=CROP))))
    original = chart(int(name.numpy().decode()[: -len(".png")]))
    resized = original.resize((CROP, CROP), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(to_pixels(image), np.asarray(resized), atol=1)
    assert -1.0 <= float(tf.reduce_min(image)) < float(tf.reduce_max(image)) <= 1.0


def test_at_most_so_many_test_pictures(shards):
    assert [len(list(test_images(shards, "testA", settings(), limit))) for limit in (2, 9)] == [
        2,
        5,
    ]


def test_pixels_survive_the_way_into_the_range_and_back():
    levels = tf.range(256)
    inside = to_range(tf.cast(levels, tf.float32))
    assert (float(inside[0]), float(inside[-1])) == (-1.0, 1.0)
    np.testing.assert_array_equal(to_pixels(inside), levels)


def test_to_pixels_rounds_and_clips():
    images = tf.constant([-1.5, -0.999, 0.0, 0.999, 1.5])
    np.testing.assert_array_equal(to_pixels(images), [0, 0, 128, 255, 255])


# --- Several workers -----------------------------------------------------------------------------


@pytest.mark.parametrize(("parts", "by_file"), [(2, False), (3, True), (5, False)])
@pytest.mark.parametrize("cached", [True, False])
def test_workers_share_out_every_picture_without_overlap(tmp_path, parts, by_file, cached):
    for split, count in (("trainA", 11), ("trainB", 7)):
        (tmp_path / "pictures" / split).mkdir(parents=True)
        for number in range(count):
            chart(number).save(tmp_path / "pictures" / split / f"{number}.png")
    build(str(tmp_path / "pictures"), tmp_path / "shards", shards=3, workers=1, quiet=True)
    whole = Shards.open(tmp_path / "shards")
    config = DataConfig(image_size=16, cache_mb=100 if cached else 0)
    for split in ("trainA", "trainB"):
        seen = []
        for part in range(parts):
            own = dataclasses.replace(whole, part=(part, parts))
            assert own.is_parted_by_file(split) == by_file
            examples = _examples(own, split, config, cached, seed=3, start=0)
            names = [
                example["filename"]
                for _, example in examples.take(own.part_count(split)).as_numpy_iterator()
            ]
            assert len(names) > 0
            seen += names
        assert len(seen) == len(set(seen)) == len(list(pass_names(whole, split)))


def pass_names(shards: Shards, split: str):
    """The names of all pictures of a split."""
    for path in shards.paths(split):
        yield from tf.data.TFRecordDataset(str(path)).map(parse_example)
