"""The terms of the objective (Zhu et al. 2017, section 3), each a float32 scalar and a mean."""

from __future__ import annotations

from typing import Callable

import tensorflow as tf

Logits = tf.Tensor  # float32 [batch, h, w, channels], one number per patch.


def generator_loss(kind: str, fake: Logits) -> tf.Tensor:
    """What the generator pays for ``fake``, the discriminator's decision on its pictures.

    Args:
        kind: "least_squares" (Mao et al. 2017), "vanilla" (Goodfellow et al. 2014, non-saturating),
            "hinge" (Lim and Ye 2017) or "wasserstein" (Arjovsky et al. 2017).
        fake: the decision map.
    """
    if kind == "least_squares":
        return tf.reduce_mean(tf.square(fake - 1.0))
    if kind == "vanilla":
        return tf.reduce_mean(tf.nn.softplus(-fake))
    return -tf.reduce_mean(fake)


def discriminator_loss(kind: str, real: Logits, fake: Logits) -> tf.Tensor:
    """What the discriminator pays for its decisions; not halved. Kinds as in ``generator_loss``."""
    if kind == "least_squares":
        return tf.reduce_mean(tf.square(real - 1.0)) + tf.reduce_mean(tf.square(fake))
    if kind == "vanilla":
        return tf.reduce_mean(tf.nn.softplus(-real)) + tf.reduce_mean(tf.nn.softplus(fake))
    if kind == "hinge":
        return tf.reduce_mean(tf.nn.relu(1.0 - real)) + tf.reduce_mean(tf.nn.relu(1.0 + fake))
    return tf.reduce_mean(fake) - tf.reduce_mean(real)


def absolute_difference(images: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Mean absolute difference: the cycle consistency and the identity loss (3.2 and 5.2)."""
    return tf.reduce_mean(tf.abs(images - targets))


def interpolates_penalty(
    discriminator: Callable[[tf.Tensor], Logits], real: tf.Tensor, fake: tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
    """Squared distance from 1 of the gradient's norm at interpolates (Gulrajani et al. 2017).

    Args:
        discriminator: images to decision map; its decisions are averaged per picture.
        real: float32 [batch, h, w, 3].
        fake: float32 [batch, h, w, 3], as many as real ones.
        seed: int64 [2]; the interpolation weights, one per picture, are a function of it.
    """
    weight = tf.random.stateless_uniform([real.shape[0], 1, 1, 1], seed)
    between = real + weight * (fake - real)
    squares, _ = _squared_slopes(discriminator, between)
    # The small term keeps the square root's own gradient finite where the slope is exactly zero.
    return tf.reduce_mean(tf.square(tf.sqrt(squares + 1e-12) - 1.0))


def real_penalty(discriminator: Callable[[tf.Tensor], Logits], real: tf.Tensor) -> tf.Tensor:
    """Squared norm of the gradient at real pictures, per patch ("R1", Mescheder et al. 2018).

    The squared gradient of a picture's mean decision, times the number of decisions: so patches
    that do not overlap each pay for their own slope, whatever their number.

    Args:
        discriminator: images to decision map, of a known size.
        real: float32 [batch, h, w, 3].
    """
    squares, patches = _squared_slopes(discriminator, real)
    return patches * tf.reduce_mean(squares)


def _squared_slopes(
    discriminator: Callable[[tf.Tensor], Logits], images: tf.Tensor
) -> tuple[tf.Tensor, int]:
    """Of each picture's mean decision: the squared norm of its gradient; and of how many it is."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        decisions = discriminator(images)
        means = tf.reduce_mean(decisions, axis=[1, 2, 3])
    slopes = tape.gradient(means, images)
    return tf.reduce_sum(tf.square(slopes), axis=[1, 2, 3]), decisions.shape[1:].num_elements()


def patch_contrast(queries: tf.Tensor, keys: tf.Tensor, temperature: float) -> tf.Tensor:
    """How badly each query tells its own key from those of the picture's other patches.

    The cross-entropy of Park et al. 2020, equation 3.

    Args:
        queries: float32 [batch, patches, n] of length 1, of the translated picture.
        keys: the same of the source picture, at the same places; they get no gradient.
        temperature: what the similarities are divided by.
    """
    similarities = tf.matmul(queries, tf.stop_gradient(keys), transpose_b=True) / temperature
    own = tf.linalg.diag_part(similarities)
    return tf.reduce_mean(tf.reduce_logsumexp(similarities, axis=2) - own)
