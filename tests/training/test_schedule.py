"""The learning rate: constant, then a straight line to zero."""

from __future__ import annotations

import pytest
import tensorflow as tf

from cyclegan_tf.config import Config
from cyclegan_tf.training.schedule import learning_rate, steps_per_epoch, total_steps


def rate(step: int, total: int = 200, **settings) -> float:
    config = Config().replace(learning_rate=1.0, **settings)
    return float(learning_rate(config, tf.constant(step, tf.int64), total))


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 1.0), (1, 1.0), (99, 1.0), (100, 1.0), (101, 0.99), (150, 0.5), (199, 0.01), (200, 0.0)],
)
def test_constant_for_half_the_training_then_linear_to_zero(step, expected):
    assert rate(step) == pytest.approx(expected, rel=1e-6)


def test_a_step_after_the_end_does_not_climb():
    assert rate(201) == 0.0


@pytest.mark.parametrize(("start", "step", "expected"), [(0.0, 50, 0.75), (0.75, 175, 0.5)])
def test_the_decay_starts_where_it_is_asked_to(start, step, expected):
    assert rate(step, decay_start=start) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("step", [0, 100, 199, 200])
def test_a_decay_start_of_1_is_no_decay(step):
    assert rate(step, decay_start=1.0) == 1.0


def test_exact_far_into_a_long_training():
    total = 10_000_000
    assert rate(total - 1, total) == pytest.approx(2 / total, rel=1e-6)


def test_the_rate_is_the_configs():
    config = Config()
    assert float(learning_rate(config, tf.constant(0, tf.int64), 10)) == pytest.approx(2e-4)


def test_the_rate_is_a_function_of_the_step_inside_a_graph():
    config = Config().replace(learning_rate=1.0)
    run = tf.function(lambda step: learning_rate(config, step, 4))
    rates = [float(run(tf.constant(step, tf.int64))) for step in range(4)]
    assert rates == pytest.approx([1.0, 1.0, 1.0, 0.5])
    assert run(tf.constant(0, tf.int64)).dtype == tf.float32


@pytest.mark.parametrize(
    ("pairs", "batch", "steps"), [(10, 1, 10), (10, 3, 4), (9, 3, 3), (2, 5, 1)]
)
def test_an_epoch_shows_every_pair(pairs, batch, steps):
    assert steps_per_epoch(Config().replace(batch_size=batch), pairs) == steps


def test_the_length_follows_the_real_epochs_unless_steps_are_given():
    config = Config().replace(epochs=7, batch_size=4)
    assert total_steps(config, 10) == 7 * 3
    assert total_steps(config.replace(steps=5), 10) == 5


def test_the_decay_follows_the_real_epochs():
    """100 + 100 epochs of the paper: the first step of epoch 101 is the last with the full rate."""
    config = Config().replace(learning_rate=1.0)
    for pairs in (3, 1067):
        total = total_steps(config, pairs)
        assert rate(100 * pairs, total) == 1.0
        assert 1.0 - 1e-2 < rate(100 * pairs + 1, total) < 1.0
        assert rate(150 * pairs, total) == pytest.approx(0.5)
