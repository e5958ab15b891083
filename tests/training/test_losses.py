"""Every loss against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from cyclegan_tf.models.discriminator import build_discriminator
from cyclegan_tf.models.layers import trainable_variables
from cyclegan_tf.training.losses import (
    absolute_difference,
    discriminator_loss,
    generator_loss,
    interpolates_penalty,
    patch_contrast,
    real_penalty,
)

SEED = tf.constant([1, 2], tf.int64)


def softplus(number: float) -> float:
    return math.log1p(math.exp(number))


def logits(*numbers: float) -> tf.Tensor:
    """A decision map [1, 1, count, 1]."""
    return tf.reshape(tf.constant(numbers, tf.float32), [1, 1, -1, 1])


@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        ("least_squares", ((3 - 1) ** 2 + (-1 - 1) ** 2) / 2),
        ("vanilla", (softplus(-3) + softplus(1)) / 2),
        ("hinge", -(3 - 1) / 2),
        ("wasserstein", -(3 - 1) / 2),
    ],
)
def test_generator_loss(kind, loss):
    found = generator_loss(kind, logits(3.0, -1.0))
    assert found.dtype == tf.float32
    assert float(found) == pytest.approx(loss)


@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        ("least_squares", ((2 - 1) ** 2 + (0.5 - 1) ** 2) / 2 + (3**2 + (-1) ** 2) / 2),
        ("vanilla", (softplus(-2) + softplus(-0.5)) / 2 + (softplus(3) + softplus(-1)) / 2),
        ("hinge", (0 + 0.5) / 2 + (4 + 0) / 2),
        ("wasserstein", (3 - 1) / 2 - (2 + 0.5) / 2),
    ],
)
def test_discriminator_loss(kind, loss):
    found = discriminator_loss(kind, logits(2.0, 0.5), logits(3.0, -1.0))
    assert found.dtype == tf.float32
    assert float(found) == pytest.approx(loss)


def test_vanilla_loss_stays_finite_far_out():
    assert float(generator_loss("vanilla", logits(-1e4))) == pytest.approx(1e4)
    assert float(discriminator_loss("vanilla", logits(-1e4), logits(1e4))) == pytest.approx(2e4)


def test_absolute_difference_is_a_mean_over_everything():
    images, targets = np.zeros([2, 1, 2, 3], np.float32), np.zeros([2, 1, 2, 3], np.float32)
    images[1, 0, 1] = [1.0, -2.0, 3.0]
    assert float(absolute_difference(images, targets)) == pytest.approx(6 / 12)
    assert float(absolute_difference(images, images)) == 0


@pytest.mark.parametrize("slope", [0.25, 1.0, 2.0])
def test_gradient_penalty_of_a_plane(slope, pictures):
    """decision = slope × (the mean of all numbers) × √n has a gradient of this norm everywhere."""
    scale = slope * math.sqrt(4 * 4 * 3)

    def plane(images):
        return scale * tf.reduce_mean(images, axis=[1, 2, 3], keepdims=True)

    penalty = interpolates_penalty(plane, pictures(3, 4), pictures(3, 4, seed=1), SEED)
    assert float(penalty) == pytest.approx((slope - 1) ** 2, abs=1e-5)


def test_gradient_penalty_is_the_mean_over_pictures_of_averaged_decisions():
    """Slopes 1 and 5 of two decisions on one number make 3; the second picture has 0."""

    def decide(images):
        first = images[:, :1, :1, :1] * tf.reshape([1.0, 0.0], [2, 1, 1, 1])
        return tf.concat([first, 5.0 * first], axis=2)

    images = tf.zeros([2, 4, 4, 3])
    penalty = interpolates_penalty(decide, images, images, SEED)
    assert float(penalty) == pytest.approx(((3 - 1) ** 2 + (0 - 1) ** 2) / 2, rel=1e-5)


def interpolates(real, fake, seed) -> np.ndarray:
    """The pictures at which the penalty looks at the discriminator."""
    seen = []

    def spy(images):
        seen.append(images.numpy())
        return images

    interpolates_penalty(spy, tf.constant(real), tf.constant(fake), seed)
    assert len(seen) == 1
    return seen[0]


def test_gradient_penalty_looks_at_uniform_interpolates_one_weight_per_picture(pictures):
    count = 2000
    real, fake = pictures(count, 2), pictures(count, 2, seed=1)
    between = interpolates(real, fake, SEED)
    weights = ((between - real) / (fake - real)).reshape(count, -1)
    weight = np.median(weights, axis=1)
    np.testing.assert_allclose(
        real + weight[:, None, None, None] * (fake - real), between, atol=1e-5
    )
    assert weight.min() >= 0 and weight.max() <= 1
    shares, _ = np.histogram(weight, bins=10, range=(0, 1))
    assert np.abs(shares / count - 0.1).max() < 0.03


def test_gradient_penalty_is_a_function_of_its_seed(pictures):
    real, fake = pictures(4), pictures(4, seed=1)
    first, again = (interpolates(real, fake, SEED) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first != interpolates(real, fake, SEED + 1)).any()


def test_gradient_penalty_has_a_finite_gradient_where_the_slope_is_zero(pictures):
    weight = tf.Variable(0.0)
    with tf.GradientTape() as tape:
        penalty = interpolates_penalty(
            lambda images: weight * images, pictures(2), pictures(2), SEED
        )
    assert float(penalty) == pytest.approx(1.0, abs=1e-4)
    assert math.isfinite(float(tape.gradient(penalty, weight)))


def test_real_penalty_is_the_mean_squared_slope_of_a_patch():
    """Patches of one number: slopes 3, 3, 3, 3 in one picture, 2, 0, 0, 0 in the other."""
    slopes = np.zeros([2, 2, 2, 1], np.float32)
    slopes[0], slopes[1, 0, 1] = 3.0, 2.0
    penalty = real_penalty(lambda images: slopes * images[..., 1:2], tf.ones([2, 2, 2, 3]))
    assert float(penalty) == pytest.approx((4 * 9 + 4) / 4 / 2)


def test_real_penalty_looks_at_the_real_pictures(pictures):
    """A decision of x² has a slope of 2 x."""
    real = pictures(3, 4)
    expected = 4 * np.square(real).sum(axis=(1, 2, 3)).mean() / (4 * 4 * 3)
    assert float(real_penalty(tf.square, tf.constant(real))) == pytest.approx(expected, rel=1e-5)


def between(judge, images):
    return interpolates_penalty(judge, images, images[::-1], SEED)


@pytest.mark.parametrize("penalty_of", [between, real_penalty])
@pytest.mark.parametrize("affine", [True, False])
def test_gradient_penaltys_gradient_is_the_slope_of_the_penalty(
    affine, penalty_of, tiny_config, pictures
):
    """Through the layers of a real discriminator, against finite differences."""
    config = tiny_config("selfie2anime-v2", discriminator_affine=affine)
    discriminator = build_discriminator(config, image_size=16)
    discriminator.set_weights([20 * weight for weight in discriminator.get_weights()])
    variables = trainable_variables(discriminator)
    images = tf.constant(pictures(2))

    def penalty():
        return penalty_of(lambda images: discriminator(images, training=False), images)

    with tf.GradientTape() as tape:
        value = penalty()
    gradients = tape.gradient(value, variables, unconnected_gradients="zero")
    length = tf.linalg.global_norm(gradients)
    assert float(length) > 0.1

    def moved(by: float) -> float:
        for variable, gradient in zip(variables, gradients):
            variable.assign_add(by * gradient / length)
        return float(penalty())

    up, down = moved(1e-3), moved(-2e-3)
    assert (up - down) / 2e-3 == pytest.approx(float(length), rel=0.02)


def test_patch_contrast_is_torchs_cross_entropy():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    queries, keys = (
        points / np.linalg.norm(points, axis=2, keepdims=True)
        for points in rng.normal(size=(2, 3, 5, 7)).astype(np.float32)
    )
    similarities = torch.from_numpy(queries) @ torch.from_numpy(keys).transpose(1, 2) / 0.07
    right = torch.nn.functional.cross_entropy(
        similarities.reshape(15, 5), torch.arange(5).repeat(3)
    )
    found = patch_contrast(tf.constant(queries), tf.constant(keys), 0.07)
    assert float(found) == pytest.approx(float(right), rel=1e-5)


def test_patch_contrast_gives_the_keys_no_gradient():
    points = tf.math.l2_normalize(tf.random.stateless_normal([1, 4, 6], SEED), axis=2)
    with tf.GradientTape() as tape:
        tape.watch(points)
        loss = patch_contrast(tf.constant(points.numpy()), points, 0.5)
    assert tape.gradient(loss, points) is None
