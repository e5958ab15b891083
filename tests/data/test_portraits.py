"""The built-in demo pair: same people, two clearly different styles, reproducible to the byte."""

from __future__ import annotations

import colorsys
import dataclasses
import io
import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cyclegan_tf.data import portraits
from cyclegan_tf.data.portraits import DemoItem, Portrait, demo_items, draw, sample_portrait

PERSON = Portrait(
    x=0.0, y=0.0, zoom=1.0, tilt=4.0, yaw=0.3, pitch=0.0,
    face_width=1.0, face_length=1.0, jaw=0.4, skin_tone=0.7,
    hair_style="bob", fringe="parted", parting=0.5, hair_volume=0.5, hair_colour=0.3,
    eye_colour=0.1, eye_opening=0.9, eye_distance=1.0, gaze=0.0, brows=0.0, glasses="none",
    smile=0.3, mouth_opening=0.6,
    neckline="crew", clothes_colour=0.6, backdrop="disc", backdrop_shift=0.4, backdrop_colour=0.5,
    light=0.5,
)  # fmt: skip

# For each field, a value that is far from PERSON's.
OTHER = {
    "x": 0.05, "y": 0.03, "zoom": 0.92, "tilt": -11.0, "yaw": -1.0, "pitch": 1.0,
    "face_width": 0.93, "face_length": 0.94, "jaw": 1.0, "skin_tone": 0.0,
    "hair_style": "short", "fringe": "straight", "parting": -1.0, "hair_volume": 1.0,
    "hair_colour": 0.9, "eye_colour": 0.75, "eye_opening": 0.7, "eye_distance": 1.06,
    "gaze": 1.0, "brows": -1.0, "glasses": "round", "smile": -0.5, "mouth_opening": 0.0,
    "neckline": "collar", "clothes_colour": 0.1, "backdrop": "window", "backdrop_shift": 1.0,
    "backdrop_colour": 0.0, "light": -1.0,
}  # fmt: skip


def people(count: int) -> list[Portrait]:
    rng = np.random.default_rng(7)
    return [sample_portrait(rng) for _ in range(count)]


@pytest.fixture
def same_grain(monkeypatch):
    """Gives all photographs the same grain, so that two of them differ only in what they show."""
    monkeypatch.setattr(portraits, "_grain_seed", lambda portrait: 1)


def changed(portrait: Portrait, domain: str, threshold: int, **changes: object) -> np.ndarray:
    """The pixels that differ by more than ``threshold`` levels once the person has changed."""
    before = draw(portrait, domain).astype(int)
    after = draw(dataclasses.replace(portrait, **changes), domain).astype(int)
    return np.abs(before - after).max(axis=-1) > threshold


# --- One picture ----------------------------------------------------------------------------------


@pytest.mark.parametrize("domain", ["A", "B"])
@pytest.mark.parametrize("size", [16, 64, 100])
def test_a_picture_is_uint8_rgb_and_uses_the_range(domain, size):
    picture = draw(PERSON, domain, size)
    assert picture.shape == (size, size, 3)
    assert picture.dtype == np.uint8
    assert picture.min() < 70
    assert picture.max() > 180
    assert picture.flags.writeable


@pytest.mark.parametrize("domain", ["A", "B"])
def test_the_same_person_gives_the_same_bytes(domain):
    twin = pickle.loads(pickle.dumps(PERSON))
    np.testing.assert_array_equal(draw(PERSON, domain), draw(twin, domain))


def test_a_new_process_draws_the_same_bytes():
    code = (
        "import sys, hashlib; from cyclegan_tf.data.portraits import demo_items;"
        "pngs = [item.encode() for item in demo_items(seed=5, size=64, train=1, test=1)];"
        "assert 'tensorflow' not in sys.modules;"
        "print(hashlib.sha256(b''.join(pngs)).hexdigest())"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True) for _ in range(2)]
    assert [run.stderr for run in runs] == [b"", b""]
    assert runs[0].stdout == runs[1].stdout


@pytest.mark.parametrize("domain", ["A", "B"])
def test_extreme_poses_are_drawn(domain):
    fields = [f for f in dataclasses.fields(Portrait) if "range" in f.metadata]
    for end in (0, 1):
        values = {field.name: field.metadata["range"][end] for field in fields}
        assert draw(dataclasses.replace(PERSON, **values), domain, 64).std() > 20


# --- Two styles -----------------------------------------------------------------------------------


def flatness(picture: np.ndarray) -> float:
    """The share of pixels that equal their right neighbour."""
    return float((picture[:, 1:] == picture[:, :-1]).all(axis=-1).mean())


def ink(picture: np.ndarray) -> float:
    """The share of pixels that are far darker than what lies 3 pixels to both sides of them."""
    grey = picture.astype(float).mean(axis=-1)
    return float((np.minimum(grey[:, :-6], grey[:, 6:]) - grey[:, 3:-3] > 50).mean())


def sharpness(picture: np.ndarray) -> float:
    """The 99th percentile of the step from one pixel to the next."""
    grey = picture.astype(float).mean(axis=-1)
    return float(np.percentile(np.abs(np.diff(grey, axis=1)), 99))


@pytest.mark.parametrize("person", people(8))
def test_the_styles_differ(person):
    photo, anime = draw(person, "A"), draw(person, "B")
    assert flatness(anime) > 0.6
    assert flatness(photo) < 0.1
    assert ink(anime) > 2 * ink(photo)
    assert sharpness(anime) > 1.5 * sharpness(photo)
    colours = [len(np.unique(picture.reshape(-1, 3), axis=0)) for picture in (photo, anime)]
    assert colours[0] > 3 * colours[1]
    assert anime.mean() > photo.mean() + 20


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.usefixtures("same_grain")
@pytest.mark.parametrize("person", people(6))
@pytest.mark.parametrize(
    ("field", "least", "shift"),
    [
        ("hair_colour", 0.9, 1.5),
        ("backdrop_colour", 0.9, 1.5),
        ("clothes_colour", 0.75, 4.0),
        ("skin_tone", 0.62, 6.0),  # large eyes leave less skin in the upper face
    ],
)
def test_both_styles_show_the_same_shapes(person, field, least, shift):
    person = dataclasses.replace(person, **{field: 0.1})
    photo, anime = (changed(person, domain, 14, **{field: 0.9}) for domain in "AB")
    assert overlap(photo, anime) > least
    centres = [np.argwhere(mask).mean(axis=0) for mask in (photo, anime)]
    assert np.abs(centres[0] - centres[1]).max() < shift


@pytest.mark.usefixtures("same_grain")
def test_different_people_have_different_shapes():
    # The control for the test above: its bound is far beyond what strangers reach.
    first, second = people(2)
    masks = [
        changed(dataclasses.replace(p, hair_colour=0.1), "B", 14, hair_colour=0.9)
        for p in (first, second)
    ]
    assert overlap(*masks) < 0.6


@pytest.mark.usefixtures("same_grain")
@pytest.mark.parametrize("domain", ["A", "B"])
@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Portrait)])
def test_every_field_shows_in_both_styles(field, domain):
    assert changed(PERSON, domain, 12, **{field: OTHER[field]}).sum() >= 8


@pytest.mark.parametrize("palette", ["_HAIR", "_SKIN", "_EYES", "_CLOTHES", "_BACKDROP"])
def test_anime_colours_are_lighter_versions_of_the_same_hues(palette):
    photo, anime = (getattr(portraits, palette)[domain] for domain in "AB")
    assert len(photo) == len(anime)
    for a, b in zip(photo, anime):
        assert b.mean() > a.mean()
        (hue_a, saturation_a, _), (hue_b, _, _) = colorsys.rgb_to_hsv(*a), colorsys.rgb_to_hsv(*b)
        if saturation_a > 0.2:  # the hue of a grey means nothing
            assert abs((hue_a - hue_b + 0.5) % 1.0 - 0.5) < 0.09


# --- Sampling and errors --------------------------------------------------------------------------


def test_samples_cover_every_range_and_choice():
    crowd = people(400)
    for field in dataclasses.fields(Portrait):
        values = [getattr(person, field.name) for person in crowd]
        if "weights" in field.metadata:
            assert set(values) == set(field.metadata["weights"])
        else:
            low, high = field.metadata["range"]
            margin = 0.03 * (high - low)
            assert low <= min(values) < low + margin
            assert high - margin < max(values) <= high


@pytest.mark.parametrize("domain", ["C", "a", "", None])
def test_an_unknown_domain_is_refused(domain):
    with pytest.raises(ValueError, match="domain is"):
        draw(PERSON, domain)


@pytest.mark.parametrize("size", [0, -64, 15, 1025, 64.0, "64", True])
def test_an_impossible_size_is_refused(size):
    with pytest.raises(ValueError, match="size is"):
        draw(PERSON, "A", size)
    with pytest.raises(ValueError, match="size is"):
        demo_items(size=size, train=1, test=1)


@pytest.mark.parametrize("change", [{"yaw": 1.5}, {"tilt": float("nan")}, {"hair_style": "mullet"}])
def test_a_value_outside_its_range_is_refused(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))} is"):
        dataclasses.replace(PERSON, **change)


# --- The data set ---------------------------------------------------------------------------------


def split(items: list[DemoItem], name: str) -> list[DemoItem]:
    return [item for item in items if item.split == name]


def test_the_list_holds_four_splits():
    items = demo_items()
    assert len(items) == 1128
    for name, count in (("trainA", 500), ("trainB", 500), ("testA", 64), ("testB", 64)):
        part = split(items, name)
        assert [item.file_name for item in part] == [f"{i:04d}.png" for i in range(1, count + 1)]
        assert {item.domain for item in part} == {name[-1]}


def test_training_is_unpaired_and_the_test_is_paired():
    items = demo_items(train=100, test=50)
    train_a, train_b, test_a, test_b = (
        [item.portrait for item in split(items, name)] for name in portraits.SPLITS
    )
    assert test_a == test_b
    assert len({*train_a, *train_b, *test_a}) == 100 + 100 + 50


def test_a_larger_set_only_adds_people():
    small, large = demo_items(train=3, test=2), demo_items(train=5, test=4)
    assert set(small) < set(large)
    assert not {i.portrait for i in small} & {i.portrait for i in demo_items(1, train=5, test=4)}


@pytest.mark.parametrize("name", ["testA", "testB"])
def test_an_item_survives_a_pool_and_encodes_its_picture(name):
    item = split(demo_items(size=48, train=0, test=1), name)[0]
    data = pickle.loads(pickle.dumps(item)).encode()
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.mode) == ("PNG", "RGB")
    np.testing.assert_array_equal(np.asarray(image), draw(item.portrait, name[-1], 48))


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"train": -1}, {"test": -2}])
def test_negative_counts_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
        demo_items(**wrong)
