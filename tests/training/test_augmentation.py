"""Differentiable augmentation: what each change does, and that it differs between pictures."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from cyclegan_tf.config import AUGMENTATIONS
from cyclegan_tf.errors import UserError
from cyclegan_tf.training.augmentation import augment

SIDE, COUNT = 16, 40


def seed(number: int = 0) -> tf.Tensor:
    return tf.constant([number, 7], tf.int64)


def ramp(count: int = COUNT) -> np.ndarray:
    """Pictures whose pixels are all different, none of them 0 or −1."""
    values = np.linspace(-0.9, 0.9, SIDE * SIDE * 3, dtype=np.float32).reshape(SIDE, SIDE, 3)
    return np.repeat(values[np.newaxis], count, axis=0)


@pytest.mark.parametrize("policy", [(name,) for name in AUGMENTATIONS] + [AUGMENTATIONS])
def test_a_function_of_the_seed_that_differs_between_pictures(policy):
    one, same, other = (augment(ramp(), policy, seed(n)).numpy() for n in (0, 0, 1))
    assert one.shape == (COUNT, SIDE, SIDE, 3)
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    assert len({picture.tobytes() for picture in one}) > COUNT // 2


@pytest.mark.parametrize("policy", [("color",), ("translation",), ("cutout",), AUGMENTATIONS])
def test_gradients_go_through(policy):
    images = tf.constant(ramp(4))
    with tf.GradientTape() as tape:
        tape.watch(images)
        total = tf.reduce_sum(augment(images, policy, seed()))
    gradient = tape.gradient(total, images).numpy()
    assert np.isfinite(gradient).all()
    assert (np.abs(gradient).sum(axis=(1, 2, 3)) > 0).all()


def test_translation_moves_and_brings_in_black():
    moved = augment(ramp(), ("translation",), seed()).numpy()
    shifts = set()
    for picture in moved:
        fits = [
            (dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)
            if np.array_equal(picture, shifted(ramp(1)[0], dy, dx))
        ]  # fmt: skip
        assert len(fits) == 1
        shifts.add(fits[0])
    assert {dy for dy, _ in shifts} == {dx for _, dx in shifts} == {-2, -1, 0, 1, 2}


def shifted(picture: np.ndarray, dy: int, dx: int) -> np.ndarray:
    padded = np.pad(picture, [(2, 2), (2, 2), (0, 0)], constant_values=-1.0)
    return padded[2 + dy : 2 + dy + SIDE, 2 + dx : 2 + dx + SIDE]


def test_cutout_greys_one_square_of_half_the_side():
    gone = (augment(ramp(), ("cutout",), seed()).numpy() == 0.0).all(axis=-1)
    sizes = set()
    for mask in gone:
        rows, columns = mask.any(axis=1), mask.any(axis=0)
        np.testing.assert_array_equal(mask, rows[:, np.newaxis] & columns)
        sizes.add((rows.sum(), columns.sum()))
    assert max(sizes) == (SIDE // 2, SIDE // 2)
    assert min(rows for rows, _ in sizes) >= SIDE // 4  # The middle stays in the picture.


def test_color_keeps_the_layout():
    images = ramp()
    changed = augment(images, ("color",), seed()).numpy()
    for picture, before in zip(changed, images):
        one, other = picture.mean(axis=-1).ravel(), before.mean(axis=-1).ravel()
        assert np.corrcoef(one, other)[0, 1] == pytest.approx(1.0, abs=1e-4)
    assert np.ptp(changed.mean(axis=(1, 2, 3))) > 0.5
    assert 0.5 < changed.std(axis=(1, 2, 3)).min() / images[0].std() < 1.0


@pytest.mark.parametrize("text", ["colour", "color,blur", "color, cutout", "cutout,color", ""])
def test_unknown_names_are_refused(tiny_config, text):
    with pytest.raises(UserError, match=r"--discriminator-augment .*must be one of none, color, "):
        tiny_config(discriminator_augment=text)


def test_names_are_taken_apart(tiny_config):
    config = tiny_config(discriminator_augment="color,cutout")
    assert config.discriminator.augmentations() == ("color", "cutout")
    assert tiny_config().discriminator.augmentations() == ()
