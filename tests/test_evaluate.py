"""The command cyclegan_tf.evaluate on a real run: its table, its JSON and its errors."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tensorflow as tf

from cyclegan_tf import evaluate as command
from cyclegan_tf.config import Config
from cyclegan_tf.data.damage import mend
from cyclegan_tf.data.shards import MENDED, Shards
from cyclegan_tf.errors import UserError, run_command
from cyclegan_tf.evaluation import features
from cyclegan_tf.evaluation.evaluator import Evaluator
from cyclegan_tf.models.generator import build_generator
from cyclegan_tf.training.checkpoints import Checkpoints, save_generators
from cyclegan_tf.training.run_directory import create_run_directory
from cyclegan_tf.training.state import TrainingState
from tests.tiny import pack_charts, pack_demo, tiny_features


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_config, mirrored) -> Path:
    """A run on the demo at its step 7, whose averages are not its weights; not to be changed."""
    folder = tmp_path_factory.mktemp("run")
    shards = pack_demo(folder / "shards", train=5, test=4)
    config = tiny_config("demo", data=str(shards.folder))
    create_run_directory(folder / "run", config)
    state = TrainingState(config, mirrored(1), "float32")
    state.step.assign(7)
    for weight in state.average_variables():
        weight.assign(2.0 * weight + 0.1)
    Checkpoints(state, folder / "run", 1).save()
    return folder / "run"


@pytest.fixture
def run_dir(finished, tmp_path) -> Path:
    """A copy of it for one test."""
    return shutil.copytree(finished, tmp_path / "finished")


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    """The feature network, replaced by a quick one: the real ones have tests of their own."""
    monkeypatch.setattr(features, "load_feature_network", tiny_features)


@pytest.fixture
def evaluate(run_dir, tmp_path, capsys):
    """A function: what the command writes and prints."""

    def run(*arguments: object) -> tuple[dict, str]:
        path = tmp_path / "scores.json"
        texts = ["--run-dir", run_dir, "--output", path, *arguments]
        assert command.main([str(text) for text in texts]) == 0
        return json.loads(path.read_text()), capsys.readouterr().out

    return run


@pytest.fixture
def refused(capsys, run_dir):
    """A function: runs the command, which must say one line and exit with 2."""

    def run(*arguments: object) -> str:
        before = sorted(run_dir.rglob("*"))
        with pytest.raises(SystemExit) as caught:
            run_command(lambda _: command.main([str(argument) for argument in arguments]))
        assert caught.value.code == 2
        assert sorted(run_dir.rglob("*")) == before
        line = capsys.readouterr().err.strip()
        assert line.startswith("error: ")
        assert "\n" not in line
        return line

    return run


def test_both_directions_are_scored_and_printed_with_their_protocol(evaluate):
    result, printed = evaluate()
    names = {"cycle_error", "identity_error", "checkerboard", "mae", "psnr", "ssim"}
    names |= {f"{kind}_inceptionv3" for kind in ("fid", "kid", "kid_sd", "distance")}
    for direction in ("ab", "ba"):
        assert set(result["scores"][direction]) == names
        assert set(result["untranslated"][direction]) == names - {"cycle_error", "identity_error"}
        assert "kid_inceptionv3" in result["real"][direction]
    assert result["step"] == 7
    assert "step 7, average weights" in printed
    for text in ("4 of testA, 4 of testB", "bicubic to 16", "bicubic to 8", "100 subsets of 2"):
        assert text in printed
    mae, kid = (result["scores"]["ba"][name] for name in ("mae", "kid_inceptionv3"))
    (row,) = [line for line in printed.splitlines() if line.startswith("MAE to the truth")]
    assert row.split()[6:] == [  # of B to A
        f"{result[kind][d]['mae']:.1f}" for d in ("ab", "ba") for kind in ("scores", "untranslated")
    ]
    assert f"{mae:.1f}" in row
    (row,) = [line for line in printed.splitlines() if line.startswith("KID × 1000 (inceptionv3)")]
    assert f"{1000 * kid:.1f} ± " in row
    assert "FID (inceptionv3)" in printed


def test_too_little_memory_is_one_line(refused, run_dir, monkeypatch):
    def full(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\nmore")

    monkeypatch.setattr(Evaluator, "evaluate", full)
    line = refused("--run-dir", run_dir)
    assert line.startswith(f"error: --run-dir {run_dir}: too little memory for its pictures of 16")
    assert "CUDA_VISIBLE_DEVICES=-1" in line


def test_weights_are_the_averages_unless_the_last_are_asked_for(evaluate):
    average, _ = evaluate("--weights", "average")
    assert evaluate()[0]["scores"] == average["scores"]
    last, printed = evaluate("--weights", "last")
    assert last["scores"] != average["scores"]
    assert "last weights" in printed


def test_the_best_checkpoint_is_scored_with_its_own_step(run_dir, evaluate, refused):
    assert "was not scored while it trained" in refused("--run-dir", run_dir, "--weights", "best")
    (run_dir / "checkpoints" / "best.json").write_text('{"step": 7}')
    result, printed = evaluate("--weights", "best")
    assert "step 7, best weights" in printed
    assert result["scores"] == evaluate("--weights", "average")[0]["scores"]


def test_the_step_is_that_of_the_weights_though_the_run_goes_on(run_dir, evaluate, monkeypatch):
    folder = run_dir / "checkpoints"

    def load_while_it_trains(name: str, weights: Path | None = None):
        for end in ("data-00000-of-00001", "index"):
            shutil.copy(folder / f"step-7.{end}", folder / f"step-8.{end}")
        return tiny_features(name, weights)

    monkeypatch.setattr(features, "load_feature_network", load_while_it_trains)
    result, _ = evaluate()
    assert len(list(folder.glob("step-8.*"))) == 2
    assert result["step"] == 7


def test_figures_carry_the_name_of_their_network(evaluate):
    result, printed = evaluate("--features", "efficientnet-lite0", "--max-images", 4)
    assert "fid_efficientnet_lite0" in result["scores"]["ab"]
    assert "FID (efficientnet-lite0)" in printed
    assert result["protocol"]["features"] == "efficientnet-lite0"


def test_other_pictures_may_be_named(evaluate, tmp_path):
    shards = pack_charts(tmp_path, trainA=4, trainB=4, testA=5, testB=6)
    result, _ = evaluate("--data", shards.folder)
    assert result["protocol"]["pictures"] == "5 of testA, 6 of testB"
    assert result["protocol"]["real"] == "4 of trainB, 4 of trainA"
    assert "mae" not in result["scores"]["ab"]


@pytest.mark.parametrize("flags", [[], ["--paired"]])
def test_other_pictures_are_pairs_where_that_is_said(flags, run_dir, tmp_path, capsys):
    shards = pack_charts(tmp_path, trainA=4, trainB=4, testA=4, testB=4)
    arguments = ["--run-dir", str(run_dir), "--data", str(shards.folder), *flags]
    assert command.main(arguments) == 0
    (path,) = run_dir.glob("evaluation-*")
    scores = json.loads(path.read_text())["scores"]
    assert path.stem.endswith("-paired") == bool(flags)
    assert ["mae" in scores[direction] for direction in ("ab", "ba")] == 2 * [bool(flags)]
    assert ("MAE to the truth" in capsys.readouterr().out) == bool(flags)


def test_a_run_that_may_not_be_written_to_is_refused_before_the_work(run_dir, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != run_dir)
    monkeypatch.setattr(command, "evaluate", lambda *_: pytest.fail("worked"))
    with pytest.raises(UserError, match=f"^--output {run_dir}: {run_dir} may not be written to"):
        command.main(["--run-dir", str(run_dir)])


def test_the_json_goes_into_the_run_under_a_name_of_its_own(run_dir, capsys):
    assert command.main(["--run-dir", str(run_dir), "--weights", "last"]) == 0
    path = run_dir / "evaluation-0000007-last-inceptionv3.json"
    assert json.loads(path.read_text())["weights"] == "last"
    assert str(path) in capsys.readouterr().out


def test_a_run_of_one_direction_is_scored_in_that_one(run_dir, tmp_path, capsys):
    config = Config.load(run_dir).replace(average=0.0)
    create_run_directory(tmp_path / "imported", config)
    save_generators(tmp_path / "imported", {"ba": build_generator(config, seed=1)})
    assert command.main(["--run-dir", str(tmp_path / "imported")]) == 0
    (path,) = (tmp_path / "imported").glob("evaluation-*")
    assert list(json.loads(path.read_text())["scores"]) == ["ba"]
    assert "B to A" in capsys.readouterr().out


def test_other_pictures_or_fewer_go_into_files_of_their_own(run_dir, tmp_path, capsys):
    shards = pack_charts(tmp_path, trainA=4, trainB=4, testA=5, testB=5)
    for flags in ([], ["--data", str(shards.folder)], ["--max-images", "4"]):
        assert command.main(["--run-dir", str(run_dir), *flags]) == 0
    written = set(run_dir.glob("evaluation-*"))
    sources = {json.loads(path.read_text())["protocol"]["data"] for path in written}
    assert len(written) == 3
    weights = tmp_path / "mine.h5"
    weights.write_bytes(b"weights")
    flags = ["--feature-weights", str(weights)]
    assert command.main(["--run-dir", str(run_dir), *flags]) == 0
    assert "feature weights: mine.h5 (" in capsys.readouterr().out
    assert list(run_dir.glob("evaluation-0000007-average-inceptionv3-mine-h5-*.json"))
    digest = shards.manifest.fingerprint[:8]
    assert f"pictures ({digest})" in sources and len(sources) == 2
    assert run_dir / f"evaluation-0000007-average-inceptionv3-pictures-{digest}.json" in written


@pytest.fixture
def damaged(run_dir, tmp_path):
    """A function: the run, and shards of its own of which one is cut short."""

    def make(split: str) -> tuple[Path, Shards]:
        config = Config.load(run_dir)
        shutil.copytree(config.data.data, tmp_path / "shards")
        here = config.replace(data=str(tmp_path / "shards"))
        (run_dir / "config.json").write_text(here.to_json())
        shards = replace(Shards.open(tmp_path / "shards"), mended=run_dir / MENDED)
        path = shards.paths(split)[0]
        path.write_bytes(path.read_bytes()[:-9])
        return run_dir, shards

    return make


@pytest.mark.parametrize("split", ["trainA", "testB"])
def test_what_training_has_mended_is_read(damaged, split, refused, capsys):
    folder, shards = damaged(split)
    path = shards.paths(split)[0]
    assert f"{path}: missing or not of" in refused("--run-dir", folder)
    assert len(mend(shards, 1)) == 1
    assert command.main(["--run-dir", str(folder)]) == 0
    assert f"pairs: {3 if split == 'testB' else 4}" in capsys.readouterr().out


def test_a_record_that_cannot_be_read_is_one_line(damaged, refused):
    folder, shards = damaged("testA")
    path = shards.paths("testA")[0]
    path.write_bytes(path.read_bytes() + 9 * b"x")
    said = refused("--run-dir", folder)
    assert f"{shards.folder}: a record cannot be read" in said
    assert f"python -m tfrecords_tools.verify {shards.folder}" in said


def test_an_import_is_scored_on_pictures_that_are_named(tmp_path, tiny_config, refused):
    create_run_directory(tmp_path / "run", tiny_config())
    config = Config.load(tmp_path / "run")
    save_generators(tmp_path / "run", {"ab": build_generator(config, seed=1)})
    assert "--data: is needed" in refused("--run-dir", tmp_path / "run")
    shards = pack_charts(tmp_path, trainA=4, trainB=4, testA=4, testB=4)
    assert command.main(["--run-dir", str(tmp_path / "run"), "--data", str(shards.folder)]) == 0


def test_errors_are_one_line(refused, run_dir, tmp_path):
    assert "no run there" in refused("--run-dir", tmp_path)
    assert "--max-images 3: must be 0 (all) or from 4 to " in refused(
        "--run-dir", run_dir, "--max-images", 3
    )
    assert "--weights" in refused("--run-dir", run_dir, "--weights", "newest")
    assert "--features" in refused("--run-dir", run_dir, "--features", "vgg")


def test_a_folder_as_output_is_refused_before_the_work(refused, run_dir, monkeypatch, tmp_path):
    monkeypatch.setattr(command, "evaluate", None)
    monkeypatch.chdir(tmp_path)
    for output in (".", tmp_path):
        said = refused("--run-dir", run_dir, "--output", output)
        assert said == f"error: --output {output}: is a folder; name a file"
    (tmp_path / "file").touch()
    said = refused("--run-dir", run_dir, "--output", tmp_path / "file" / "scores.json")
    assert f"--output {tmp_path / 'file'}" in said


def test_averages_that_are_not_there_are_refused(tmp_path, tiny_config, refused):
    create_run_directory(tmp_path / "run", tiny_config("demo", average=0.0))
    said = refused("--run-dir", tmp_path / "run", "--weights", "average")
    assert "--weights average" in said
