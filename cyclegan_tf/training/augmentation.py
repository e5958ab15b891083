"""Differentiable augmentation of what the discriminators see (Zhao et al. 2020).

Real and generated pictures are changed alike at random before a discriminator judges them, in its
own update and in the generators', so that it cannot learn a small set by heart, and the changes do
not leak into what the generators make.
"""

from __future__ import annotations

import tensorflow as tf

_SHIFT = 0.125  # of the side
_CUT = 0.5  # of the side


def augment(images: tf.Tensor, policy: tuple[str, ...], seed: tf.Tensor) -> tf.Tensor:
    """Changes each picture of a batch at random; gradients go through.

    Args:
        images: float [batch, side, side, 3] in [-1, 1], with a known side.
        policy: some of "color" (brightness, saturation and contrast), "translation" (up to an
            eighth of the side, black coming in) and "cutout" (a square of half the side, grey).
        seed: int64 [2]; every choice is a function of it.

    Returns:
        The same shape and type; colours may leave [-1, 1].
    """
    for number, name in enumerate(policy):
        images = _CHANGES[name](images, seed + tf.constant([number << 8, 0], tf.int64))
    return images


def _draw(images: tf.Tensor, seed: tf.Tensor, number: int, low: float, high: float) -> tf.Tensor:
    """One number per picture, [batch, 1, 1, 1], in the pictures' type."""
    shape = tf.stack([tf.shape(images)[0], 1, 1, 1])
    drawn = tf.random.stateless_uniform(shape, seed + tf.constant([number, 0], tf.int64), low, high)
    return tf.cast(drawn, images.dtype)


def _color(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    images += _draw(images, seed, 0, -0.5, 0.5)
    grey = tf.reduce_mean(images, axis=3, keepdims=True)
    images = grey + (images - grey) * _draw(images, seed, 1, 0.0, 2.0)
    mean = tf.reduce_mean(images, axis=[1, 2, 3], keepdims=True)
    return mean + (images - mean) * _draw(images, seed, 2, 0.5, 1.5)


def _translation(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    side = images.shape[1]
    most = max(1, round(_SHIFT * side))
    rows, columns = (_whole(images, seed, number, -most, most + 1) for number in (0, 1))
    padded = tf.pad(images, [[0, 0], [most, most], [most, most], [0, 0]], constant_values=-1.0)
    places = tf.range(side) + most
    padded = tf.gather(padded, places[tf.newaxis] + rows[:, tf.newaxis], axis=1, batch_dims=1)
    padded = tf.transpose(padded, [0, 2, 1, 3])
    padded = tf.gather(padded, places[tf.newaxis] + columns[:, tf.newaxis], axis=1, batch_dims=1)
    return tf.transpose(padded, [0, 2, 1, 3])


def _cutout(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    side = images.shape[1]
    cut = round(_CUT * side)
    # The middle of the square may lie anywhere in the picture.
    top, left = (
        _whole(images, seed, number, 0, side + 1)[:, tf.newaxis] - cut // 2 for number in (0, 1)
    )
    places = tf.range(side)[tf.newaxis]
    rows = tf.logical_and(places >= top, places < top + cut)
    columns = tf.logical_and(places >= left, places < left + cut)
    inside = tf.logical_and(rows[:, :, tf.newaxis], columns[:, tf.newaxis, :])[..., tf.newaxis]
    return tf.where(inside, tf.zeros([], images.dtype), images)


def _whole(images: tf.Tensor, seed: tf.Tensor, number: int, low: int, high: int) -> tf.Tensor:
    """One whole number per picture, int32 [batch], from low to below high."""
    shape = tf.shape(images)[:1]
    seed = seed + tf.constant([number, 0], tf.int64)
    return tf.random.stateless_uniform(shape, seed, low, high, tf.int32)


_CHANGES = {"color": _color, "translation": _translation, "cutout": _cutout}
