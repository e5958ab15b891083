"""Each preset is its recipe, as written down here once more, and what may be changed of it."""

from __future__ import annotations

import dataclasses

import pytest

from cyclegan_tf.errors import UserError
from cyclegan_tf.presets import PRESETS, SUMMARIES, make_config, refuse_idle

PAPER = {
    "image_size": 256,
    "generator_filters": 64,
    "generator_downsamplings": 2,
    "generator_blocks": 0,
    "generator_padding": "reflect",
    "generator_affine": False,
    "generator_block": "add",
    "generator_upsampling": "transpose",
    "generator_skip": False,
    "generator_mask": False,
    "generator_squeeze_excite": False,
    "generator_dropout": 0.0,
    "generator_separable": False,
    "discriminator_filters": 64,
    "discriminator_kernel": 4,
    "discriminator_strided": 3,
    "discriminator_padding": "one",
    "discriminator_channels": 1,
    "discriminator_affine": False,
    "discriminator_spectral_norm": False,
    "discriminator_augment": "none",
    "gan_loss": "least_squares",
    "lambda_cycle": 10.0,
    "lambda_identity": 5.0,
    "gradient_penalty": 0.0,
    "gradient_penalty_at": "interpolates",
    "discriminator_weight": 0.5,
    "history_kind": "swap",
    "history_size": 50,
    "history_every": 3,
    "learning_rate": 2e-4,
    "discriminator_rate": 1.0,
    "beta_1": 0.5,
    "beta_2": 0.999,
    "decay_start": 0.5,
    "epochs": 200,
    "steps": 0,
    "batch_size": 1,
    "average": 0.0,
}
ANIME_SCENE = {
    **PAPER,
    "image_size": 128,
    "generator_filters": 32,
    "generator_blocks": 6,
    "discriminator_filters": 32,
    "epochs": 80,
}
SELFIE2ANIME_V1 = {
    **PAPER,
    "generator_padding": "zero",
    "generator_affine": True,
    "generator_block": "concatenate",
    "generator_blocks": 8,
    "generator_upsampling": "shuffle",
    "discriminator_kernel": 2,
    "discriminator_strided": 4,
    "discriminator_padding": "same",
    "discriminator_affine": True,
    "lambda_cycle": 5.0,
    "lambda_identity": 10.0,
    "history_kind": "contiguous",
    "history_size": 25,
    "decay_start": 1.0,
    "epochs": 75,
    "batch_size": 5,
}
SELFIE2ANIME_V2 = {
    **SELFIE2ANIME_V1,
    "generator_blocks": 9,
    "lambda_cycle": 10.0,
    "lambda_identity": 5.0,
    "gradient_penalty": 10.0,
    "history_kind": "uniform",
}
# What the two of 64 pixels have in common.
SMALL = {
    **PAPER,
    "image_size": 64,
    "generator_blocks": 6,
    "generator_downsamplings": 1,
    "generator_upsampling": "resize",
    "generator_skip": True,
    "discriminator_strided": 2,
    "lambda_cycle": 5.0,
    "lambda_identity": 0.0,
    "learning_rate": 3e-4,
}
RECIPES = {
    "paper": PAPER,
    "anime-scene": ANIME_SCENE,
    "anime-character": {
        **ANIME_SCENE,
        "generator_squeeze_excite": True,
        "discriminator_filters": 64,
        "epochs": 200,
    },
    "selfie2anime-v1": SELFIE2ANIME_V1,
    "selfie2anime-v2": SELFIE2ANIME_V2,
    "selfie2anime-v3": {**SELFIE2ANIME_V2, "gradient_penalty": 0.0},
    "face2anime": {
        **PAPER,
        "generator_affine": True,
        "generator_blocks": 6,
        "generator_dropout": 0.5,
        "discriminator_channels": 3,
        "discriminator_affine": True,
        "lambda_identity": 0.0,
        "history_size": 20,
        "decay_start": 1.0,
        "epochs": 50,
    },
    "demo": {
        **SMALL,
        "generator_filters": 16,
        "discriminator_filters": 20,
        "discriminator_rate": 0.5,
        "steps": 3600,
        "average": 0.998,
    },
    "fast": {
        **SMALL,
        "generator_filters": 32,
        "generator_upsampling": "bilinear",
        "discriminator_filters": 32,
        "gradient_penalty": 0.1,
        "gradient_penalty_at": "real",
        "history_size": 0,
        "steps": 20_000,
        "average": 0.999,
    },
    "mobile": {
        **PAPER,
        "generator_filters": 16,
        "generator_blocks": 6,
        "generator_upsampling": "resize",
        "generator_skip": True,
        "generator_separable": True,
        "average": 0.999,
    },
}


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_preset_is_its_recipe(name):
    flat = make_config(name).flat()
    assert {key: flat[key] for key in RECIPES[name]} == RECIPES[name]


def test_cut_is_its_recipe():
    """Park et al. 2020, section 4 and the authors' options for "CUT"."""
    config = make_config("cut")
    assert config.one_sided()
    assert config.run.epochs == 400
    assert dataclasses.astuple(config.contrast) == (1.0, 1.0, 256, 0.07)
    assert (config.losses.lambda_cycle, config.losses.lambda_identity) == (0.0, 0.0)
    assert (config.losses.gan_loss, config.history.size) == ("least_squares", 0)


def test_our_presets_are_there():
    assert {*RECIPES, "cut", "auto"} == set(PRESETS)


def test_a_preset_has_a_summary_and_knows_its_name(preset):
    assert make_config(preset).preset == preset
    assert len(SUMMARIES[preset]) > 8
    assert set(SUMMARIES) == set(PRESETS)


def test_an_override_wins_over_the_preset():
    assert make_config("anime-scene", epochs=3).run.epochs == 3


def test_fast_has_r1_and_can_do_without():
    assert make_config("fast").losses.gradient_penalty_at == "real"
    losses = make_config("fast", gradient_penalty=0.0).losses
    assert (losses.gradient_penalty, losses.gradient_penalty_at) == (0.0, "interpolates")


def test_an_unknown_preset_is_one_line_with_the_right_ones():
    with pytest.raises(UserError) as caught:
        make_config("papyrus")
    message = str(caught.value)
    assert message.startswith("--preset papyrus: must be one of")
    assert "\n" not in message
    assert all(name in message for name in PRESETS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"evaluate_features": "inceptionv3"},
            "--evaluate-features inceptionv3: does nothing without --evaluate-every",
        ),
        (
            {"evaluate_every": 500, "evaluate_feature_weights": "mine.h5"},
            "--evaluate-feature-weights mine.h5: does nothing without --evaluate-features",
        ),
        ({"identity_every": 4}, "--identity-every 4: does nothing without --lambda-identity"),
        ({"lambda_teacher": 3.0}, "--lambda-teacher 3.0: does nothing without --teacher"),
        ({"contrast_patches": 9}, "--contrast-patches 9: does nothing without --contrast-weight"),
        (
            {"history_kind": "uniform"},
            "--history-kind uniform: does nothing without --history-size",
        ),
        (
            {"history_size": 5, "history_every": 2},
            "--history-every 2: does nothing without --history-kind",
        ),
        (
            {"preprocess": "none", "load_size": 512},
            "--load-size 512: does nothing without --preprocess",
        ),
        (
            {"discriminator_affine": True, "discriminator_spectral_norm": True},
            "--discriminator-affine True: does nothing with --discriminator-spectral-norm, which "
            "stands in place of the norm",
        ),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(settings, message):
    config = make_config("fast", **settings)  # as a run that has begun may have it
    with pytest.raises(UserError) as caught:
        refuse_idle(config, settings)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("preset", "settings"),
    [
        ("fast", {"identity_every": 4, "lambda_identity": 2.5}),
        ("fast", {"evaluate_every": 500, "evaluate_features": "efficientnet-lite0"}),
        ("fast", {"identity_every": 1}),  # as it is anyway
        ("fast", {"evaluate_paired": True, "evaluate_images": 20}),  # for the scores at the end
        ("selfie2anime-v1", {"history_every": 2}),
    ],
)
def test_a_setting_with_what_it_needs_is_taken(preset, settings):
    refuse_idle(make_config(preset, **settings), settings)


def test_fast_has_its_penalty_where_it_was_found():
    def penalty(**settings):
        losses = make_config("fast", **settings).losses
        return losses.gradient_penalty, losses.gradient_penalty_at

    assert penalty() == penalty(image_size=48) == (0.1, "real")
    assert penalty(image_size=128) == penalty(gradient_penalty=0.0) == (0.0, "interpolates")
    assert penalty(image_size=128, gradient_penalty=0.01) == (0.01, "real")


@pytest.mark.parametrize("preset", ["fast", "auto"])
def test_fast_has_its_filter_where_it_was_found(preset):
    def upsampling(**settings):
        return make_config(preset, **settings).generator.upsampling

    assert upsampling() == upsampling(image_size=64) == "bilinear"
    assert upsampling(image_size=68) == upsampling(image_size=256) == "resize"
    assert upsampling(image_size=128, generator_upsampling="bilinear") == "bilinear"
