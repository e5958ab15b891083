"""The flags: one per setting, explained, and what becomes of their values."""

from __future__ import annotations

import re

import pytest

from cyclegan_tf.config import Config, all_settings, flag
from cyclegan_tf.errors import UserError
from cyclegan_tf.flags import Parser, add_setting_flags, config_from_flags
from cyclegan_tf.presets import IDLE, PRESETS, make_config

SETTINGS = {flat: field for _, flat, field in all_settings()}
NUMBERS = {"discriminator_kernel": 2, "discriminator_strided": 2, "load_size": 300, "replicas": 1}


@pytest.fixture(scope="module")
def parser() -> Parser:
    parser = Parser(prog="train")
    add_setting_flags(parser, "paper")
    return parser


@pytest.fixture(scope="module")
def config_of(parser):
    """A function: the settings that a command line stands for."""
    return lambda *arguments: config_from_flags(parser.parse_args([*map(str, arguments)]))


def another(flat: str):
    """A value of a setting that is allowed and not the default."""
    field = SETTINGS[flat]
    if flat in NUMBERS:
        return NUMBERS[flat]
    if field.metadata["choices"]:
        return next(one for one in field.metadata["choices"] if one != field.default)
    if isinstance(field.default, bool):
        return not field.default
    if isinstance(field.default, str):
        return "elsewhere"
    if isinstance(field.default, float):
        return field.default / 2 or 0.25
    high = field.metadata["high"]
    return field.default + 8 if high is None or field.default + 8 <= high else field.default - 1


# What a setting's other value asks for beside it.
NEEDED = {
    "gan_loss": {"gradient_penalty": 1.0},
    "gradient_penalty_at": {"gradient_penalty": 1.0},
    "contrast_weight": {"lambda_cycle": 0.0, "lambda_identity": 0.0},
}
for needed, its_value in {
    "evaluate_every": {"evaluate_every": 5},
    "evaluate_features": {"evaluate_every": 5, "evaluate_features": "inceptionv3"},
    "teacher": {"teacher": "a run"},
    "contrast_weight": {"contrast_weight": 1.0, **NEEDED["contrast_weight"]},
}.items():
    NEEDED.update(dict.fromkeys(IDLE[needed], its_value))


@pytest.mark.parametrize("flat", SETTINGS)
def test_every_setting_has_a_flag_that_changes_it_and_nothing_else(config_of, flat):
    value = another(flat)
    more = NEEDED.get(flat, {})
    words = [word for name in more for word in (flag(name), more[name])]
    config = config_of(flag(flat), value, *words)
    assert config == Config().replace(**{flat: value}, **more)
    assert config != Config()


def explanation(parser: Parser, name: str) -> str:
    """What --help says of a flag, up to the end of its defaults."""
    text = " ".join(parser.format_help().split())
    start = text.rindex(f" {name} ")
    explained = text[start : text.index(")", text.index("(default: ", start)) + 1]
    return explained.replace("- ", "-")  # A line may break behind a hyphen.


@pytest.mark.parametrize("flat", SETTINGS)
def test_every_setting_is_explained_with_its_default(parser, flat):
    explained, field = explanation(parser, flag(flat)), SETTINGS[flat]
    help_line = " ".join(field.metadata["help"].split())
    assert help_line.replace("- ", "-") in explained
    assert f"(default: {field.default}" in explained
    for preset in PRESETS:
        if preset != "auto" and make_config(preset).flat()[flat] != field.default:
            assert re.search(rf"[;:] {preset} {make_config(preset).flat()[flat]}[;,)]", explained)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("--steps", "(default: 0; demo 3600; fast 20000)"),
        ("--epochs", "auto as picked)"),
        ("--history-size", "auto 0, above 128 px 50)"),
        (
            "--generator-upsampling",
            "fast bilinear, above 64 px resize; mobile resize; auto bilinear, above 64 px resize)",
        ),
        ("--gradient-penalty", "fast 0.1, above 64 px 0.0; auto 0.1, above 64 px 0.0)"),
    ],
)
def test_what_depends_on_the_size_or_is_picked_is_told(parser, name, told):
    assert explanation(parser, name).endswith(told)


def test_the_help_names_the_presets_that_have_another_default(parser):
    text = " ".join(parser.format_help().split())
    assert "--generator-filters INT channels after the generator's first convolution" in text
    assert "(default: 64; demo 16; anime-scene 32;" in text
    for name in PRESETS:
        assert f"{name}: " in text


def test_without_flags_the_preset_stands(config_of, preset):
    assert config_of("--preset", preset) == make_config(preset)


def test_a_flag_changes_the_preset(config_of):
    config = config_of("--preset", "paper", "--seed", 3, "--lambda-identity", 0)
    assert config.differences(make_config("paper")) == [
        "--lambda-identity: 0.0, not 5.0",
        "--seed: 3, not 0",
    ]


def test_a_flag_with_the_papers_value_overrides_the_preset(config_of):
    assert config_of("--preset", "fast", "--generator-filters", 64).generator.filters == 64


def test_epochs_stand_although_the_preset_counts_steps(config_of):
    assert make_config("demo").run.steps
    run = config_of("--preset", "demo", "--epochs", 3).run
    assert (run.epochs, run.steps) == (3, 0)


def test_epochs_or_steps_but_not_both(config_of):
    assert config_of("--preset", "demo", "--steps", 7).run.steps == 7
    with pytest.raises(UserError, match="--epochs 3: not with --steps 7; give one"):
        config_of("--preset", "demo", "--epochs", 3, "--steps", 7)


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--flip", "false"], False),
        (["--flip", "No"], False),
        (["--flip", "0"], False),
        (["--flip", "TRUE"], True),
        (["--flip", "on"], True),
        (["--flip"], True),
        (["--flip=off"], False),
    ],
)
def test_a_yes_or_no(config_of, words, value):
    assert config_of(*words).data.flip is value


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--flip", "maybe"], "--flip maybe: must be true or false"),
        (["--epochs", "many"], "--epochs many: must be a whole number"),
        (["--epochs", "1.5"], "--epochs 1.5: must be a whole number"),
        (["--epochs", "0"], "--epochs 0: must be at least 1"),
        (["--learning-rate", "fast"], "--learning-rate fast: must be a number"),
        (["--learning-rate", "nan"], "--learning-rate nan: must be a finite float"),
        (["--gan-loss", "bce"], "--gan-loss bce: must be one of least_squares"),
        (["--image-size", "30"], "--image-size 30: must be divisible by 4, for example 32"),
        (["--preset", "papre"], "--preset papre: must be one of demo, paper"),
        (["--epoch", "3"], "unrecognized arguments: --epoch 3; see train --help"),
        (["--lambda-cycel", "3"], "unrecognized arguments: --lambda-cycel 3"),
        (["--seed"], "argument --seed: expected one argument"),
        (["pictures"], "unrecognized arguments: pictures"),
    ],
)
def test_a_wrong_command_line_is_refused_in_one_line(config_of, words, message):
    with pytest.raises(UserError) as caught:
        config_of(*words)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
