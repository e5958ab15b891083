"""The loop: what it writes when, how it stops, and that it goes on exactly where it stopped."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cyclegan_tf.cluster import Cluster
from cyclegan_tf.config import DataConfig
from cyclegan_tf.errors import UserError
from cyclegan_tf.models.networks import Generators
from cyclegan_tf.reporting.metrics import HEALTH_MEASURE
from cyclegan_tf.training.checkpoints import Checkpoints, best_step
from cyclegan_tf.training.examiner import Examiner
from cyclegan_tf.training.health import Complaint
from cyclegan_tf.training.loop import Means, Training, stop_signals
from cyclegan_tf.training.run_directory import create_run_directory
from cyclegan_tf.training.sampler import Sampler, fixed_pictures, shown_split
from tests.tiny import assert_same_state, interrupted_after, pack_charts, pack_demo

STEPS = 8


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return pack_demo(tmp_path_factory.mktemp("data") / "shards")


@pytest.fixture(scope="module")
def new_run(tiny_config, mirrored, shards):
    """A function: a Training of eight steps in a folder, new or gone on with."""

    def make(run_dir: Path, **settings) -> Training:
        due = {"log_every": 2, "sample_every": 4, "checkpoint_every": 3, "keep_checkpoints": 2}
        config = tiny_config("demo", steps=STEPS, **{**due, **settings})
        create_run_directory(run_dir, config)
        return Training(config, run_dir, shards, mirrored(1), "float32")

    return make


@pytest.fixture(scope="module")
def finished(tmp_path_factory, new_run) -> Training:
    """A run that was never interrupted."""
    training = new_run(tmp_path_factory.mktemp("runs") / "finished")
    assert not training.finished()
    assert training.run()
    return training


def logged(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_what_the_readme_promises(finished):
    assert {path.name for path in finished.run_dir.iterdir()} == {
        "config.json",
        "checkpoints",
        "metrics.jsonl",
        "report.html",
        "samples",
        "tensorboard",
    }
    assert "</html>" in (finished.run_dir / "report.html").read_text(encoding="utf-8")
    assert list((finished.run_dir / "tensorboard").glob("events.out.tfevents.*"))


def test_the_identity_error_is_that_of_the_steps_that_take_it(new_run, tmp_path):
    frozen = {"learning_rate": 0.0, "lambda_identity": 1.0, "log_every": 4}
    often, rarely, ending = (
        logged(training.run_dir)
        for name, settings in (
            ("often", {}),
            ("rarely", {"identity_every": 2}),
            ("ending", {"identity_decay": 0.5}),
        )
        for training in [new_run(tmp_path / name, **frozen, **settings)]
        if training.run()
    )
    for name in ("identity_a", "identity_b"):
        assert rarely[0][name] == pytest.approx(often[0][name], rel=0.3)
        assert ending[0][name] == pytest.approx(often[0][name], rel=1e-5)
        assert name not in ending[1]  # No step of its second half has taken it.


def test_metrics_are_logged_at_the_right_steps(finished):
    records = logged(finished.run_dir)
    assert [record["step"] for record in records] == [2, 4, 6, 8]
    assert [record["epoch"] for record in records] == [0.5, 1.0, 1.5, 2.0]
    losses = {"generator_ab", "generator_ba", "cycle_a", "cycle_b"}
    losses |= {"discriminator_a", "discriminator_b"}
    for record in records:
        assert losses <= set(record)
        assert all(math.isfinite(record[name]) and record[name] > 0 for name in losses)
        assert record["images_per_second"] > 0
    rates = [record["learning_rate"] for record in records]
    full = finished.config.optimizer.learning_rate
    assert rates == pytest.approx([full, full, full / 2, 0.0])


def test_samples_show_the_same_test_pictures_at_the_right_steps(finished, shards):
    folder = finished.run_dir / "samples"
    for direction in ("ab", "ba"):
        paths = sorted(folder.glob(f"*-{direction}.png"))
        assert [path.name for path in paths] == [
            f"step-{step:07d}-{direction}.png" for step in (0, 4, STEPS)
        ]
        grids = [np.asarray(Image.open(path)) for path in paths]
        third = grids[0].shape[1] // 3
        for grid in grids[1:]:
            np.testing.assert_array_equal(grid[:, :third], grids[0][:, :third])
        assert (grids[-1][:, third:] != grids[0][:, third:]).any()
    np.testing.assert_array_equal(
        finished.sampler.real_a, fixed_pictures(shards, "testA", finished.config.data)
    )


def test_each_sample_is_what_its_name_says(shards, tiny_config):
    """There, and there and back, by the generator of each direction."""

    def add(images, training):
        return images + 0.125

    def halve(images, training):
        return images / 2

    sampler = Sampler(shards, Generators(add, halve), tiny_config().data)
    a, b = sampler.real_a, sampler.real_b
    shown = sampler._translate(tf.constant(a), tf.constant(b))
    expected = {
        **{"real_a": a, "fake_b": a + 0.125, "cycled_a": (a + 0.125) / 2},
        **{"real_b": b, "fake_a": b / 2, "cycled_b": b / 2 + 0.125},
    }
    assert shown.keys() == expected.keys()
    for name, pictures in expected.items():
        np.testing.assert_array_equal(shown[name], pictures, err_msg=name)


def test_samples_are_of_the_averages(new_run, tmp_path):
    training = new_run(tmp_path / "run", average=0.9)
    real = tf.constant(training.sampler.real_a), tf.constant(training.sampler.real_b)

    def shown_without(variables: list[tf.Variable]) -> np.ndarray:
        for weight in variables:
            weight.assign(0.0 * weight)
        return training.sampler._translate(*real)["fake_a"].numpy()

    before = shown_without([])
    np.testing.assert_array_equal(shown_without(training.state.generator_variables()), before)
    assert (shown_without(training.state.average_variables()) != before).any()


def test_the_newest_checkpoints_are_kept(finished):
    folder = finished.run_dir / "checkpoints"
    assert sorted(path.stem for path in folder.glob("step-*.index")) == ["step-6", f"step-{STEPS}"]
    assert tf.train.latest_checkpoint(str(folder)) == str(folder / f"step-{STEPS}")


def test_the_graphs_are_traced_once(finished):
    assert finished.step.run.experimental_get_tracing_count() == 1
    assert finished.sampler._translate.experimental_get_tracing_count() == 1


def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path, new_run, finished):
    """And so it does not matter how many steps run in one call."""
    run_dir = tmp_path / "run"
    interrupted = new_run(run_dir, steps_per_call=1)
    assert not interrupted_after(interrupted, 5)
    assert interrupted.interrupted
    assert tf.train.latest_checkpoint(str(run_dir / "checkpoints")).endswith("step-5")

    resumed = new_run(run_dir, steps_per_call=1)
    assert resumed.state.steps_done() == 5
    assert resumed.run()
    assert not resumed.interrupted
    assert_same_state(run_dir, finished.run_dir)
    records, whole = logged(run_dir), logged(finished.run_dir)
    assert [record["step"] for record in records] == [2, 4, 6, 8]
    for name in ("cycle_a", "discriminator_b"):
        found, right = ([one[name] for one in rows] for rows in (records, whole))
        del found[2], right[2]  # The third line holds only the steps since the interruption.
        assert found == pytest.approx(right, rel=1e-6)


def test_a_finished_run_is_found_finished(finished, new_run):
    assert new_run(finished.run_dir).finished()


def test_fewer_pictures_than_workers_are_refused(tmp_path, monkeypatch, new_run):
    five = SimpleNamespace(from_environment=lambda: Cluster(workers=5))
    monkeypatch.setattr("cyclegan_tf.training.loop.Cluster", five)
    told = r"--data demo: trainA has 4 pictures, fewer than there are workers \(5\); start fewer"
    with pytest.raises(UserError, match=told):
        new_run(tmp_path / "run")


def test_a_worker_that_found_another_step_is_refused(tmp_path, monkeypatch, new_run):
    """Zero plus another worker's three; the settings' sum stays as it is."""
    monkeypatch.setattr(Training, "_over_workers", lambda _, value: value or 3.0)
    with pytest.raises(UserError, match="run: worker 0 found step 0 there, another worker another"):
        new_run(tmp_path / "run")


@pytest.mark.parametrize("differs", [False, True])
def test_workers_must_start_from_equal_networks(tmp_path, monkeypatch, new_run, differs):
    told = []

    def over_workers(_, value):
        told.append(value)
        return value + (differs and len(told) == 3)

    monkeypatch.setattr(Training, "_over_workers", over_workers)
    two = SimpleNamespace(from_environment=lambda: Cluster(workers=2))
    monkeypatch.setattr("cyclegan_tf.training.loop.Cluster", two)
    if differs:
        with pytest.raises(UserError, match="worker 0: another worker starts from other networks"):
            new_run(tmp_path / "run")
    else:
        new_run(tmp_path / "run")
        new_run(tmp_path / "other", seed=1)
        _, step, networks = zip(told[:3], told[3:])
        assert step == (0.0, 0.0)
        assert networks[0] != networks[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_is_noted_and_the_handlers_come_back(number):
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with stop_signals() as received:
        signal.raise_signal(number)
        assert received == [number]
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before


TWICE = """
import os, signal, threading
import tensorflow as tf
from cyclegan_tf.training.loop import stop_signals

@tf.function
def for_hours(matrix):
    return tf.while_loop(lambda _: True, lambda matrix: [tf.matmul(matrix, matrix)], [matrix])

with stop_signals():
    for seconds, name in ((1.0, "{first}"), (1.5, "SIGINT")):
        threading.Timer(seconds, os.kill, (os.getpid(), signal.Signals[name])).start()
    for_hours(tf.ones([1000, 1000]))
"""


@pytest.mark.parametrize("first", ["SIGINT", "SIGTERM"])
def test_a_second_ctrl_c_leaves_at_once(first):
    """Even from a call of TensorFlow that would take hours."""
    code = TWICE.format(first=first)
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 130
    assert result.stderr.endswith("the same command goes on from the last checkpoint\n")


def test_means_weigh_calls_by_their_steps():
    means = Means()
    means.add(1, 1.0, {"cycle_a": 5.0})
    means.add(3, 1.0, {"cycle_a": 1.0})
    assert means.take() == {"cycle_a": 2.0}
    assert means.steps_per_second == 2.0
    means.add(2, 0.5, {"cycle_a": 7.0})
    assert means.take() == {"cycle_a": 7.0}
    assert means.steps_per_second == 4.0


@pytest.mark.parametrize(("test_a", "test_b", "shown"), [(3, 2, 2), (1, 4, 1), (8, 9, 6)])
def test_both_directions_show_as_many_pictures(tmp_path, test_a, test_b, shown):
    shards = pack_charts(tmp_path, trainA=2, trainB=2, testA=test_a, testB=test_b)
    sampler = Sampler(shards, None, DataConfig(image_size=16))
    assert sampler.real_a.shape == sampler.real_b.shape == (shown, 16, 16, 3)


def test_training_pictures_are_shown_where_there_are_no_test_pictures(shards):
    splits = {split: shards.manifest.splits[split] for split in ("trainA", "trainB")}
    manifest = type(shards.manifest)(**{**vars(shards.manifest), "splits": splits})
    without = type(shards)(shards.folder, manifest)
    assert shown_split(shards, "B") == "testB"
    assert shown_split(without, "B") == "trainB"
    assert len(Sampler(without, None, DataConfig(image_size=16)).real_b) == shards.manifest.count(
        "trainB"
    )


def test_the_best_checkpoint_is_that_of_the_lowest_error(tmp_path, monkeypatch, new_run):
    errors = iter([30.0, 20.0, 25.0, 22.0])  # after 2, 4, 6 and 8 steps
    monkeypatch.setattr(
        Examiner, "scores", lambda self: dict.fromkeys(("mae_ab", "mae_ba"), next(errors))
    )
    training = new_run(tmp_path / "run", evaluate_every=2)
    assert training.run()
    folder = tmp_path / "run" / "checkpoints"
    assert best_step(folder) == 4
    assert tf.train.latest_checkpoint(str(folder)).endswith(f"step-{STEPS}")
    scored = [record["mae_ab"] for record in logged(tmp_path / "run") if "mae_ab" in record]
    assert scored == [30.0, 20.0, 25.0, 22.0]


@pytest.mark.parametrize("best", [4, STEPS])
def test_a_best_checkpoint_that_a_kill_left_unmarked_is_marked(
    best, tmp_path, monkeypatch, new_run
):
    class Killed(BaseException):
        pass

    def kill(self, step):
        if step == best:
            raise Killed
        mark(self, step)

    errors = iter([30.0, 20.0, 25.0, 22.0] if best == 4 else [30.0, 31.0, 32.0, 20.0])
    mark = Checkpoints.mark_best
    monkeypatch.setattr(
        Examiner, "scores", lambda self: dict.fromkeys(("mae_ab", "mae_ba"), next(errors))
    )
    monkeypatch.setattr(Checkpoints, "mark_best", kill)
    with pytest.raises(Killed):
        new_run(tmp_path / "run", evaluate_every=2).run()
    monkeypatch.setattr(Checkpoints, "mark_best", mark)
    folder = tmp_path / "run" / "checkpoints"
    assert best_step(folder) == 2
    again = new_run(tmp_path / "run", evaluate_every=2)
    assert best_step(folder) == best
    assert again.finished() or again.run()
    assert best_step(folder) == best


@pytest.mark.parametrize("evaluate_every", [0, 2])
def test_complaints_go_to_the_screen_the_log_and_the_report(
    evaluate_every, tmp_path, monkeypatch, capsys, new_run
):
    inverted = Complaint("brightness_ab", "Colours inverted A to B. Usually helps: a test.")
    monkeypatch.setattr(Examiner, "complaints", lambda self, records: [inverted])
    assert new_run(tmp_path / "run", evaluate_every=evaluate_every).run()
    looks = [4, 8] if not evaluate_every else [2, 4, 6, 8]  # with samples and with evaluations
    measured = [record["step"] for record in logged(tmp_path / "run") if HEALTH_MEASURE in record]
    assert measured == looks
    warned = [record for record in logged(tmp_path / "run") if "warning" in record]
    assert [(record["step"], record["check"]) for record in warned] == [
        (step, "brightness_ab") for step in looks
    ]
    assert "step 8: Colours inverted A to B." in capsys.readouterr().err
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert f"Steps {looks[0]} to 8: Colours inverted A to B." in report
