"""Scores of pictures against the truth, where there is one."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def paired_scores(images: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """How close pictures come to the true ones.

    Args:
        images: uint8 [n, height, width, 3].
        truth: uint8 of the same shape, in the same order.

    Returns:
        ``mae``: mean absolute error in pixel levels, 0 to 255, lower is better. ``ssim``: mean
        structural similarity (Wang et al. 2004; 11×11 Gaussian window) of at most 1, higher is better.
    """
    error = np.abs(images.astype(np.int16) - truth.astype(np.int16))
    similarity = tf.image.ssim(tf.constant(images), tf.constant(truth), max_val=255)
    return {"mae": float(error.mean()), "ssim": float(tf.reduce_mean(similarity))}
