"""Scores of pictures: against the truth, where there is one, and of sets against sets."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

_SSIM_WINDOW = 11
_AT_ONCE = 16
KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000


def paired_scores(images: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """How close pictures come to the true ones.

    Args:
        images: uint8 [n, height, width, 3].
        truth: uint8 of the same shape, in the same order.

    Returns:
        ``mae``: mean absolute error in pixel levels, 0 to 255, lower is better. ``psnr``: mean peak
        signal-to-noise ratio of the pictures in dB, higher is better, 100 for equal ones. ``ssim``:
        mean structural similarity (Wang et al. 2004; 11×11 Gaussian window, smaller for small
        pictures) of at most 1, higher is better.
    """
    # A few at a time: SSIM takes megabytes for each.
    places = range(0, len(images), _AT_ONCE)
    parts = [_scores_of_each(images[i : i + _AT_ONCE], truth[i : i + _AT_ONCE]) for i in places]
    return {name: float(np.concatenate([part[name] for part in parts]).mean()) for name in parts[0]}


def _scores_of_each(images: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """The scores of ``paired_scores`` of each picture."""
    error = images.astype(np.int16) - truth.astype(np.int16)
    window = min(_SSIM_WINDOW, *images.shape[1:3])
    squares = np.square(error, dtype=np.float64).mean(axis=(1, 2, 3))
    return {
        "mae": np.abs(error).mean(axis=(1, 2, 3)),
        "psnr": 10.0 * np.log10(255.0**2 / np.maximum(squares, 255.0**2 * 1e-10)),
        "ssim": tf.image.ssim(images, truth, max_val=255, filter_size=window).numpy(),
    }


def power_spectra(images: np.ndarray) -> np.ndarray:
    """The power of each spatial frequency of each picture's brightness.

    Args:
        images: uint8 [n, side, side, 3].

    Returns:
        float64 [n, side, side], frequencies as numpy's fft2 orders them.
    """
    brightness = images.astype(np.float64).mean(axis=-1)
    brightness -= brightness.mean(axis=(1, 2), keepdims=True)
    window = np.hanning(images.shape[1])  # or the picture's edges would show at every frequency
    return np.square(np.abs(np.fft.fft2(brightness * window[:, None] * window)))


def checkerboard(spectrum: np.ndarray) -> float:
    """How far the frequencies at which upsampling leaves its pattern stand out.

    Two upsamplings by two leave patterns with periods of 2 and of 4 pixels (Odena et al. 2016), if
    they leave any.

    Args:
        spectrum: the sum or mean of pictures' ``power_spectra``, with a side divisible by 4.

    Returns:
        The mean over these frequencies of their power as a multiple of that of the frequencies
        around: about 1 without a pattern, from 64 pixels on. The fewer pixels, the steeper the
        spectrum is between those places, so smaller pictures compare with real ones only.
    """
    side = len(spectrum)
    periods = (0, side // 4, side // 2)
    places = [(y, x) for y in periods for x in periods if (y, x) != (0, 0)]
    return float(np.mean([_stands_out(spectrum, y, x) for y, x in places]))


def _stands_out(power: np.ndarray, y: int, x: int) -> float:
    """A place's power as a multiple of that 2 and 3 places away: the window blurs it into 1."""
    side = len(power)
    away = range(-3, 4)
    around = [
        power[(y + dy) % side, (x + dx) % side]
        for dy in away
        for dx in away
        if max(abs(dy), abs(dx)) >= 2
    ]
    return power[y, x] / max(float(np.mean(around)), 1e-12)


def frechet_distance(features: np.ndarray, reference: np.ndarray) -> float:
    """The Fréchet distance of two sets of features, each seen as a Gaussian (Heusel et al. 2017).

    |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½). The trace of the root is the sum of the singular values
    of X₁ X₂ᵀ, where Xᵀ X = Σ, so that no root of a matrix without full rank is taken.

    Args:
        features: float [n, channels], n of at least 2.
        reference: float [m, channels], m of at least 2.

    Returns:
        The distance, 0 for equal sets, lower is better. It depends on n and m: few pictures score
        worse.
    """
    root, root_reference = _covariance_root(features), _covariance_root(reference)
    mean = np.square(_mean(features) - _mean(reference)).sum()
    spread = np.square(root).sum() + np.square(root_reference).sum()
    common = np.linalg.svd(root @ root_reference.T, compute_uv=False).sum()
    return float(max(0.0, mean + spread - 2.0 * common))


def kernel_distance(
    features: np.ndarray,
    reference: np.ndarray,
    subsets: int = KID_SUBSETS,
    subset_size: int | None = None,
    seed: int = 0,
) -> tuple[float, float]:
    """The kernel distance of two sets of features (Bińkowski et al. 2018).

    The unbiased squared maximum mean discrepancy for the kernel (xᵀy / channels + 1)³, over random
    subsets of both sets.

    Args:
        features: float [n, channels].
        reference: float [m, channels].
        subsets: how many are drawn.
        subset_size: pictures of either set in a subset; None for ``kid_subset_size(n, m)``.
        seed: of the drawing.

    Returns:
        Mean and standard deviation over the subsets. Lower is better; around 0, also below, for
        sets from one source.

    Raises:
        ValueError: if a subset would have fewer than 2 pictures or more than there are.
    """
    counts = len(features), len(reference)
    size = kid_subset_size(*counts) if subset_size is None else subset_size
    if not 2 <= size <= min(counts):
        raise ValueError(f"subset_size {size}: must be from 2 to {min(counts)}")
    random = np.random.default_rng(seed)
    values = []
    for _ in range(subsets):
        chosen = random.choice(counts[0], size, replace=False)
        other = random.choice(counts[1], size, replace=False)
        values.append(_discrepancy(features[chosen], reference[other]))
    return float(np.mean(values)), float(np.std(values))


def kid_subset_size(count: int, other: int) -> int:
    """Pictures in a subset: half of the smaller set, so that subsets differ; at most 1,000."""
    return min(KID_SUBSET_SIZE, max(2, min(count, other) // 2))


def _mean(features: np.ndarray) -> np.ndarray:
    return features.mean(axis=0, dtype=np.float64)


def _covariance_root(features: np.ndarray) -> np.ndarray:
    """A matrix X with Xᵀ X the covariance: float64 [at most channels, channels]."""
    centred = (features.astype(np.float64) - _mean(features)) / np.sqrt(len(features) - 1)
    if len(centred) > centred.shape[1]:
        centred = np.linalg.qr(centred, mode="r")
    return centred


def _discrepancy(features: np.ndarray, reference: np.ndarray) -> float:
    """The unbiased squared maximum mean discrepancy."""
    x, y = features.astype(np.float64), reference.astype(np.float64)
    within = _mean_of_others(_kernel(x, x)) + _mean_of_others(_kernel(y, y))
    return within - 2.0 * _kernel(x, y).mean()


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1.0) ** 3


def _mean_of_others(kernel: np.ndarray) -> float:
    """The mean without the diagonal, where a picture meets itself."""
    count = len(kernel)
    return (kernel.sum() - np.trace(kernel)) / (count * (count - 1))
