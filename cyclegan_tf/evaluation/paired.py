"""Translations scored against the truth, where the test split shows the same in both styles."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from cyclegan_tf.data.pipeline import Shards, test_images, to_pixels
from cyclegan_tf.errors import UserError
from cyclegan_tf.evaluation.metrics import paired_scores
from cyclegan_tf.models.networks import Generators

_BATCH = 8


def score_test_pairs(
    shards: Shards, generators: Generators, image_size: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Scores both directions over the whole test split.

    Args:
        shards: a data set with a paired test split (the demo).
        generators: what translates.
        image_size: side of the pictures.

    Returns:
        ``{"ab": {"translated": scores, "untranslated": scores}, "ba": …}``, the scores being those
        of ``metrics.paired_scores``.

    Raises:
        UserError: if testA and testB do not hold the same names.
    """
    a, names_a = _test_split(shards, "testA", image_size)
    b, names_b = _test_split(shards, "testB", image_size)
    if sorted(names_a) != sorted(names_b):
        raise UserError(f"{shards.folder}: testA and testB do not hold the same file names")
    # Shards are in the order of a hash, not of the names.
    a, b = a[np.argsort(names_a)], b[np.argsort(names_b)]
    return {
        "ab": _score_direction(generators.ab, a, b),
        "ba": _score_direction(generators.ba, b, a),
    }


def _test_split(shards: Shards, split: str, image_size: int) -> tuple[np.ndarray, list[bytes]]:
    pairs = list(test_images(shards, split, image_size).as_numpy_iterator())
    return np.stack([image for image, _ in pairs]), [name for _, name in pairs]


def _score_direction(
    generator, source: np.ndarray, truth: np.ndarray
) -> dict[str, dict[str, float]]:
    translate = tf.function(lambda images: generator(images, training=False))
    batches = tf.data.Dataset.from_tensor_slices(source).batch(_BATCH)
    translated = np.concatenate([to_pixels(translate(batch)).numpy() for batch in batches])
    truth = to_pixels(truth).numpy()
    return {
        "translated": paired_scores(translated, truth),
        "untranslated": paired_scores(to_pixels(source).numpy(), truth),
    }
