"""The preset `auto`: what it picks, and the time it expects."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest
import tensorflow as tf

from cyclegan_tf import automatic
from cyclegan_tf import train as command
from cyclegan_tf.automatic import Machine, choose
from cyclegan_tf.config import Config, RunConfig
from cyclegan_tf.errors import UserError
from cyclegan_tf.presets import make_config
from cyclegan_tf.training import estimate
from cyclegan_tf.training.estimate import duration_text, expected_seconds
from tests.tiny import pack_charts

LAPTOP, SERVER, GPU = Machine(2, 0), Machine(32, 0), Machine(8, 1)


@pytest.mark.parametrize(
    ("pairs", "side", "machine", "size", "filters", "downsamplings", "epochs"),
    [
        (3400, 128, LAPTOP, 64, 32, 1, 5),
        (3400, 128, SERVER, 128, 32, 1, 17),
        (3400, 128, GPU, 128, 64, 1, 117),
        (1000, 512, GPU, 256, 64, 2, 200),
        (50, 300, LAPTOP, 64, 32, 1, 200),
        (10**6, 300, LAPTOP, 64, 32, 1, 2),
        (500, 50, GPU, 48, 64, 1, 200),
        (500, 9, LAPTOP, 16, 32, 1, 40),
    ],
)
def test_what_is_picked(pairs, side, machine, size, filters, downsamplings, epochs):
    config = make_config("auto", **choose(pairs, side, machine))
    assert config.data.image_size == size
    assert config.generator.filters == filters
    assert config.generator.downsamplings == downsamplings
    assert config.run.epochs == epochs
    assert config.generator.upsampling == ("bilinear" if size <= 64 else "resize")  # as in fast
    # Those of fast up to 128 pixels, the paper's above.
    recipe = make_config("paper") if size > 128 else make_config("fast", image_size=size)
    assert config.history == recipe.history
    for name in ("gradient_penalty", "gradient_penalty_at"):
        assert getattr(config.losses, name) == getattr(recipe.losses, name)
    assert config.discriminator.strided == recipe.discriminator.strided
    assert config.optimizer.learning_rate == recipe.optimizer.learning_rate


def test_each_gpu_gets_a_picture_in_a_step():
    batches = [choose(3400, 128, Machine(8, gpus))["batch_size"] for gpus in (0, 1, 4)]
    assert batches == [1, 1, 4]


@pytest.mark.parametrize(("replicas", "batch_size"), [(0, 4), (1, 1), (2, 2)])
def test_only_the_gpus_that_are_used_count(replicas, batch_size, monkeypatch, tmp_path):
    shards = pack_charts(tmp_path, trainA=3, trainB=3, testA=1, testB=1)
    monkeypatch.setattr(Machine, "this", classmethod(lambda *_: Machine(8, 4)))
    monkeypatch.setattr(command, "train", lambda config, *_: config.run.batch_size)
    run = ["--preset", "auto", "--data", str(shards.folder), "--run-dir", str(tmp_path / "run")]
    assert command.main([*run, "--replicas", str(replicas)]) == batch_size


def test_gpus_that_a_run_does_not_use_do_not_count(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: ["one", "other"])
    runs = [RunConfig(replicas=replicas, batch_size=4) for replicas in (0, 1, 2, 4)]
    assert [Machine.this(run).gpus for run in runs] == [2, 1, 2, 0]


def test_what_is_not_as_in_fast_is_told(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(automatic, "_picked_for", lambda *_: choose(3400, 256, GPU))
    monkeypatch.setattr(command, "train", lambda *_: 0)
    run = ["--preset", "auto", "--data", "x", "--run-dir", str(tmp_path / "run")]
    command.main([*run, "--history-size", "9"])
    told = re.search(r"^picked: (.*)$", capsys.readouterr().out, re.MULTILINE)[1].split(", ")
    ours = {"--image-size 256", "--generator-downsamplings 2", "--learning-rate 0.0002"}
    assert ours <= set(told)
    assert not any(name.split()[0] in ("--history-size", "--data", "--steps") for name in told)


def test_the_recipe_is_that_of_the_size_that_was_asked_for():
    few, many = Machine(cores=2, gpus=0), Machine(cores=64, gpus=0)
    asked, picked = choose(3400, 256, few, image_size=128), choose(3400, 256, many)
    assert asked["image_size"] == picked["image_size"] == 128
    assert make_config("auto", **{**asked, "epochs": 1}) == make_config(
        "auto", **{**picked, "epochs": 1}
    )


def test_the_command_picks_says_so_and_trains(tmp_path, monkeypatch, capsys):
    shards = pack_charts(tmp_path, trainA=4, trainB=3, testA=2, testB=2)
    monkeypatch.setattr(automatic, "_PAIRS", dict.fromkeys(automatic._PAIRS, 8))
    run_dir = tmp_path / "run"
    arguments = ["--preset", "auto", "--data", shards.folder, "--run-dir", run_dir]
    arguments += ["--export-dir", tmp_path / "export", "--generator-filters", 2]
    arguments += ["--generator-blocks", 1, "--discriminator-filters", 2]
    assert command.main([str(argument) for argument in arguments]) == 0
    printed = capsys.readouterr().out
    # The rest was asked for, or is as in fast.
    assert "picked: --image-size 24, --batch-size 1, --epochs 2\n" in printed
    assert re.search(r"Expected time: about \d+ s\n", printed)
    config = Config.load(run_dir)
    assert (config.preset, config.data.image_size, config.run.epochs) == ("auto", 24, 2)
    assert config.generator.filters == 2  # as asked for
    # Older versions had another rate for some sizes, and another filter.
    older = config.replace(learning_rate=1e-4, generator_upsampling="resize")
    (run_dir / "config.json").write_text(older.to_json(), encoding="utf-8")
    # The same command finds the same settings, also on another machine, and the run finished.
    for machine in (LAPTOP, GPU):
        monkeypatch.setattr(Machine, "this", classmethod(lambda *_, one=machine: one))
        assert command.main([str(argument) for argument in arguments]) == 0
    assert "Expected time" not in capsys.readouterr().out


def test_several_workers_are_refused(tmp_path, monkeypatch):
    cluster = {"worker": ["a:1", "b:1"]}
    task = {"type": "worker", "index": 0}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    with pytest.raises(UserError, match="--preset auto: not for several workers"):
        command.main(["--preset", "auto", "--run-dir", str(tmp_path / "run")])


@pytest.mark.parametrize("flag", ["--run-dir", "--export-dir"])
def test_a_folder_that_cannot_be_is_refused_before_anything_is_packed(flag, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("years of work", encoding="utf-8")
    place = tmp_path / "thesis"
    if flag == "--export-dir":
        place /= "thesis.txt"
    folders = ["--run-dir", str(tmp_path / "run"), flag, str(place)]
    with pytest.raises(UserError, match=f"^{flag} .*: .*(is not empty|is no folder)"):
        command.main(["--preset", "auto", "--data", "nowhere", *folders])


def test_damage_is_mended_before_the_pictures_are_looked_at(tmp_path, monkeypatch, capsys):
    shards = pack_charts(tmp_path, trainA=4, trainB=3, testA=2, testB=2)
    path = shards.paths("trainA")[0]
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(content)
    arguments = ["--preset", "auto", "--data", str(shards.folder), "--steps", "1"]
    monkeypatch.setattr(command, "train", lambda config, *_: config.flat()["image_size"])
    assert command.main([*arguments, "--run-dir", str(tmp_path / "run")]) == 24
    assert "record 0 (its checksum is wrong) is left out" in capsys.readouterr().err


def test_the_estimate_counts_the_passes(monkeypatch, tiny_config):
    times = {"generator": 1.0, "discriminator": 0.1}  # of a pass, one after the other
    monkeypatch.setattr(
        estimate, "_seconds", lambda model, each: sum(map(len, each)) * times[model.name]
    )
    seconds = {
        name: expected_seconds(tiny_config(**settings), "float32", 12, 20) / 8
        for name, settings in {
            "plain": {"lambda_identity": 0.0},
            "identity": {},
            "rarely": {"identity_every": 4},
            "early": {"identity_decay": 0.7},
            "recomputed": {"lambda_identity": 0.0, "recompute": True},
            "two devices": {"lambda_identity": 0.0, "replicas": 2, "batch_size": 2},
            "penalty": {"lambda_identity": 0.0, "gradient_penalty": 10.0},
        }.items()
    }
    student = tiny_config(lambda_identity=0.0)
    teachers = [SimpleNamespace(name="generator")] * 2
    taught = expected_seconds(student, "float32", 12, 20, teachers) / 8
    # Two generators: 2 passes with gradients; two discriminators: one to the input, 2 with all.
    assert seconds["plain"] == pytest.approx(2 * (3 * 2 * 1.0 + (2 + 3 * 2) * 0.1))
    assert seconds["identity"] == pytest.approx(seconds["plain"] + 2 * 3)
    assert seconds["rarely"] == pytest.approx(seconds["plain"] + 2 * 3 / 4)
    assert seconds["early"] == pytest.approx(seconds["plain"] + 2 * 3 / 4)  # steps 12 and 13
    assert seconds["recomputed"] == pytest.approx(seconds["plain"] + 2 * 2)
    assert seconds["two devices"] == pytest.approx(2 * seconds["plain"])  # of one CPU
    assert taught == pytest.approx(seconds["plain"] + 2 * (1.0 + 3 * 0.1))
    assert seconds["penalty"] == pytest.approx(seconds["plain"] + 2 * 3 * 0.1)


def test_a_real_estimate_is_a_time(tiny_config):
    assert 0.0 < expected_seconds(tiny_config(), "float32", 9, 10) < 10.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (40, "40 s"), (1500, "25 min"), (3600, "60 min"), (12_600, "3.5 h")]
    + [(180_000, "2.1 days")],
)
def test_durations_for_people(seconds, text):
    assert duration_text(seconds) == text
