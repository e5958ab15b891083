"""The settings: every one is checked, explained, and survives JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from cyclegan_tf.config import SECTIONS, Config, all_settings, flag, setting_type
from cyclegan_tf.errors import UserError
from cyclegan_tf.presets import make_config


def message_of(function, *args, **kwargs) -> str:
    """The one line that a user would see."""
    with pytest.raises(UserError) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def edited(change) -> str:
    """The default config's JSON after ``change(tree)``."""
    tree = json.loads(Config().to_json())
    change(tree)
    return json.dumps(tree)


def test_json_round_trip(preset):
    config = make_config(preset)
    assert Config.from_json(config.to_json()) == config


def test_load_reads_the_run_directory(tmp_path):
    config = make_config("face2anime", seed=7)
    (tmp_path / "config.json").write_text(config.to_json(), encoding="utf-8")
    assert Config.load(tmp_path) == config


def test_load_without_a_run_names_the_flag(tmp_path):
    assert message_of(Config.load, tmp_path).startswith(f"--run-dir {tmp_path}:")


def test_load_names_the_file_that_is_wrong(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("{", encoding="utf-8")
    assert message_of(Config.load, tmp_path).startswith(f"{path}: not JSON")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tree: tree.pop("preset"), ["config.json", "preset"]),
        (lambda tree: tree.update(extra=1), ["config.json", "nothing but"]),
        (lambda tree: tree.update(preset=3), ["config.json", "preset"]),
        (lambda tree: tree.update(data=3), ["config.json", "data"]),
        (lambda tree: tree["losses"].update(lambda_cycel=1.0), ["losses", "lambda_cycel"]),
        (lambda tree: tree["run"].update(epochs="3"), ["--epochs 3", "int"]),
        (lambda tree: tree["losses"].update(lambda_cycle=math.nan), ["--lambda-cycle nan"]),
        (lambda tree: tree["generator"].update(filters=0), ["--generator-filters 0", "1"]),
        (lambda tree: tree["data"].update(image_size=None), ["--image-size None", "int"]),
    ],
)
def test_wrong_json_is_refused_in_one_line(change, words):
    message = message_of(Config.from_json, edited(change))
    for word in words:
        assert word in message


def test_what_an_older_version_did_not_write_gets_its_default():
    def forget(tree):
        tree["losses"].pop("gan_loss")
        tree.pop("history")

    found = Config.from_json(edited(forget))
    assert (found.losses.gan_loss, found.history) == ("least_squares", Config().history)
    assert found == Config.from_json(edited(lambda tree: None))


@pytest.mark.parametrize("text", ["", "[]", "null", '"paper"', "[" * 100_000])
def test_json_that_is_no_config_is_refused(text):
    assert message_of(Config.from_json, text).startswith("config.json:")


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("epochs", 0, "at least 1"),
        ("epochs", 1.5, "int"),
        ("epochs", True, "int"),
        ("epochs", "3", "int"),
        ("epochs", math.inf, "int"),
        ("flip", 1, "bool"),
        ("flip", "yes", "bool"),
        ("data", 3, "str"),
        ("lambda_cycle", "10", "float"),
        ("lambda_cycle", True, "float"),
        ("lambda_cycle", math.nan, "finite"),
        ("lambda_cycle", math.inf, "finite"),
        ("lambda_cycle", -1.0, "at least 0"),
        ("learning_rate", 1.5, "at most 1"),
        ("beta_1", 1.0, "at most 0.9999"),
        ("beta_2", 1.0, "at most 0.999999"),
        ("image_size", 4, "at least 8"),
        ("generator_dropout", 0.95, "at most 0.9"),
        ("discriminator_kernel", 1, "at least 2"),
        ("shuffle_buffer", 2**31, f"at most {2**31 - 1}"),
        ("gan_loss", "bce", "least_squares, vanilla, hinge, wasserstein"),
        ("history_kind", "", "swap, contiguous, uniform"),
        ("precision", "float16", "auto, float32, bfloat16"),
    ],
)
def test_a_wrong_value_names_flag_value_and_rule(name, value, rule):
    message = message_of(Config().replace, **{name: value})
    assert message.startswith(f"{flag(name)} {value}: must be")
    assert rule in message


def test_a_bound_is_named_to_the_digit():
    assert message_of(Config().replace, seed=2**30 + 1).endswith(f"at most {2**30}")


@pytest.mark.parametrize("name", ["epochs", "lambda_cycle"])
def test_a_number_beyond_every_float_is_refused(name):
    assert message_of(Config().replace, **{name: 10**400}).startswith(flag(name))


def test_an_unknown_setting_names_its_flag():
    assert message_of(Config().replace, lambda_cycel=1.0) == "--lambda-cycel: no such setting"


@pytest.mark.parametrize(
    ("settings", "start"),
    [
        ({"image_size": 130}, "--image-size 130: must be divisible by 4"),
        ({"image_size": 128, "load_size": 100}, "--load-size 100: must be at least"),
        ({"batch_size": 3, "replicas": 2}, "--batch-size 3: must be divisible by --replicas 2"),
        (
            {"history_kind": "uniform", "history_size": 4, "batch_size": 5},
            "--history-size 4: must be 0 or at least",
        ),
        ({"gan_loss": "wasserstein"}, "--gan-loss wasserstein: needs --gradient-penalty, "),
        (
            {"gan_loss": "wasserstein", "gradient_penalty": 9.0, "gradient_penalty_at": "real"},
            "--gan-loss wasserstein: needs --gradient-penalty-at interpolates",
        ),
        (
            {"gradient_penalty_at": "real"},
            "--gradient-penalty-at real: needs --gradient-penalty, such as 0.1",
        ),
        (
            {"recompute": True, "generator_dropout": 0.5},
            "--recompute true: not with --generator-dropout",
        ),
    ],
)
def test_settings_that_do_not_go_together_name_the_flag(settings, start):
    assert message_of(Config().replace, **settings).startswith(start)


@pytest.mark.parametrize(
    "settings",
    [
        {"image_size": 132},
        {"preprocess": "none", "load_size": 100},
        {"batch_size": 4, "replicas": 2},
        {"history_kind": "uniform", "history_size": 0, "batch_size": 5},
        {"history_size": 1, "batch_size": 5},
        {"gan_loss": "wasserstein", "gradient_penalty": 10.0},
        {"gradient_penalty_at": "real", "gradient_penalty": 0.03},
        {"lambda_cycle": 10},
    ],
)
def test_settings_that_do_go_together_pass(settings):
    flat = Config().replace(**settings).flat()
    assert {name: flat[name] for name in settings} == settings


@pytest.mark.parametrize(("size", "near"), [(10, 8), (9, 8), (127, 128), (258, 256)])
def test_the_proposed_image_size_is_a_right_one(size, near):
    message = message_of(Config().replace, image_size=size)
    assert message.endswith(f"for example {near}")
    assert near % 4 == 0


def test_replace_changes_only_what_is_named():
    config = make_config("anime-scene").replace(seed=3, generator_filters=8)
    assert config.differences(make_config("anime-scene")) == [
        "--generator-filters: 8, not 32",
        "--seed: 3, not 0",
    ]


def test_differences_name_every_setting_and_the_preset():
    paper, other = make_config("paper"), make_config("anime-scene", image_size=256, seed=5)
    assert paper.differences(paper) == []
    assert other.differences(paper) == [
        "--preset: anime-scene, not paper",
        "--generator-filters: 32, not 64",
        "--generator-blocks: 6, not 0",
        "--discriminator-filters: 32, not 64",
        "--epochs: 80, not 200",
        "--seed: 5, not 0",
    ]


def test_only_what_the_guide_lists_may_change_in_a_run():
    changeable = {name for _, name, field in all_settings() if field.metadata["changeable"]}
    assert changeable == {
        "data",
        "max_damaged",
        "replicas",
        "max_nonfinite",
        "recompute",
        "steps_per_call",
        "log_every",
        "sample_every",
        "checkpoint_every",
        "keep_checkpoints",
        "evaluate_feature_weights",
    }
    text = (Path(__file__).parent.parent / "docs" / "reliability.md").read_text(encoding="utf-8")
    guide = text[text.index("- **Other settings**") : text.index("- **Too little memory**")]
    assert [name for name in changeable if f"`{flag(name)}`" not in guide] == []


def test_a_config_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().run.epochs = 3


def test_load_size_follows_the_paper_unless_given():
    assert Config().data.effective_load_size() == 286
    assert Config().replace(image_size=64).data.effective_load_size() == 72
    assert Config().replace(load_size=300).data.effective_load_size() == 300


@pytest.mark.parametrize(
    ("size", "given", "blocks"), [(64, 0, 6), (128, 0, 6), (132, 0, 9), (256, 0, 9), (256, 4, 4)]
)
def test_blocks_follow_the_paper_unless_given(size, given, blocks):
    assert Config().replace(image_size=size, generator_blocks=given).generator_blocks() == blocks


def test_every_setting_has_a_help_line_and_a_name_of_its_own():
    settings = list(all_settings())
    assert len({flat for _, flat, _ in settings}) == len(settings) == len(Config().flat())
    for _, flat, field in settings:
        text = field.metadata["help"]
        assert len(text) > 8, flat
        assert "\n" not in text, flat
        assert text[-1] not in ".;", flat


def test_every_default_has_the_type_of_its_setting():
    for section, _, field in all_settings():
        assert type(getattr(SECTIONS[section](), field.name)) is setting_type(field)
