"""The image history: which pictures come back, and how often."""

from __future__ import annotations

import collections
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from cyclegan_tf.config import HistoryConfig
from cyclegan_tf.training.history import ImageHistory


class Query(NamedTuple):
    """One query: pictures given and returned, and what was kept before and after; as numbers."""

    given: np.ndarray
    returned: np.ndarray
    before: np.ndarray
    after: np.ndarray


def new_history(kind: str = "swap", size: int = 50, every: int = 3) -> ImageHistory:
    """A history of one-pixel pictures."""
    return ImageHistory(HistoryConfig(kind=kind, size=size, every=every), image_size=1)


def feed(history: ImageHistory, steps: int, batch: int = 1, seed: int = 7) -> list[Query]:
    """Feeds pictures filled with 1, 2, 3… from inside a graph."""

    def numbers(images):
        return images[:, 0, 0, 0]

    @tf.function
    def run():
        returned = tf.TensorArray(tf.float32, steps, element_shape=[batch, 1, 1, 3])
        kept = tf.TensorArray(tf.float32, steps + 1, element_shape=[history.config.size])
        kept = kept.write(0, numbers(history.images))
        for step in tf.range(steps, dtype=tf.int64):
            given = tf.cast(step * batch + tf.range(batch, dtype=tf.int64), tf.float32) + 1.0
            images = given[:, None, None, None] * tf.ones([1, 1, 1, 3])
            chosen = history.query(images, tf.stack([tf.constant(seed, tf.int64), step]))
            returned = returned.write(tf.cast(step, tf.int32), chosen)
            kept = kept.write(tf.cast(step, tf.int32) + 1, numbers(history.images))
        return returned.stack(), kept.stack()

    returned, kept = (values.numpy() for values in run())
    assert (returned == returned[..., :1]).all()  # Whole pictures, never mixed.
    given = np.arange(steps * batch).reshape(steps, batch) + 1.0
    return [Query(*each) for each in zip(given, returned[:, :, 0, 0, 0], kept[:-1], kept[1:])]


def returned_by(history: ImageHistory, steps: int, batch: int = 1, seed: int = 7) -> np.ndarray:
    return np.concatenate([query.returned for query in feed(history, steps, batch, seed)])


def places_of(pictures: np.ndarray, kept: np.ndarray) -> list[int]:
    return [int(np.flatnonzero(kept == picture)[0]) for picture in pictures]


@pytest.mark.parametrize("kind", ["swap", "contiguous", "uniform"])
def test_size_0_is_no_history(kind):
    np.testing.assert_array_equal(returned_by(new_history(kind, 0), 10, 5), np.arange(50) + 1.0)


@pytest.mark.parametrize("kind", ["swap", "contiguous", "uniform"])
def test_equal_seeds_choose_alike_and_others_do_not(kind):
    first, again, other = (returned_by(new_history(kind, 10), 40, 5, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("kind", ["contiguous", "uniform"])
@pytest.mark.parametrize("size", [7, 12])
def test_a_size_that_no_batches_fill_shows_no_empty_place(kind, size):
    for seed in range(3):
        for query in feed(new_history(kind, size), 12, 5, seed):
            assert set(query.returned) <= {*query.given, *query.before[query.before > 0]}


@pytest.mark.parametrize("size", [1, 5, 50])
def test_swap_returns_what_it_is_given_while_it_fills(size):
    np.testing.assert_array_equal(returned_by(new_history(size=size), size), np.arange(size) + 1.0)


def test_swap_fills_place_after_place():
    np.testing.assert_array_equal(feed(new_history(size=3), 3)[-1].after, [1.0, 2.0, 3.0])


@pytest.mark.parametrize(("size", "batch"), [(50, 1), (5, 1), (50, 5)])
def test_swap_returns_an_older_picture_half_the_time(size, batch):
    steps = 4000 // batch
    returned = returned_by(new_history(size=size), steps, batch)[size:]
    given = np.arange(steps * batch)[size:] + 1.0
    assert abs((returned != given).mean() - 0.5) < 0.03
    assert (returned <= given).all() and returned.min() >= 1


@pytest.mark.parametrize(("size", "batch"), [(50, 1), (5, 1), (50, 5)])
def test_swap_returns_no_picture_more_than_twice(size, batch):
    counts = collections.Counter(returned_by(new_history(size=size), 2000 // batch, batch))
    assert max(counts.values()) == 2


def test_swap_puts_the_new_picture_in_the_place_of_the_one_it_returns():
    for query in feed(new_history(size=4), 100)[4:]:
        expected = query.before.copy()
        if query.returned[0] != query.given[0]:
            expected[places_of(query.returned, query.before)] = query.given
        np.testing.assert_array_equal(query.after, expected)


def test_swap_draws_every_place_equally():
    size = 5
    queries = feed(new_history(size=size), 4000)[size:]
    swapped = [query for query in queries if query.returned[0] != query.given[0]]
    places = [places_of(query.returned, query.before)[0] for query in swapped]
    shares = np.bincount(places, minlength=size) / len(places)
    assert np.abs(shares - 1 / size).max() < 0.04


def test_swap_handles_a_batch_in_turn():
    """A history of one: a picture can be swapped for another one of its own batch."""
    swapped_inside = 0
    for query in feed(new_history(size=1), 50, 4)[1:]:
        kept = query.before[0]
        for given, returned in zip(query.given, query.returned):
            assert returned in (given, kept)
            swapped_inside += returned != given and kept in query.given
            kept = given if returned != given else kept
        assert query.after[0] == kept
    assert swapped_inside > 20


@pytest.mark.parametrize("kind", ["contiguous", "uniform"])
def test_reports_history_shows_older_pictures_every_third_step(kind):
    for step, query in enumerate(feed(new_history(kind, 25), 60, 5)):
        if step % 3 == 2:
            assert set(query.returned) <= set(query.before[query.before > 0])
            assert not set(query.returned) & set(query.given)
        else:
            np.testing.assert_array_equal(query.returned, query.given)


@pytest.mark.parametrize("kind", ["contiguous", "uniform"])
def test_reports_history_replaces_a_contiguous_run_by_the_newest(kind):
    queries, starts = feed(new_history(kind, 25), 1000, 5), []
    for query in queries:
        places = np.flatnonzero(query.after != query.before)
        np.testing.assert_array_equal(query.after[places], query.given)
        np.testing.assert_array_equal(places, places[0] + np.arange(5))
        starts.append(places[0])
    assert starts[:5] == [0, 5, 10, 15, 20]
    shares = np.bincount(starts[5:], minlength=21) / len(starts[5:])
    assert np.abs(shares - 1 / 21).max() < 0.03


def test_contiguous_shows_a_contiguous_run_from_anywhere():
    starts = []
    for query in feed(new_history("contiguous", 25), 3000, 5)[8::3]:
        places = places_of(query.returned, query.before)
        np.testing.assert_array_equal(places, places[0] + np.arange(5))
        starts.append(places[0])
    shares = np.bincount(starts, minlength=21) / len(starts)
    assert np.abs(shares - 1 / 21).max() < 0.03


def test_uniform_shows_five_different_ones_each_as_often():
    queries = feed(new_history("uniform", 25), 3000, 5)[8::3]
    places = [places_of(query.returned, query.before) for query in queries]
    assert all(len(set(five)) == 5 for five in places)
    assert np.mean([(np.diff(five) == 1).all() for five in places]) < 0.01
    shares = np.bincount(np.ravel(places), minlength=25) / len(places)
    assert np.abs(shares - 5 / 25).max() < 0.05


def test_two_histories_with_other_seeds_keep_other_pictures():
    first, second = (feed(new_history(size=10), 100, seed=seed)[-1].after for seed in (0, 1))
    assert (first != second).any()
