"""The image history: which pictures come back, and how often."""

from __future__ import annotations

import collections

import numpy as np
import pytest
import tensorflow as tf

from cyclegan_tf.config import HistoryConfig
from cyclegan_tf.training.history import ImageHistory


def new_history(kind: str = "swap", size: int = 50, every: int = 3) -> ImageHistory:
    """A history of one-pixel pictures."""
    return ImageHistory(HistoryConfig(kind=kind, size=size, every=every), image_size=1)


def feed(history: ImageHistory, steps: int, batch: int = 1, seed: int = 7):
    """Feeds the pictures 1, 2, 3… and yields (given, returned, kept before) of each query."""

    @tf.function
    def query(images, step):
        return history.query(images, tf.stack([tf.constant(seed, tf.int64), step]))

    for step in range(steps):
        given = np.arange(step * batch, (step + 1) * batch) + 1.0
        before = history.images.numpy()[:, 0, 0, 0]
        images = tf.constant(given, tf.float32)[:, None, None, None] * tf.ones([1, 1, 1, 3])
        returned = query(images, tf.constant(step, tf.int64)).numpy()
        assert returned.shape == (batch, 1, 1, 3)
        assert (returned == returned[..., :1]).all()  # Whole pictures, never mixed.
        yield given, returned[:, 0, 0, 0], before


def returned_by(history: ImageHistory, steps: int, batch: int = 1, seed: int = 7) -> np.ndarray:
    return np.concatenate([returned for _, returned, _ in feed(history, steps, batch, seed)])


@pytest.mark.parametrize("kind", ["swap", "contiguous", "uniform"])
def test_size_0_is_no_history(kind):
    np.testing.assert_array_equal(returned_by(new_history(kind, 0), 10, 5), np.arange(50) + 1.0)


@pytest.mark.parametrize("kind", ["swap", "contiguous", "uniform"])
def test_equal_seeds_choose_alike_and_others_do_not(kind):
    first, again, other = (returned_by(new_history(kind, 10), 40, 5, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("kind", ["swap", "contiguous", "uniform"])
@pytest.mark.parametrize("size", [5, 7, 10, 12])
def test_only_pictures_that_were_given_come_back(kind, size):
    """Above all not the zeros of places that hold nothing yet, whatever the size and the batch."""
    for given, returned, before in feed(new_history(kind, size), 60, 5):
        known = {*given, *before[before > 0]}
        assert set(returned) <= known


@pytest.mark.parametrize("size", [1, 5, 50])
def test_swap_returns_what_it_is_given_while_it_fills(size):
    np.testing.assert_array_equal(returned_by(new_history(size=size), size), np.arange(size) + 1.0)


def test_swap_fills_place_after_place():
    history = new_history(size=3)
    returned_by(history, 3)
    np.testing.assert_array_equal(history.images[:, 0, 0, 0], [1.0, 2.0, 3.0])


@pytest.mark.parametrize(("size", "batch"), [(50, 1), (5, 1), (50, 5)])
def test_swap_returns_an_older_picture_half_the_time(size, batch):
    steps = 4000 // batch
    returned = returned_by(new_history(size=size), steps, batch)[size:]
    given = np.arange(steps * batch)[size:] + 1.0
    assert abs((returned != given).mean() - 0.5) < 0.03
    assert (returned <= given).all()


@pytest.mark.parametrize(("size", "batch"), [(50, 1), (5, 1), (50, 5)])
def test_swap_returns_no_picture_more_than_twice(size, batch):
    counts = collections.Counter(returned_by(new_history(size=size), 2000 // batch, batch))
    assert max(counts.values()) == 2


def test_swap_keeps_what_it_does_not_return():
    """At any time, everything given was returned last or is kept: nothing is lost."""
    kept_or_returned = set()
    for given, returned, before in feed(new_history(size=4), 100):
        assert set(given) | set(before[before > 0]) >= set(returned)
        if returned[0] != given[0]:
            kept_or_returned.add(returned[0])
            assert returned[0] in before
    assert len(kept_or_returned) > 30


def test_swap_draws_every_place_equally():
    size, steps = 5, 3000
    places = collections.Counter()
    for given, returned, before in feed(new_history(size=size), steps):
        if returned[0] != given[0]:
            places[int(np.flatnonzero(before == returned[0])[0])] += 1
    shares = np.array([places[place] for place in range(size)]) / sum(places.values())
    assert np.abs(shares - 1 / size).max() < 0.04


def test_swap_handles_a_batch_in_turn():
    """A history of one: a picture can be swapped for another one of its own batch."""
    history, swapped_inside = new_history(size=1), 0
    for given, returned, before in feed(history, 50, 4):
        kept = before[0]
        for one, other in zip(given, returned):
            assert other == one or other == kept or kept == 0
            swapped_inside += other != one and kept in given
            kept = one if other != one or kept == 0 else kept
        assert history.images.numpy()[0, 0, 0, 0] == kept
    assert swapped_inside > 20


@pytest.mark.parametrize("kind", ["contiguous", "uniform"])
def test_reports_history_shows_older_pictures_every_third_step(kind):
    for step, (given, returned, before) in enumerate(feed(new_history(kind, 25), 60, 5)):
        if step % 3 == 2:
            assert set(returned) <= set(before[before > 0])
            assert not set(returned) & set(given)
        else:
            np.testing.assert_array_equal(returned, given)


@pytest.mark.parametrize("kind", ["contiguous", "uniform"])
def test_reports_history_replaces_a_contiguous_run_by_the_newest(kind):
    history = new_history(kind, 25)
    starts = collections.Counter()
    for step, (given, _, before) in enumerate(feed(history, 600, 5)):
        after = history.images.numpy()[:, 0, 0, 0]
        places = np.flatnonzero(after != before)
        np.testing.assert_array_equal(after[places], given)
        np.testing.assert_array_equal(places, places[0] + np.arange(5))
        if step < 5:
            assert places[0] == 5 * step
        else:
            starts[places[0]] += 1
    assert set(starts) == set(range(21))
    assert max(starts.values()) < 3 * min(starts.values()) + 20


def test_contiguous_shows_a_contiguous_run_from_anywhere():
    starts = collections.Counter()
    for step, (_, returned, before) in enumerate(feed(new_history("contiguous", 25), 900, 5)):
        if step % 3 == 2 and step > 5:
            first = int(np.flatnonzero(before == returned[0])[0])
            np.testing.assert_array_equal(returned, before[first : first + 5])
            starts[first] += 1
    assert set(starts) == set(range(21))


def test_uniform_shows_five_different_ones_each_as_often():
    places, runs, queries = collections.Counter(), 0, 0
    for step, (_, returned, before) in enumerate(feed(new_history("uniform", 25), 1500, 5)):
        if step % 3 == 2 and step > 5:
            found = [int(np.flatnonzero(before == each)[0]) for each in returned]
            assert len(set(found)) == 5
            places.update(found)
            runs += (np.diff(found) == 1).all()
            queries += 1
    shares = np.array([places[place] for place in range(25)]) / queries
    assert np.abs(shares - 5 / 25).max() < 0.08
    assert runs < 5


def test_two_histories_with_other_seeds_keep_other_pictures():
    histories = [new_history(size=10) for _ in range(2)]
    for seed, history in enumerate(histories):
        returned_by(history, 100, seed=seed)
    first, second = (history.images.numpy() for history in histories)
    assert (first != second).any()
