"""Losses and gradients that are not finite: they change nothing, are named, and end the run."""

from __future__ import annotations

import json
import math
import signal

import numpy as np
import pytest
import tensorflow as tf

from cyclegan_tf.data.pipeline import batch_names, training_pairs
from cyclegan_tf.errors import UserError
from cyclegan_tf.training import loop
from cyclegan_tf.training.checkpoints import best_step, steps_saved
from cyclegan_tf.training.examiner import Examiner
from cyclegan_tf.training.loop import Training
from cyclegan_tf.training.run_directory import create_run_directory
from cyclegan_tf.training.step import _all_finite
from tests.tiny import pack_charts


def numbers(step) -> list[np.ndarray]:
    """Every weight, average and moment."""
    state = step.state
    weights = [weight for model in [*state.networks, *state.averages] for weight in model.weights]
    moments = [
        moment
        for optimizer in (state.generator_optimizer, state.discriminator_optimizer)
        for moment in [*optimizer.first_moments, *optimizer.second_moments]
    ]
    return [variable.numpy() for variable in [*weights, *moments]]


@pytest.mark.parametrize("replicas", [1, 2])
def test_what_is_not_finite_changes_nothing(replicas, tiny_config, new_training, pairs, pictures):
    """A number in one picture of one replica."""
    config = tiny_config(average=0.9, batch_size=2, history_size=4)
    step = new_training(config, replicas)
    a, b = pictures(6), pictures(6, seed=1)
    a[3, 5, 5, 0] = math.nan  # the second of the second batch
    batches = pairs(step, a, b)
    step.run(batches, tf.constant(1))
    assert int(step.nonfinite.total) == 0
    before = numbers(step)
    second = step.run(batches, tf.constant(1))
    assert int(step.nonfinite.total) == 1
    assert math.isnan(float(second["cycle_a"]))
    for found, right in zip(numbers(step), before):
        np.testing.assert_array_equal(found, right)
    assert (int(step.nonfinite.longest), int(step.nonfinite.step)) == (1, 1)
    named = dict(zip(step.metric_names(), step.nonfinite.terms.numpy()))
    assert math.isnan(named["cycle_a"]) and math.isfinite(named["discriminator_b"])
    histories = [*step.state.histories_a, *step.state.histories_b]
    assert all(np.isfinite(history.images.numpy()).all() for history in histories)

    third = step.run(batches, tf.constant(3))  # one good, one that is the first again, the bad one
    assert int(step.nonfinite.total) == 2
    assert math.isfinite(float(third["cycle_a"]))
    assert any((found != right).any() for found, right in zip(numbers(step), before))
    assert (int(step.nonfinite.in_row), step.state.steps_done()) == (1, 5)


def test_replicas_stay_equal_when_one_of_them_is_not_finite(
    tiny_config, new_training, pairs, pictures
):
    step = new_training(tiny_config(batch_size=2), 2)
    a, b = pictures(4), pictures(4, seed=1)
    a[3] = math.inf
    step.run(pairs(step, a, b), tf.constant(4))
    for variable in step.state.generator_variables():
        one, other = (copy.numpy() for copy in step.strategy.experimental_local_results(variable))
        np.testing.assert_array_equal(one, other)
        assert np.isfinite(one).all()


@pytest.mark.parametrize(
    ("values", "finite"),
    [
        ([1e18], True),
        ([-1e18, 1e18], True),
        ([2e19], False),
        ([-2e19], False),
        ([1e18, 2e19], False),
        ([1.7e19] * 4, False),
        ([math.inf], False),
        ([-math.inf], False),
        ([math.nan], False),
    ],
)
def test_a_sum_of_squares_beyond_float32_counts_as_not_finite(values, finite):
    """Each value among others in a tensor of its own."""
    tensors = [tf.constant([[0.0, value], [-1.0, 1.0]]) for value in values]
    assert bool(_all_finite([tf.zeros([3]), *tensors])) is finite


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return pack_charts(tmp_path_factory.mktemp("data"), trainA=6, trainB=5, testA=1, testB=1)


@pytest.fixture
def new_run(tiny_config, mirrored, shards, tmp_path):
    """A function: a Training of ten steps in tmp_path/run."""

    def make(**settings) -> Training:
        due = {"log_every": 2, "sample_every": 50, "checkpoint_every": 2, "max_nonfinite": 3}
        config = tiny_config("demo", **{"steps": 10, "steps_per_call": 1, **due, **settings})
        create_run_directory(tmp_path / "run", config)
        return Training(config, tmp_path / "run", shards, mirrored(1), "float32")

    return make


def spoil(training: Training, bad) -> None:
    """Makes a loss term and a gradient NaN in the steps for which ``bad(step)`` is true."""
    right = training.step.generator_gradients

    def spoilt(*args):
        gradients, fake_a, fake_b, metrics = right(*args)
        factor = tf.where(bad(training.state.step.read_value()), math.nan, 1.0)
        gradients = [gradients[0] * factor, *gradients[1:]]
        return gradients, fake_a, fake_b, {**metrics, "cycle_a": metrics["cycle_a"] * factor}

    training.step.generator_gradients = spoilt


def logged(training: Training) -> list[dict]:
    text = (training.run_dir / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_a_few_bad_steps_are_told_and_left_out_of_the_means(new_run, capsys, eager):
    training = new_run(steps=6)
    spoil(training, lambda step: tf.logical_or(step == 2, step == 4))
    assert training.run()
    assert "step 4: 1 steps whose loss or gradient was not finite" in capsys.readouterr().err
    records = logged(training)
    assert [record["step"] for record in records if "warning" in record] == [4, 6]
    assert all(math.isfinite(one["cycle_a"]) for one in records if "cycle_a" in one)
    assert [record["step"] for record in records if "cycle_a" in record] == [2, 4, 6]


def test_too_many_in_a_row_end_the_run_and_name_step_terms_and_pictures(new_run, eager):
    training = new_run()
    spoil(training, lambda step: step >= 3)
    with pytest.raises(UserError) as caught:
        training.run()
    message = str(caught.value)
    assert "step 6: cycle_a nan not finite, for 3 steps in a row; its pictures: trainA/" in message
    assert ".png, trainB/" in message
    assert message.endswith("a lower --learning-rate or with --on-nonfinite rollback")
    # Not 4, in the middle of the row, where the weights may be what is wrong.
    assert steps_saved(training.run_dir / "checkpoints") == [2]
    assert all(np.isfinite(array).all() for array in numbers_of_generators(training))
    assert "step 6: cycle_a nan not finite" in logged(training)[-1]["warning"]
    page = (training.run_dir / "report.html").read_text(encoding="utf-8")
    assert "Step 6: " in page and "cycle_a nan not finite, for 3 steps in a row" in page


def numbers_of_generators(training: Training) -> list[np.ndarray]:
    return [weight.numpy() for weight in training.state.generator_variables()]


def test_what_is_due_at_a_bad_step_waits_for_a_sound_one(new_run, eager):
    due = {"checkpoint_every": 4, "evaluate_every": 4, "evaluate_paired": True, "steps": 8}
    training = new_run(**due)
    spoil(training, lambda step: step == 3)
    assert training.run()
    folder = training.run_dir / "checkpoints"
    assert (steps_saved(folder), best_step(folder)) == ([8, 5], 8)


def test_a_stop_in_a_bad_row_keeps_the_last_sound_checkpoint(new_run, eager):
    def bad(step):
        if step == 5:
            signal.raise_signal(signal.SIGTERM)
        return step >= 3

    training = new_run(max_nonfinite=9)
    spoil(training, bad)
    assert not training.run()
    assert training.state.steps_done() == 6
    assert steps_saved(training.run_dir / "checkpoints") == [2]


def test_a_checkpoint_that_waited_for_a_sound_step_is_not_saved_after_a_roll_back(
    new_run, monkeypatch, eager
):
    training, told = new_run(on_nonfinite="rollback", checkpoint_every=4), []
    factor = training.state.rate_factor
    spoil(training, lambda step: tf.logical_and(step >= 3, factor.read_value() > 0.3))
    monkeypatch.setattr(loop, "warn", told.append)
    assert training.run()
    starts = ["going back to step 0 with 0.5 ", "going back to step 0 with 0.25 "]
    assert len(told) == len(starts)
    assert all(text.startswith(start) for start, text in zip(starts, told))


def test_a_roll_back_goes_on_with_half_the_rate(new_run, capsys, eager):
    training = new_run(on_nonfinite="rollback", checkpoint_every=4)
    factor = training.state.rate_factor
    spoil(training, lambda step: tf.logical_and(step >= 5, factor.read_value() > 0.3))
    assert training.run()
    error = capsys.readouterr().err
    assert "going back to step 4 with 0.5 of the learning rate: --run-dir" in error
    # The checkpoint of step 4 failed twice, so it counts as bad.
    assert "going back to step 0 with 0.25 of the learning rate" in error
    assert factor.numpy() == 0.25
    note, *records = logged(training)
    # What was logged before, of the steps that were taken again, is forgotten.
    assert note["step"] == 0 and note["warning"] in error
    assert "going back to step 0 with 0.25" in note["warning"]
    assert "going back to step 0" in (training.run_dir / "report.html").read_text(encoding="utf-8")
    assert [record["step"] for record in records] == [2, 4, 6, 8, 10]
    assert records[0]["learning_rate"] == pytest.approx(training.config.optimizer.learning_rate / 4)
    resumed = new_run(on_nonfinite="rollback", checkpoint_every=4)
    assert (resumed.finished(), resumed.state.rate_factor.numpy()) == (True, 0.25)


def test_when_the_best_has_failed_twice_the_best_of_the_others_is(new_run, monkeypatch, eager):
    errors = iter([30.0, 20.0, 50.0, 40.0])  # after 2, 4, 4 and 6 steps
    monkeypatch.setattr(
        Examiner, "scores", lambda self: dict.fromkeys(("mae_ab", "mae_ba"), next(errors))
    )
    every = {"checkpoint_every": 2, "evaluate_every": 2, "steps": 6, "evaluate_paired": True}
    training, told = new_run(on_nonfinite="rollback", max_nonfinite=1, **every), []
    folder, factor = training.run_dir / "checkpoints", training.state.rate_factor
    spoil(training, lambda step: tf.logical_and(step >= 4, factor.read_value() > 0.3))
    monkeypatch.setattr(loop, "warn", lambda text: told.append((text, best_step(folder))))
    assert training.run()
    first, second = told
    assert "going back to step 4" in first[0] and first[1] == 4
    assert "going back to step 2" in second[0] and second[1] == 2
    assert best_step(folder) == 2


def test_a_roll_back_outlives_a_kill(new_run, monkeypatch, eager):
    """Else the run would go on at the rate that has just failed."""

    class Killed(BaseException):
        pass

    def kill(text: str) -> None:
        assert "going back to step 4" in text
        raise Killed

    training = new_run(on_nonfinite="rollback", checkpoint_every=4)
    spoil(training, lambda step: step >= 5)
    monkeypatch.setattr(loop, "warn", kill)
    with pytest.raises(Killed):
        training.run()
    resumed = new_run(on_nonfinite="rollback", checkpoint_every=4)
    assert (resumed.state.steps_done(), resumed.state.rate_factor.numpy()) == (4, 0.5)
    # The checkpoint of step 4 fails again, so the one before it is gone back to.
    factor, told = resumed.state.rate_factor, []
    monkeypatch.setattr(loop, "warn", told.append)
    spoil(resumed, lambda step: tf.logical_and(step >= 5, factor.read_value() > 0.3))
    assert resumed.run()
    assert "going back to step 0 with 0.25 of the learning rate" in told[0]


def test_a_roll_back_that_does_not_help_ends_the_run(new_run, eager):
    training = new_run(on_nonfinite="rollback", max_nonfinite=1)
    spoil(training, lambda step: step >= 0)
    with pytest.raises(UserError, match="step 1: cycle_a nan not finite, for 1 steps") as caught:
        training.run()
    assert str(caught.value).endswith("start another run with a lower --learning-rate")
    assert training.state.rate_factor.numpy() == 1 / 32


def test_the_named_pictures_are_those_of_the_step(tiny_config, shards):
    """Each chart tells its number in blue, and is named after it."""
    config = tiny_config("demo", batch_size=2, load_size=16, flip=False).data
    for step in (0, 3, 7):
        named = batch_names(shards, config, 2, 5, step)
        pair = next(iter(training_pairs(shards, config, batch_size=2, seed=5, start_step=step)))
        for split, batch, found in zip(("trainA", "trainB"), pair, (named[:2], named[2:])):
            blue = np.rint((batch.numpy()[:, 0, 0, 2] + 1) * 127.5 / 10).astype(int)
            assert found == [f"{split}/{number}.png" for number in blue]
