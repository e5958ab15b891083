"""The switches of a recipe that change the step: each off in `paper`, each with an effect."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from cyclegan_tf.presets import make_config
from cyclegan_tf.training.schedule import full_rate, identity_weight

SWITCHES = {
    "generator_mask": True,
    "discriminator_spectral_norm": True,
    "discriminator_augment": "color,translation,cutout",
    "identity_every": 3,
    "identity_decay": 0.5,
    "rate_scaling": "linear",
}


def steps(config, new_training, pairs, pictures, count: int):
    """A training after ``count`` steps, and the metrics of each."""
    step = new_training(config, total_steps=10)
    data = pairs(step, pictures(4), pictures(4, seed=1))
    metrics = [step.run(data, tf.constant(1)) for _ in range(count)]
    return step, [{name: float(value) for name, value in one.items()} for one in metrics]


@pytest.mark.parametrize(
    ("name", "off"),
    [
        ("generator_mask", False),
        ("discriminator_spectral_norm", False),
        ("discriminator_augment", "none"),
        ("identity_every", 1),
        ("identity_decay", 0.0),
        ("rate_scaling", "none"),
        ("average", 0.0),
        ("generator_upsampling", "transpose"),
    ],
)
def test_off_in_paper(name, off):
    value = make_config("paper").flat()[name]
    assert (value, type(value)) == (off, type(off))


@pytest.mark.parametrize("name", SWITCHES)
def test_each_switch_trains_and_changes_what_is_learnt(
    name, tiny_config, new_training, pairs, pictures
):
    batch = {"batch_size": 2}
    plain, _ = steps(tiny_config(**batch), new_training, pairs, pictures, 2)
    changed, metrics = steps(
        tiny_config(**batch, **{name: SWITCHES[name]}), new_training, pairs, pictures, 2
    )
    assert all(np.isfinite(value) for one in metrics for value in one.values())
    network = "discriminator" if name.startswith("discriminator") else "generator"
    one, other = (
        getattr(step.state, f"{network}_variables")()[0].numpy() for step in (plain, changed)
    )
    assert np.abs(one - other).max() > 1e-6


def test_identity_every_third_step_weighs_three_times_as_much(tiny_config):
    config = tiny_config(identity_every=3)
    weights = [float(identity_weight(config, tf.constant(step, tf.int64), 90)) for step in range(6)]
    assert weights == [15.0, 0.0, 0.0, 15.0, 0.0, 0.0]


def test_identity_decays_to_zero(tiny_config):
    config = tiny_config(identity_decay=0.5)
    weights = [
        float(identity_weight(config, tf.constant(step, tf.int64), 100)) for step in (0, 25, 50, 99)
    ]
    assert weights == pytest.approx([5.0, 2.5, 0.0, 0.0])


@pytest.mark.parametrize("recompute", [False, True])
def test_steps_without_identity_have_no_identity_loss(
    recompute, tiny_config, new_training, pairs, pictures
):
    config = tiny_config(identity_every=2, recompute=recompute)
    step, metrics = steps(config, new_training, pairs, pictures, 4)
    losses = [one["identity_a"] for one in metrics]
    assert [loss > 0 for loss in losses] == [True, False, True, False]
    assert step.run.experimental_get_tracing_count() == 1


def test_rates_grow_with_the_batch():
    rates = [
        full_rate(make_config("paper", batch_size=16, rate_scaling=kind))
        for kind in ("none", "sqrt", "linear")
    ]
    assert rates == pytest.approx([2e-4, 8e-4, 32e-4])


def test_generators_are_pushed_through_the_augmentation(
    tiny_config, new_training, pictures, monkeypatch
):
    """A discriminator that sees only black gives the generators no adversarial gradient."""
    from cyclegan_tf.training import step as module

    config = tiny_config(
        discriminator_augment="cutout", lambda_identity=0.0, lambda_cycle=0.0, history_size=0
    )
    step = new_training(config)
    monkeypatch.setattr(module, "augment", lambda images, policy, seed: 0.0 * images)
    gradients, fake_a, fake_b, _ = step.generator_gradients(pictures(1), pictures(1, seed=1), 1.0)
    assert all(float(tf.reduce_max(tf.abs(gradient))) == 0.0 for gradient in gradients)
    one, _ = step.discriminator_gradients(pictures(1), pictures(1, seed=1), fake_a, fake_b, 1.0)
    other, _ = step.discriminator_gradients(pictures(1, seed=2), pictures(1), fake_b, fake_a, 1.0)
    for gradient, same in zip(one, other):
        np.testing.assert_array_equal(gradient.numpy(), same.numpy())
