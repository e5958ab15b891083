"""One named recipe per published system, and our own.

Each preset is the set of settings in which it differs from the defaults of ``config.py``, which are
those of the paper (Zhu et al. 2017, "Unpaired Image-to-Image Translation using Cycle-Consistent
Adversarial Networks", section 4 and appendix 7, with the authors' PyTorch code where it is silent).
The two of anime scenes and characters, the three of selfie2anime and face2anime come from reports
that are known here by their settings alone, not by their titles.
"""

from __future__ import annotations

from typing import Any

from cyclegan_tf.config import Config, flag
from cyclegan_tf.errors import UserError

_ANIME_SCENE = {
    "image_size": 128,
    "generator_filters": 32,
    "generator_blocks": 6,
    "discriminator_filters": 32,
    "epochs": 80,
}

_SELFIE2ANIME_V1 = {
    "generator_padding": "zero",
    "generator_affine": True,
    "discriminator_affine": True,
    "generator_block": "concatenate",
    "generator_blocks": 8,
    "generator_upsampling": "shuffle",
    "discriminator_kernel": 2,
    "discriminator_strided": 4,
    "discriminator_padding": "same",
    "lambda_cycle": 5.0,
    "lambda_identity": 10.0,
    "history_kind": "contiguous",
    "history_size": 25,
    "batch_size": 5,
    "epochs": 75,
    "decay_start": 1.0,
}

_SELFIE2ANIME_V2 = {
    **_SELFIE2ANIME_V1,
    "generator_blocks": 9,
    "lambda_cycle": 10.0,
    "lambda_identity": 5.0,
    "gradient_penalty": 10.0,
    "history_kind": "uniform",
}

_FACE2ANIME = {
    "generator_affine": True,
    "discriminator_affine": True,
    "generator_blocks": 6,
    "generator_dropout": 0.5,
    "discriminator_channels": 3,
    "lambda_identity": 0.0,
    "history_size": 20,
    "epochs": 50,
    "decay_start": 1.0,
}

_DEMO = {
    "image_size": 64,
    "generator_filters": 16,
    "generator_downsamplings": 1,
    "generator_blocks": 6,
    "generator_upsampling": "resize",
    "generator_skip": True,
    "discriminator_filters": 20,
    "discriminator_strided": 2,
    "lambda_cycle": 5.0,
    "lambda_identity": 0.0,
    "learning_rate": 3e-4,
    "discriminator_rate": 0.5,
    "steps": 3600,
    "sample_every": 600,
    "evaluate_every": 600,
    "average": 0.998,
}

_FAST = {
    "image_size": 64,
    "generator_filters": 32,
    "generator_downsamplings": 1,
    "generator_blocks": 6,
    "generator_upsampling": "bilinear",
    "generator_skip": True,
    "discriminator_filters": 32,
    "discriminator_strided": 2,
    "lambda_cycle": 5.0,
    "lambda_identity": 0.0,
    "learning_rate": 3e-4,
    "gradient_penalty": 0.1,
    "gradient_penalty_at": "real",
    "history_size": 0,
    "steps": 20_000,
    "average": 0.999,
}

# The paper's weights, both 1 (its section 4); the authors' code takes half of their sum.
_CUT = {
    "epochs": 400,
    "lambda_cycle": 0.0,
    "lambda_identity": 0.0,
    "contrast_weight": 1.0,
    "history_size": 0,
}

_MOBILE = {
    "generator_filters": 16,
    "generator_blocks": 6,
    "generator_upsampling": "resize",
    "generator_skip": True,
    "generator_separable": True,
    "average": 0.999,
}

PRESETS: dict[str, dict[str, Any]] = {
    "demo": _DEMO,
    "paper": {},
    "anime-scene": _ANIME_SCENE,
    "anime-character": {
        **_ANIME_SCENE,
        "generator_squeeze_excite": True,
        "discriminator_filters": 64,
        "epochs": 200,
    },
    "selfie2anime-v1": _SELFIE2ANIME_V1,
    "selfie2anime-v2": _SELFIE2ANIME_V2,
    "selfie2anime-v3": {**_SELFIE2ANIME_V2, "gradient_penalty": 0.0},
    "face2anime": _FACE2ANIME,
    "cut": _CUT,
    "fast": _FAST,
    "mobile": _MOBILE,
    "auto": _FAST,  # and what cyclegan_tf.automatic picks
}

# Where the gradient penalty and the bilinear filter cost more than they give (docs/results.md).
_LARGER = {"gradient_penalty": 0.0, "generator_upsampling": "resize"}

# What pictures of more than so many pixels take. Above 128, which was not measured, `auto`'s
# downsamplings, patches, rate and history are the paper's.
ABOVE: dict[str, dict[int, dict[str, Any]]] = {
    "fast": {64: _LARGER},
    "auto": {
        64: _LARGER,
        128: {
            "generator_downsamplings": 2,
            "discriminator_strided": 3,
            "learning_rate": 2e-4,
            "history_size": 50,
        },
    },
}

# What `auto` picks for the pictures and the machine.
PICKED = ("image_size", "generator_filters", "discriminator_filters", "batch_size", "epochs")

SUMMARIES: dict[str, str] = {
    "demo": "the built-in portraits at 64 pixels, minutes on two CPU cores",
    "paper": "Zhu et al. 2017",
    "anime-scene": "32 channels, 6 blocks, 128 pixels",
    "anime-character": "anime-scene with squeeze-and-excitation and a wider discriminator",
    "selfie2anime-v1": "concatenating blocks, pixel shuffle, batches of 5",
    "selfie2anime-v2": "v1 with 9 blocks and a gradient penalty",
    "selfie2anime-v3": "v2 without the penalty",
    "face2anime": "6 blocks with dropout, a 3-channel decision, no identity loss",
    "cut": "Park et al. 2020: A to B alone, by patch-wise contrast, with half of the networks",
    "fast": "small machines: 64 pixels, half an hour on two CPU cores with bfloat16",
    "mobile": "small generators for phones",
    "auto": "fast, with size, channels and epochs picked from the pictures and the machine; above "
    "128 pixels the paper's downsamplings, patches, rate and history",
}


def make_config(preset: str, **overrides: Any) -> Config:
    """The settings of a preset, with some changed by flat name.

    Raises:
        UserError: for an unknown preset or setting, or a value that its checks refuse.
    """
    if preset not in PRESETS:
        raise UserError(f"--preset {preset}: must be one of {', '.join(PRESETS)}")
    settings = dict(PRESETS[preset])
    if overrides.get("steps") and "epochs" in overrides:
        raise UserError(
            f"--epochs {overrides['epochs']}: not with --steps {overrides['steps']}; give one"
        )
    if "epochs" in overrides:
        settings.pop("steps", None)  # A preset that counts steps must not hide the epochs.
    for side, changed in ABOVE.get(preset, {}).items():
        if overrides.get("image_size", 0) > side:
            settings |= changed
    if overrides.get("gradient_penalty", settings.get("gradient_penalty")) == 0:
        settings.pop("gradient_penalty_at", None)  # Nothing is left that could look anywhere.
    return Config(preset=preset).replace(**{**settings, **overrides})


# What a setting is needed for: these do nothing without it.
IDLE = {
    "evaluate_every": ("evaluate_features", "evaluate_feature_weights"),
    "evaluate_features": ("evaluate_feature_weights",),
    "lambda_identity": ("identity_every", "identity_decay"),
    "teacher": ("lambda_teacher", "lambda_features"),
    "history_size": ("history_kind", "history_every"),
    "history_kind": ("history_every",),
    "preprocess": ("load_size",),
    "contrast_weight": ("contrast_identity", "contrast_patches", "contrast_temperature"),
}


def refuse_idle(config: Config, given: dict[str, Any]) -> None:
    """Refuses what was given and would do nothing; only for a new run, as others must go on.

    Args:
        config: all settings.
        given: those that were asked for, by flat name.

    Raises:
        UserError: for a setting that was given and would do nothing.
    """
    settings, defaults = config.flat(), Config().flat()
    for needed, idle in IDLE.items():
        is_off = settings[needed] in (0, "", "none", "swap")
        for name in idle:
            if name in given and given[name] != defaults[name] and is_off:
                raise UserError(f"{flag(name)} {given[name]}: does nothing without {flag(needed)}")
    if given.get("discriminator_affine") and config.discriminator.spectral_norm:
        raise UserError(
            "--discriminator-affine True: does nothing with --discriminator-spectral-norm, which "
            "stands in place of the norm"
        )
