"""One-sided training: what its step computes, and that a run of it is whole."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cyclegan_tf import evaluate, translate
from cyclegan_tf.errors import UserError
from cyclegan_tf.evaluation import features
from cyclegan_tf.exporting.saved_model import export_saved_models
from cyclegan_tf.models.layers import trainable_variables
from cyclegan_tf.models.networks import present
from cyclegan_tf.presets import make_config
from cyclegan_tf.training import losses
from cyclegan_tf.training.loop import Training
from cyclegan_tf.training.run_directory import create_run_directory
from tests.tiny import assert_same_state, interrupted_after, pack_demo, tiny_features

STEPS = 6


def layers_by_hand(generator, images: tf.Tensor) -> list[tf.Tensor]:
    """The pixels, and what the layers of the encoder make of them, one after the other."""
    features, x, block = [images], images, None
    for layer in generator.layers[1:]:
        if layer.name.endswith("_add"):
            x = layer([block, x])
        elif layer.name.startswith("block") and layer.name.endswith("_1_pad"):
            block, x = x, layer(x)
        elif layer.name.startswith("up"):
            break
        else:
            x = layer(x)
        if layer.name in ("down_1_relu", "down_2_relu", "block_1_add", "block_3_add"):
            features.append(x)
    return features


def contrast_by_hand(step, source: tf.Tensor, result: tf.Tensor) -> tf.Tensor:
    """With every patch of every layer."""
    generator, total = step.state.generators.ab, 0.0
    pairs = [layers_by_hand(generator, images) for images in (source, result)]
    points = [
        step.state.projector([tf.reshape(x, [x.shape[0], -1, x.shape[-1]]) for x in features])
        for features in pairs
    ]
    for keys, queries in zip(*points):
        total += losses.patch_contrast(queries, keys, step.config.contrast.temperature)
    return total / len(points[0])


@pytest.mark.parametrize(("identity", "kind"), [(0.5, "least_squares"), (0.0, "vanilla")])
def test_the_generator_gets_the_gradient_of_every_term_by_its_weight(
    identity, kind, tiny_config, new_training, pictures
):
    contrast = {"weight": 2.0, "identity": identity, "patches": 16**2}
    settings = {f"contrast_{name}": value for name, value in contrast.items()}
    step = new_training(tiny_config("cut", generator_blocks=4, gan_loss=kind, **settings))
    for model in present(step.state.networks).values():
        model.set_weights([10 * weight for weight in model.get_weights()])
    real_a, real_b = tf.constant(pictures(2)), tf.constant(pictures(2, seed=1))
    found, fake_a, fake_b, metrics = step.strategy.run(
        step.generator_gradients, args=(real_a, real_b, 1.0)
    )
    assert fake_a is None
    generator, projector = step.state.generators.ab, step.state.projector
    variables = [*trainable_variables(generator), *trainable_variables(projector)]
    with tf.GradientTape() as tape:
        made = generator(real_a, training=True)
        decision = step.state.networks.discriminator_b(made, training=True)
        terms = {
            "generator_ab": losses.generator_loss(kind, decision),
            "contrast_a": contrast_by_hand(step, real_a, made),
        }
        loss = terms["generator_ab"] + 2.0 * terms["contrast_a"]
        if identity:
            kept = generator(real_b, training=True)
            terms["contrast_b"] = contrast_by_hand(step, real_b, kept)
            loss += 2.0 * identity * terms["contrast_b"]
    np.testing.assert_allclose(fake_b, made, atol=1e-5)
    assert {name: float(value) for name, value in metrics.items()} == pytest.approx(
        {name: float(value) for name, value in terms.items()}, rel=1e-4
    )
    right = tape.gradient(loss, variables)
    assert len(found) == len(right)
    for mine, theirs in zip(found, right):
        assert np.linalg.norm(mine - theirs) <= 2e-3 * np.linalg.norm(theirs) + 1e-7


def test_other_patches_are_compared_in_each_step(tiny_config, new_training, pictures):
    step = new_training(tiny_config("cut", contrast_patches=4))
    batches = [tf.constant(pictures(1, seed=seed)) for seed in (0, 1)]
    seen = []
    for _ in range(2):
        *_, metrics = step.strategy.run(step.generator_gradients, args=(*batches, 1.0))
        seen.append(float(metrics["contrast_a"]))
        step.state.step.assign_add(1)
    assert seen[0] != seen[1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"lambda_cycle": 10.0},
        {"lambda_identity": 5.0},
        {"teacher": "runs/other"},
        {"recompute": True},
    ],
)
def test_what_needs_a_way_back_is_refused(wrong):
    name = "--" + next(iter(wrong)).replace("_", "-")
    with pytest.raises(UserError, match=f"^{name} .*: must be .*--contrast-weight 1 trains A to B"):
        make_config("cut", **wrong)


@pytest.fixture(scope="module")
def new_run(tmp_path_factory, tiny_config, mirrored):
    """A function: a one-sided Training in a folder, new or gone on with."""
    shards = pack_demo(tmp_path_factory.mktemp("data") / "shards", test=4)

    def make(run_dir, **settings) -> Training:
        due = {"log_every": 2, "sample_every": 3, "checkpoint_every": 2, "steps": STEPS}
        config = tiny_config(
            "cut", **due, average=0.9, evaluate_every=3, data=str(shards.folder), **settings
        )
        create_run_directory(run_dir, config)
        return Training(config, run_dir, shards, mirrored(1), "float32")

    return make


@pytest.fixture(scope="module")
def finished(tmp_path_factory, new_run):
    run_dir = tmp_path_factory.mktemp("runs") / "finished"
    assert new_run(run_dir).run()
    return run_dir


def test_a_run_logs_looks_and_scores_one_way(finished):
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    names = {name for record in records for name in record}
    assert {"generator_ab", "contrast_a", "contrast_b", "discriminator_b"} <= names
    assert {"diversity_ab", "margin_b", "mae_ab", "identity_error_ab"} <= names
    assert not [name for name in names if name.endswith("_ba") or name.startswith("cycle")]
    assert sorted(path.name for path in (finished / "samples").glob("*.png")) == [
        f"step-{step:07d}-ab.png" for step in (0, 3, STEPS)
    ]
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "real B" in page and "reconstructed" not in page


def test_it_goes_on_exactly_where_it_stopped(tmp_path, new_run, finished):
    run_dir = tmp_path / "run"
    stopped = new_run(run_dir, steps_per_call=1)
    assert not interrupted_after(stopped, 3)
    assert new_run(run_dir, steps_per_call=1).run()
    assert_same_state(run_dir, finished)


def test_it_is_exported_evaluated_and_translated_one_way(finished, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(features, "load_feature_network", tiny_features)
    assert [path.parent.name for path in export_saved_models(finished, tmp_path / "models")] == [
        "ab"
    ]
    scores = tmp_path / "scores.json"
    assert evaluate.main(["--run-dir", str(finished), "--output", str(scores)]) == 0
    assert set(json.loads(scores.read_text())["scores"]) == {"ab"}
    assert "B to A" not in capsys.readouterr().out
    Image.new("RGB", (20, 12)).save(tmp_path / "photo.png")
    arguments = [str(tmp_path / "photo.png"), "--run-dir", str(finished)]
    arguments += ["--output", str(tmp_path / "out")]
    assert translate.main(arguments) == 0
    assert [path.name for path in (tmp_path / "out").glob("*.png")] == ["photo.png"]
    with pytest.raises(UserError, match=r"--direction ba: .* holds only ab"):
        translate.main([*arguments, "--overwrite", "--direction", "ba"])
