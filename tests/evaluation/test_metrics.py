"""Paired scores: by hand, and against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from cyclegan_tf.evaluation.metrics import checkerboard, paired_scores, power_spectra


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def blended(images: np.ndarray, share: float) -> np.ndarray:
    """Pictures with noise mixed in."""
    other = noise(*images.shape[:3], seed=1)
    return ((1 - share) * images + share * other).round().astype(np.uint8)


def test_a_picture_is_equal_to_itself():
    assert paired_scores(noise(2, 16, 16), noise(2, 16, 16)) == {
        "mae": 0.0,
        "psnr": 100.0,
        "ssim": pytest.approx(1.0),
    }


@pytest.mark.parametrize(("one", "other"), [(0, 255), (255, 0), (3, 250)])
def test_the_error_of_levels_does_not_wrap_around(one, other):
    images, truth = (np.full((1, 16, 16, 3), level, np.uint8) for level in (one, other))
    assert paired_scores(images, truth)["mae"] == abs(one - other)


def test_the_error_is_the_mean_over_pictures_and_pixels():
    truth = np.full((2, 16, 16, 3), 100, np.uint8)
    images = truth.copy()
    images[0] += 10
    images[1, :8] -= 4
    assert paired_scores(images, truth)["mae"] == pytest.approx((10 + 2) / 2)


def test_the_noise_is_measured_in_decibels_per_picture():
    truth = np.full((2, 16, 16, 3), 100, np.uint8)
    images = truth + np.array([1, 10], np.uint8)[:, None, None, None]
    # 20 log10(255 / error), the mean of both.
    assert paired_scores(images, truth)["psnr"] == pytest.approx((48.1308 + 28.1308) / 2, abs=1e-3)


@pytest.mark.parametrize("share", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(3, 24, 24), (1, 17, 32)])
def test_as_scikit_image(shape, share):
    truth = noise(*shape)
    images = blended(truth, share)
    expected = np.mean(
        [
            structural_similarity(
                image,
                true,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                data_range=255,
                channel_axis=2,
            )
            for image, true in zip(images, truth)
        ]
    )
    scores = paired_scores(images, truth)
    assert scores["ssim"] == pytest.approx(expected, abs=1e-4)
    difference = images.astype(float) - truth.astype(float)
    assert scores["mae"] == pytest.approx(np.abs(difference).mean())


def test_pictures_smaller_than_the_window():
    truth = noise(1, 8, 8)
    assert paired_scores(truth, truth)["ssim"] == pytest.approx(1.0)
    assert paired_scores(blended(truth, 0.5), truth)["ssim"] < 0.95


def test_psnr_as_scikit_image():
    truth = noise(3, 20, 24)
    images = blended(truth, 0.3)
    expected = [
        peak_signal_noise_ratio(true, image, data_range=255) for image, true in zip(images, truth)
    ]
    assert paired_scores(images, truth)["psnr"] == pytest.approx(np.mean(expected))


def test_patterns_of_two_and_four_pixels_stand_out():
    smooth = np.cumsum(np.cumsum(np.random.default_rng(0).normal(size=(6, 32, 32)), axis=1), axis=2)
    smooth = 128 + 60 * smooth / np.abs(smooth).max()
    rows, columns = np.indices((32, 32))
    for pattern, least in (
        (np.zeros((32, 32)), 0.0),
        ((rows + columns) % 2, 5.0),  # of the last upsampling
        (columns % 2, 5.0),
        ((rows // 2 + columns // 2) % 2, 5.0),  # of the one before
        (columns % 3, 0.0),  # of none
    ):
        images = np.clip(smooth + 20 * pattern, 0, 255).astype(np.uint8)
        value = checkerboard(power_spectra(np.repeat(images[..., None], 3, axis=-1)).sum(axis=0))
        assert value > least if least else value < 3.0


def test_white_noise_has_no_pattern():
    assert checkerboard(power_spectra(noise(40, 32, 32)).mean(axis=0)) == pytest.approx(
        1.0, abs=0.2
    )
