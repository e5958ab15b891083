"""Scores of pictures against the truth, where there is one."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

_SSIM_WINDOW = 11


def paired_scores(images: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """How close pictures come to the true ones.

    Args:
        images: uint8 [n, height, width, 3].
        truth: uint8 of the same shape, in the same order.

    Returns:
        ``mae``: mean absolute error in pixel levels, 0 to 255, lower is better. ``ssim``: mean
        structural similarity (Wang et al. 2004; 11×11 Gaussian window, smaller for small pictures)
        of at most 1, higher is better.
    """
    error = np.abs(images.astype(np.int16) - truth.astype(np.int16))
    window = min(_SSIM_WINDOW, *images.shape[1:3])
    similarity = tf.image.ssim(images, truth, max_val=255, filter_size=window)
    return {"mae": float(error.mean()), "ssim": float(tf.reduce_mean(similarity))}
