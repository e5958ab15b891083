"""Health: each measure by hand, and each complaint where it belongs and nowhere else."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from cyclegan_tf.config import flag
from cyclegan_tf.models.networks import Networks
from cyclegan_tf.presets import make_config
from cyclegan_tf.training.examiner import Examiner
from cyclegan_tf.training.health import (
    HealthMonitor,
    brightness_correlation,
    clipped_share,
    complaints,
    decision_measures,
    diversity,
)
from tests.tiny import pack_charts

TOTAL = 10_000
# What discriminator A measures when it cannot tell.
GUESSING = {"accuracy_real_a": 0.2, "accuracy_fake_a": 0.85, "margin_a": 0.01, "ranking_a": 0.51}
# For what looks at neither networks nor pictures.
NO_STATE = SimpleNamespace(networks=Networks(None, None, None, None))
NO_SHARDS = SimpleNamespace(has_truth=lambda config: False)


def good(step: int) -> dict:
    """What a run that goes well logs, with some noise."""
    wave = 0.02 * math.sin(step)
    record = {"step": step, "gradient_generators": 4.0 + wave, "gradient_discriminators": 1.0}
    for key in ("ab", "ba"):
        record.update({f"diversity_{key}": 0.8, f"brightness_{key}": 0.6, f"clipped_{key}": 0.0})
        record[f"generator_{key}"] = 0.4 + wave
    for domain in "ab":
        record.update({f"accuracy_real_{domain}": 0.85, f"accuracy_fake_{domain}": 0.8})
        record.update({f"margin_{domain}": 0.4, f"ranking_{domain}": 0.9})
        record[f"cycle_{domain}"] = 0.12 + wave / 4
    return record


def run(last: dict | None = None, count: int = 40) -> list[dict]:
    """A good run, with its last five records changed."""
    records = [good(step) for step in range(100, 100 * count + 1, 100)]
    for record in records[-5:]:
        record.update(last or {})
    return records


def checks(records: list[dict], total: int = TOTAL, **settings) -> list[str]:
    return [one.check for one in complaints(records, total, make_config("paper", **settings))]


def test_a_good_run_hears_nothing():
    for count in range(41):
        assert checks(run(count=count)) == []


def test_a_student_may_make_the_discriminators_guess():
    assert checks(run(GUESSING)) == ["discriminator_weak_a"]
    assert checks(run(GUESSING), teacher="runs/teacher") == []


def test_a_discriminator_may_guess_for_a_moment():
    guessing = {**good(4100), **GUESSING}
    assert checks([*run(), guessing]) == []
    assert checks([*run(), guessing, {**guessing, "step": 4200}]) == ["discriminator_weak_a"]
    assert checks([guessing]) == []


def test_a_small_margin_is_no_guess_where_real_pictures_are_still_ranked_above():
    """As with a gradient penalty, which makes all decisions alike, late in a good run."""
    assert checks(run({**GUESSING, "ranking_a": 0.63})) == []


@pytest.mark.parametrize(
    ("last", "check", "words"),
    [
        ({"diversity_ab": 0.2}, "diversity_ab", "Mode collapse A to B"),
        ({"diversity_ba": 0.0}, "diversity_ba", "Mode collapse B to A"),
        (
            {"accuracy_real_b": 1.0, "accuracy_fake_b": 0.995, "margin_b": 0.97},
            "discriminator_strong_b",
            "Discriminator B is too strong: it tells 100% of real",
        ),
        (
            GUESSING,
            "discriminator_weak_a",
            "Discriminator A is too weak: it tells 20% of real",
        ),
        (
            {"margin_b": 0.02, "margin_trained_b": 0.6, "accuracy_real_b": 0.3},
            "discriminator_by_heart_b",
            "Discriminator B knows its training pictures by heart: margin 0.60 on them, 0.02 on",
        ),
        ({"generator_ba": 0.001}, "generator_ba", "generator B to A has collapsed to 0.0010"),
        ({"brightness_ab": -0.6}, "brightness_ab", "Colours inverted A to B"),
        ({"clipped_ba": 0.21}, "clipped_ba", "Black or saturated patches B to A: 21%"),
        ({"cycle_a": 0.6}, "cycle_a", "cycle error of A is rising"),
        ({"gradient_generators": 80.0}, "gradient_high_generators", "257, usually 3.99"),
        ({"gradient_discriminators": 1e-7}, "gradient_low_discriminators", "nothing is learnt"),
    ],
)
def test_each_fault_is_named_alone(last, check, words):
    # Only the newest look at the gradients counts against the looks before.
    records = run() if check.startswith("gradient") else run(last)
    records[-1].update(last)
    (complaint,) = complaints(records, TOTAL, make_config("paper"))
    assert complaint.check == check
    assert words in complaint.text
    assert "Usually helps: " in complaint.text
    assert "\n" not in complaint.text


def looks_at(norm_at: Callable[[int], float], steps: int, every: int) -> list[dict]:
    """What is logged of gradients with such norms, by Adam's own recurrence in float32."""
    moment, records = np.float32(0.0), []
    for step in range(1, steps + 1):
        square = np.float32(norm_at(step) ** 2)
        moment += (square - moment) * np.float32(1.0 - 0.999)
        if step % every == 0:
            value = math.sqrt(float(moment) / (1.0 - 0.999**step))
            records.append({**good(step), "gradient_generators": float(f"{value:.7g}")})
    return records


@pytest.mark.parametrize("every", [100, 1000])
def test_a_gradient_that_dies_is_told_at_the_next_look_and_as_long_as_it_is_dead(every):
    usual = np.random.default_rng(0).lognormal(1.0, 0.5, 60_000)
    records = looks_at(lambda step: usual[step] if step <= 5000 else 0.0, 40_000, every)
    death = 5000 // every
    for count in (*range(1, 5), *range(death - 2, death + 30), len(records)):
        expected = ["gradient_low_generators"] if count > death else []
        assert checks(records[:count]) == expected, count


@pytest.mark.parametrize("height", [3e3, 1e6])
def test_a_single_spike_is_told_once(height):
    usual = np.random.default_rng(0).lognormal(1.0, 0.5, 60_000)
    records = looks_at(lambda step: usual[step] * (height if step == 5050 else 1), 9000, 100)
    found = [checks(records[:count]) for count in range(1, 91)]
    assert [number for number, names in enumerate(found) if names] == [50]
    assert found[50] == ["gradient_high_generators"]


@pytest.mark.parametrize(
    ("last", "flag"),
    [
        ({"diversity_ab": 0.2}, "--contrast-weight"),
        ({"brightness_ab": -0.6}, "--contrast-identity"),
        ({"clipped_ab": 0.21}, "--contrast-identity"),
    ],
)
def test_a_one_sided_training_is_told_flags_that_it_takes(last, flag):
    (complaint,) = complaints(run(last), TOTAL, make_config("cut"))
    assert flag in complaint.text
    assert "--lambda" not in complaint.text


@pytest.mark.parametrize(
    ("last", "advice", "followed"),
    [
        ({"diversity_ab": 0.2}, "--generator-skip", {"generator_skip": True}),
        ({"brightness_ab": -0.6}, "--lambda-identity 5", {"lambda_identity": 5.0}),
        (
            {"clipped_ab": 0.21},
            "--generator-upsampling bilinear",
            {"generator_upsampling": "bilinear"},
        ),
        (
            {"margin_b": 0.02, "margin_trained_b": 0.6},
            "--discriminator-augment color,translation,cutout",
            {"discriminator_augment": "color,translation,cutout"},
        ),
    ],
)
def test_nobody_is_told_what_they_do_already(last, advice, followed):
    records = run(last)
    settings = {"lambda_identity": 0.0}
    (before,) = complaints(records, TOTAL, make_config("paper", **settings))
    assert advice in before.text
    (after,) = complaints(records, TOTAL, make_config("paper", **{**settings, **followed}))
    assert advice not in after.text and "Usually helps: " in after.text


def test_flags_that_are_named_are_flags_of_train():
    config = make_config("paper", precision="bfloat16", lambda_identity=0.0)
    faults = [{"gradient_generators": 90.0, "diversity_ab": 0.2, "clipped_ab": 0.3, **GUESSING}]
    faults += [{"accuracy_real_b": 1.0, "accuracy_fake_b": 1.0, "margin_b": 0.97}]
    faults += [{"margin_b": 0.02, "margin_trained_b": 0.6, "generator_ab": 0.0, "cycle_a": 0.6}]
    texts = [one.text for last in faults for one in complaints(run(last), TOTAL, config)]
    named = set(re.findall(r"--[a-z0-9-]+", " ".join(texts)))
    assert {"--discriminator-rate", "--lambda-cycle", "--learning-rate"} <= named
    assert named <= {flag(name) for name in config.flat()}


@pytest.mark.parametrize(
    ("gan_loss", "fine", "collapsed"),
    [("least_squares", 0.2, 0.01), ("vanilla", 0.7, 0.01), ("hinge", 0.0, -1.2)],
)
def test_each_loss_has_its_own_collapse(gan_loss, fine, collapsed):
    records = run({"generator_ab": fine, "generator_ba": collapsed})
    assert checks(records, gan_loss=gan_loss) == ["generator_ba"]


@pytest.mark.parametrize("value", [-30.0, 0.0, 30.0])
def test_the_wasserstein_loss_has_no_collapse(value):
    found = checks(run({"generator_ab": value}), gan_loss="wasserstein", gradient_penalty=10.0)
    assert found == []


@pytest.mark.parametrize(
    ("kind", "loss", "found"),
    [
        ("least_squares", 0.01, ["generator_ba"]),
        ("vanilla", 0.01, ["generator_ba"]),
        ("hinge", 0.01, []),
        ("hinge", -1.2, ["generator_ba"]),
        ("wasserstein", -1.2, []),
    ],
)
def test_a_run_is_judged_by_the_loss_it_trains_with(kind, loss, found, tiny_config):
    config = tiny_config(gan_loss=kind, gradient_penalty=10.0)
    examiner = Examiner(config, NO_STATE, NO_SHARDS, TOTAL)
    records = run({"generator_ba": loss})
    assert [complaint.check for complaint in examiner.complaints(records)] == found


def test_a_value_that_was_not_finite_silences_nothing():
    records = run({"cycle_a": 0.6})
    records[0]["cycle_a"] = None
    assert checks(records) == ["cycle_a"]
    records = run({"generator_ab": 0.001})
    records[-2]["generator_ab"] = None
    assert checks(records) == ["generator_ab"]


def test_a_collapse_is_told_soon_in_a_long_run_too():
    records = run(count=5000)
    for record in records[-20:]:
        record["generator_ab"] = 0.001
    assert checks(records, total=1_000_000) == ["generator_ab"]


def test_the_very_beginning_is_not_judged():
    early = [{**good(step), "diversity_ab": 0.0} for step in (0, 100, 400)]
    assert checks(early) == []
    assert checks([*early, {**good(500), "diversity_ab": 0.0}]) == ["diversity_ab"]
    assert checks([{**good(1000), "diversity_ab": 0.0}], total=1_000_000) == ["diversity_ab"]
    assert checks([{**good(190), "diversity_ab": 0.0}], total=200) == []
    assert checks([{**good(200), "diversity_ab": 0.0}], total=200) == ["diversity_ab"]


def test_a_run_that_logs_its_losses_rarely_is_judged_by_its_pictures():
    look = {"step": 1000, "diversity_ab": 0.0, "brightness_ba": -0.9}
    assert checks([look]) == ["diversity_ab", "brightness_ba"]


def test_what_is_over_is_not_said_again():
    assert checks([*run({"brightness_ab": -0.6}), good(4100)]) == []


def test_a_cycle_error_that_falls_or_shakes_is_fine():
    records = [{**good(n), "cycle_a": 0.5 / (1 + n / 500)} for n in range(100, 5000, 100)]
    assert checks(records) == []
    records[-1]["cycle_a"] = 0.3  # once
    assert checks(records) == []


def test_missing_measures_are_no_fault():
    """The Wasserstein loss has no accuracy, and other programs' records have nothing."""
    records = run()
    for record in records:
        for name in [name for name in record if name.startswith(("accuracy", "margin", "ranking"))]:
            del record[name]
    assert checks([*records, {"step": 5000, "warning": "w"}]) == []
    assert checks([]) == []


# --- Measures ------------------------------------------------------------------------------------


def test_diversity_is_the_deviation_from_picture_to_picture(pictures):
    one = pictures(1, 32)
    assert diversity(np.repeat(one, 5, axis=0)) == pytest.approx(0.0, abs=1e-6)
    levels = np.array([-0.5, 0.1, 0.4], np.float32)[:, None, None, None]
    flat = np.ones((3, 32, 32, 3), np.float32) * levels
    assert diversity(flat) == pytest.approx(levels.std(ddof=1), rel=1e-5)


def test_brightness_correlation_of_a_negative_is_minus_one(pictures):
    images = pictures(4, 32)
    assert brightness_correlation(images, 0.5 * images + 0.1) == pytest.approx(1.0, abs=1e-5)
    assert brightness_correlation(images, -images) == pytest.approx(-1.0, abs=1e-5)
    assert abs(brightness_correlation(images, pictures(4, 32, seed=1))) < 0.2
    assert brightness_correlation(images, np.zeros_like(images)) == pytest.approx(0.0)


def test_clipped_patches_are_counted():
    images = np.zeros((2, 32, 32, 3), np.float32)
    assert clipped_share(images) == 0.0
    images[0, :4, :4] = -1.0  # one black patch
    images[0, 4:8, :8] = [1.0, -1.0, 0.96]  # two of a colour without any middle
    images[1, :4, :3] = 1.0  # not a whole patch
    assert clipped_share(images) == pytest.approx(3 / 128)


@pytest.mark.parametrize(
    ("kind", "sure"),
    [("least_squares", (1.0, 0.0)), ("vanilla", (40.0, -40.0)), ("hinge", (1, -1))],
)
def test_a_sure_discriminator_is_right_with_margin_one(kind, sure):
    real, fake = (np.full((2, 3, 3, 1), value) for value in sure)
    measured = decision_measures(kind, real, fake)
    right = {"accuracy_real": 1, "accuracy_fake": 1, "margin": pytest.approx(1), "ranking": 1}
    assert measured == right
    swapped = decision_measures(kind, fake, real)
    wrong = {"accuracy_real": 0, "accuracy_fake": 0, "margin": pytest.approx(-1), "ranking": 0}
    assert swapped == wrong


def test_the_ranking_is_the_share_of_pairs_and_has_no_scale():
    real, fake = np.array([[1.0, 2.0], [3.0, 3.0]]), np.array([0.0, 3.0, 2.0])
    pairs = [(one > other) + 0.5 * (one == other) for one in real.flat for other in fake.flat]
    saturated = decision_measures("vanilla", np.float32([30.0, 31.0]), np.float32([20.0, 21.0]))
    assert saturated["ranking"] == 1.0
    for scale in (1.0, 1e-3):
        found = decision_measures("least_squares", scale * real, scale * fake)["ranking"]
        assert found == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize("kind", ["least_squares", "vanilla", "hinge"])
def test_discriminators_are_measured_by_the_loss_they_train_with(kind, tiny_config):
    """A discriminator that returns what it is shown."""
    monitor = HealthMonitor(tiny_config(gan_loss=kind), NO_STATE, NO_SHARDS)
    real, fake, known = ([0.2, 0.7, 1.5], [-0.9, 0.3, -0.2], [0.8, 1.1, 2.0])
    monitor.trained = {"a": np.array(known)}
    found = monitor._decisions("a", tf.identity, np.array(real), np.array(fake))
    right = decision_measures(kind, np.array(real), np.array(fake))
    right["margin_trained"] = decision_measures(kind, np.array(known), np.array(fake))["margin"]
    assert found == pytest.approx({f"{name}_a": value for name, value in right.items()})


def test_the_wasserstein_loss_has_no_boundary_to_measure_by(tiny_config):
    config = tiny_config(gan_loss="wasserstein", gradient_penalty=10.0)
    monitor = HealthMonitor(config, NO_STATE, NO_SHARDS)
    assert monitor._decisions("a", tf.identity, np.ones(3), np.zeros(3)) == {}


def test_diversity_needs_pictures_to_compare(tmp_path, tiny_config, new_training):
    """Where a single picture is held out for tests, training pictures are looked at."""
    shards = pack_charts(tmp_path, trainA=9, trainB=3, testA=1, testB=2)
    step = new_training(tiny_config())
    monitor = HealthMonitor(step.config, step.state, shards)
    assert [len(pictures) for pictures in monitor.reals] == [9, 3]
    assert set(monitor.trained) == set()


def test_each_discriminator_judges_its_own_domain(tmp_path, tiny_config, new_training):
    shards = pack_charts(tmp_path, trainA=3, trainB=3, testA=9, testB=9)
    step = new_training(tiny_config())
    for model in step.state.networks:  # as new, they say much the same of every picture
        model.set_weights([20.0 * weight for weight in model.get_weights()])
    monitor, networks = HealthMonitor(step.config, step.state, shards), step.state.networks
    measured, (a, b) = monitor.measure(), monitor.reals
    for domain, real, fake, judge in (
        ("a", a, networks.generator_ba(b, training=False), networks.discriminator_a),
        ("b", b, networks.generator_ab(a, training=False), networks.discriminator_b),
    ):
        decisions = [judge(images, training=False).numpy() for images in (real, fake)]
        right = decision_measures("least_squares", *decisions)
        assert abs(right["margin"]) > 1e-3
        found = {name: measured[f"{name}_{domain}"] for name in right}
        trained = judge(monitor.trained[domain], training=False).numpy()
        known = decision_measures("least_squares", trained, decisions[1])["margin"]
        assert abs(known - right["margin"]) > 1e-3
        assert measured[f"margin_trained_{domain}"] == pytest.approx(known, rel=1e-4)
        assert found == pytest.approx(right, abs=1e-3)


def test_a_new_training_is_measured(tmp_path, tiny_config, new_training, pairs, pictures):
    shards = pack_charts(tmp_path, trainA=3, trainB=3, testA=9, testB=4)
    step = new_training(tiny_config(generator_skip=True))
    monitor = HealthMonitor(step.config, step.state, shards)
    assert len(monitor.reals[0]) == 9
    measured = monitor.measure()
    assert measured["gradient_generators"] == 0.0
    # A new generator with the skip connection gives back tanh of its input.
    assert measured["brightness_ab"] > 0.9
    # So its pictures differ as much as the charts of A do.
    ratio = diversity(np.tanh(monitor.reals[0])) / diversity(monitor.reals[1])
    assert measured["diversity_ab"] == pytest.approx(ratio, rel=0.2)
    assert all(math.isfinite(value) for value in measured.values())
    step.run(pairs(step, pictures(1), pictures(1, seed=1)), 1)
    gradients, *_ = step.generator_gradients(pictures(1), pictures(1, seed=1), 1.0)
    norm = math.sqrt(sum(float((g.numpy() ** 2).sum()) for g in gradients))
    # The one step's own norm, measured after a small change of the weights.
    assert monitor.measure()["gradient_generators"] == pytest.approx(norm, rel=0.2)
