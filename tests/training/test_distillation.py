"""Imitating a teacher: the terms by hand, what is saved where, and going on without the teacher."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from cyclegan_tf.errors import UserError
from cyclegan_tf.models.networks import build_networks
from cyclegan_tf.training.checkpoints import load_generators, save_generators
from cyclegan_tf.training.distillation import Teacher, keep_teacher, load_teacher
from cyclegan_tf.training.loop import Training
from cyclegan_tf.training.run_directory import create_run_directory
from cyclegan_tf.training.state import TrainingState
from cyclegan_tf.training.step import TrainingStep
from tests.tiny import assert_same_state, interrupted_after, pack_demo, saved_state


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return pack_demo(tmp_path_factory.mktemp("distillation") / "shards")


@pytest.fixture(scope="module")
def teacher_run(tmp_path_factory, tiny_config):
    """A run of other networks than the student's."""
    run_dir = tmp_path_factory.mktemp("teachers") / "teacher"
    config = tiny_config(seed=7, generator_filters=3)
    create_run_directory(run_dir, config)
    ab, ba, *_ = build_networks(config)
    save_generators(run_dir, {"ab": widened(ab), "ba": widened(ba)})
    return run_dir


@pytest.fixture
def student(tiny_config, teacher_run):
    """A function: a student's config."""

    def make(**overrides):
        return tiny_config("mobile", **{"teacher": str(teacher_run), **overrides})

    return make


def widened(model):
    """The model with weights large enough for pictures with contrast."""
    model.set_weights([10 * weight for weight in model.get_weights()])
    return model


def gradients_and_terms(step, real_a, real_b):
    return step.strategy.run(step.generator_gradients, args=(real_a, real_b, 1.0))


def new_step(config, mirrored, teacher):
    strategy = mirrored()
    state = TrainingState(config, strategy, "float32")
    return TrainingStep(config, state, strategy, 100, teacher)


def test_the_terms_are_the_mean_differences(student, mirrored, pictures, tmp_path, eager):
    config = student(lambda_teacher=3.0, lambda_features=2.0)
    teacher = load_teacher(config, tmp_path)
    real_a, real_b = pictures(2), pictures(2, seed=1)
    step = new_step(config, mirrored, teacher)
    _, fake_a, fake_b, terms = gradients_and_terms(step, real_a, real_b)
    sides = {
        "ab": (real_a, fake_b, step.state.networks.discriminator_b),
        "ba": (real_b, fake_a, step.state.networks.discriminator_a),
    }
    for name, (source, fake, discriminator) in sides.items():
        goal = teacher.generators[name](source, training=False).numpy()
        assert np.abs(goal).mean() > 0.05
        mean = np.abs(np.array(fake) - goal).mean()
        assert float(terms[f"teacher_{name}"]) == pytest.approx(mean, rel=1e-4)
        assert float(terms[f"features_{name}"]) == pytest.approx(
            by_hand(discriminator, np.array(fake), goal), rel=1e-3
        )


def by_hand(discriminator, mine, right) -> float:
    """The mean over the hidden layers, each run one after the other."""
    differences = []
    for layer in discriminator.layers[1:]:
        mine, right = layer(mine), layer(right)
        if isinstance(layer, tf.keras.layers.LeakyReLU):
            differences.append(float(tf.reduce_mean(tf.abs(mine - right))))
    assert len(differences) == 3
    return float(np.mean(differences))


@pytest.mark.parametrize("weight", ["lambda_teacher", "lambda_features"])
def test_each_weight_counts(weight, student, mirrored, pictures, tmp_path, eager):
    none = {"lambda_teacher": 0.0, "lambda_features": 0.0}
    found = {}
    for value in (0.0, 1.0, 2.0):
        config = student(**{**none, weight: value})
        step = new_step(config, mirrored, load_teacher(config, tmp_path))
        gradients, *_ = gradients_and_terms(step, pictures(), pictures(seed=1))
        found[value] = np.concatenate([np.ravel(gradient) for gradient in gradients])
    plain = found[0.0]
    assert np.linalg.norm(found[1.0] - plain) > 0.01 * np.linalg.norm(plain)
    np.testing.assert_allclose(
        found[2.0] - plain, 2 * (found[1.0] - plain), atol=1e-3 * np.abs(found[2.0]).max()
    )


def test_without_a_teacher_nothing_changes(tiny_config, new_training, tmp_path):
    config = tiny_config("mobile")
    assert load_teacher(config, tmp_path) is None
    step = new_training(config)
    assert step.imitation is None
    assert not [name for name in step.metric_names() if name.startswith(("teacher", "features"))]


def test_a_teacher_with_one_direction(student, teacher_run, mirrored, pictures, tmp_path, eager):
    config = student()
    whole = load_teacher(config, tmp_path)
    half = Teacher(whole.config, {"ba": whole.generators["ba"]})
    keep_teacher(half, tmp_path)
    again = load_teacher(config, tmp_path)
    assert list(again.generators) == ["ba"]
    step = new_step(config, mirrored, again)
    terms = gradients_and_terms(step, pictures(), pictures(seed=1))[3]
    assert set(terms) == set(step.metric_names()) - {"discriminator_a", "discriminator_b"}
    assert "teacher_ba" in terms and "teacher_ab" not in terms


def test_a_run_goes_on_without_its_teacher(student, teacher_run, shards, mirrored, tmp_path):
    away = tmp_path / "away"
    shutil.copytree(teacher_run, away)
    config = student(teacher=str(away), steps=4, generator_blocks=1, steps_per_call=1)
    for name in ("straight", "stopped"):
        create_run_directory(tmp_path / name, config)
    assert Training(config, tmp_path / "straight", shards, mirrored(), "float32").run()

    stopped = Training(config, tmp_path / "stopped", shards, mirrored(), "float32")
    assert not interrupted_after(stopped, 2)
    shutil.rmtree(away)
    resumed = Training(config, tmp_path / "stopped", shards, mirrored(), "float32")
    assert resumed.state.steps_done() == 2
    assert resumed.run()
    assert_same_state(tmp_path / "stopped", tmp_path / "straight")
    assert not [name for name in saved_state(tmp_path / "stopped") if "teacher" in name]
    load_generators(tmp_path / "stopped", config)
    record = json.loads((tmp_path / "stopped" / "metrics.jsonl").read_text().splitlines()[-1])
    assert record["teacher_ab"] > 0 and record["features_ba"] > 0


@pytest.mark.parametrize("what", ["nothing", "no checkpoint", "damaged"])
def test_what_is_no_trained_run_is_refused(what, student, teacher_run, tiny_config, tmp_path):
    run_dir = tmp_path / "teacher"
    if what == "no checkpoint":
        create_run_directory(run_dir, tiny_config())
    if what == "damaged":
        shutil.copytree(teacher_run, run_dir)
        for path in (run_dir / "checkpoints").glob("*.data*"):
            path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(UserError, match=rf"--teacher {run_dir}: ") as error:
        load_teacher(student(teacher=str(run_dir)), tmp_path / "student")
    assert "\n" not in str(error.value)
