"""Translations scored against the true portraits of the same people."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from cyclegan_tf.data.pipeline import Shards, test_images, to_pixels
from cyclegan_tf.errors import UserError
from cyclegan_tf.evaluation.metrics import paired_scores
from cyclegan_tf.evaluation.paired import score_test_pairs
from cyclegan_tf.models.networks import Generators
from tests.tiny import pack_demo

test_images.__test__ = False  # A function of the pipeline, not a test.

PEOPLE = 9  # more than are translated at once
SIZE = 32


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Shards:
    return pack_demo(tmp_path_factory.mktemp("data") / "shards", train=2, test=PEOPLE)


def by_name(shards: Shards, split: str) -> np.ndarray:
    pictures = {name: image for image, name in test_images(shards, split, SIZE).as_numpy_iterator()}
    assert len(pictures) == PEOPLE
    return np.stack([pictures[name] for name in sorted(pictures)])


def lookup(source: np.ndarray, target: np.ndarray):
    """A generator that has learnt by heart what becomes of each picture of ``source``."""

    def translate(images: tf.Tensor, training: bool) -> tf.Tensor:
        assert not training
        differences = tf.abs(images[:, tf.newaxis] - source[tf.newaxis])
        nearest = tf.argmin(tf.reduce_sum(differences, axis=[2, 3, 4]), axis=1)
        return tf.gather(tf.constant(target), nearest)

    return translate


def with_shards_of(shards: Shards, split: str, change) -> Shards:
    """The data set with the row of one split's shards changed."""
    splits = {**shards.manifest.splits, split: change(shards.manifest.splits[split])}
    return Shards(shards.folder, dataclasses.replace(shards.manifest, splits=splits))


@pytest.mark.parametrize("order", [1, -1], ids=["as packed", "B backwards"])
def test_pictures_are_paired_by_name_whatever_their_order(shards, order):
    a, b = by_name(shards, "testA"), by_name(shards, "testB")
    read = with_shards_of(shards, "testB", lambda row: row[::order])
    scores = score_test_pairs(read, Generators(lookup(a, b), lookup(b, a)), SIZE)
    untranslated = paired_scores(to_pixels(a).numpy(), to_pixels(b).numpy())
    assert untranslated["mae"] > 1.0
    for direction in ("ab", "ba"):
        assert scores[direction]["translated"] == {"mae": 0.0, "ssim": pytest.approx(1.0)}
        assert scores[direction]["untranslated"] == pytest.approx(untranslated)


def test_a_generator_that_does_nothing_scores_as_the_untranslated(shards):
    def keep(images: tf.Tensor, training: bool) -> tf.Tensor:
        return images

    scores = score_test_pairs(shards, Generators(keep, keep), SIZE)
    for direction in ("ab", "ba"):
        assert scores[direction]["translated"] == scores[direction]["untranslated"]


def test_other_names_in_both_splits_are_refused(shards):
    fewer = with_shards_of(shards, "testB", lambda row: row[:-1])
    with pytest.raises(UserError, match="testA and testB do not hold the same file names"):
        score_test_pairs(fewer, Generators(None, None), SIZE)
