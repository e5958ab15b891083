"""A run directory: free, or continued with the same settings only. Looking changes nothing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cyclegan_tf.config import Config
from cyclegan_tf.errors import UserError
from cyclegan_tf.presets import make_config
from cyclegan_tf.training.run_directory import (
    check_output,
    check_run_directory,
    check_writable,
    claimed,
    create_run_directory,
)
from tests.tiny import content


@pytest.fixture
def run(tmp_path) -> Path:
    """A run of the paper's settings."""
    create_run_directory(tmp_path / "run", make_config("paper"))
    return tmp_path / "run"


def refusal(run_dir: Path, config: Config) -> str:
    """The message for a folder that is refused and left as it was."""
    top = run_dir.parent
    before = content(top) if top.is_dir() else None
    with pytest.raises(UserError) as caught:
        check_run_directory(run_dir, config)
    assert before == (content(top) if top.is_dir() else None)
    assert str(caught.value).startswith(f"--run-dir {run_dir}: ")
    return str(caught.value)


def test_a_new_folder_is_free_and_not_made_yet(tmp_path):
    assert not check_run_directory(tmp_path / "a" / "run", make_config("paper"))
    assert content(tmp_path) == {}


def test_an_empty_folder_is_free(tmp_path):
    assert not check_run_directory(tmp_path, make_config("paper"))


def test_the_same_settings_go_on(run):
    assert check_run_directory(run, make_config("paper"))


def test_settings_without_a_part_in_what_is_learned_may_differ(run):
    assert check_run_directory(run, make_config("paper", max_damaged=99, recompute=True))


def test_other_settings_are_named_and_nothing_is_changed(run):
    message = refusal(run, make_config("paper", lambda_cycle=5.0, seed=1))
    assert "--lambda-cycle: 5.0, not 10.0" in message
    assert "--seed: 1, not 0" in message
    assert "--epochs" not in message


def test_another_preset_is_named(run):
    assert "--preset: fast, not paper" in refusal(run, make_config("fast"))


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work", encoding="utf-8")
    assert "holds no run" in refusal(tmp_path / "run", make_config("paper"))


def test_damaged_settings_are_refused(run):
    (run / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"config\.json: not JSON"):
        check_run_directory(run, make_config("paper"))


@pytest.mark.parametrize("place", ["file", "file/run", "file/deep/run"])
def test_a_file_in_the_way_is_refused(tmp_path, place):
    (tmp_path / "file").touch()
    assert f"{tmp_path / 'file'} is no folder" in refusal(tmp_path / place, make_config("paper"))


def test_a_folder_that_may_not_be_written_to_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(UserError, match=r"--export-dir .* may not be written to"):
        check_writable(tmp_path / "models" / "mine", "--export-dir")
    assert content(tmp_path) == {}


def test_creating_writes_the_settings_and_nothing_else(tmp_path):
    config = make_config("mobile", seed=4)
    create_run_directory(tmp_path / "a" / "run", config)
    assert [path.name for path in (tmp_path / "a" / "run").iterdir()] == ["config.json"]
    assert Config.load(tmp_path / "a" / "run") == config


def test_what_cannot_be_created_names_the_flag():
    run_dir = Path("/proc/cyclegan_tf")
    with pytest.raises(UserError, match="--run-dir /proc/cyclegan_tf: cannot be written"):
        create_run_directory(run_dir, make_config("paper"))


# --- One training at a time ----------------------------------------------------------------------

CLAIM = """
import sys, time
from pathlib import Path
from cyclegan_tf.training.run_directory import claimed
with claimed(Path(sys.argv[1])):
    print("claimed", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def elsewhere(tmp_path):
    """Another process that has claimed tmp_path/run, and is killed in the end."""
    command = [sys.executable, "-c", CLAIM, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "claimed\n"
        yield process
        process.kill()


def test_a_second_training_is_refused_until_the_first_is_dead(elsewhere, tmp_path):
    refused = pytest.raises(UserError, match="another process is working there")
    with refused, claimed(tmp_path / "run"):
        pass
    elsewhere.kill()
    elsewhere.wait()
    with claimed(tmp_path / "run"):
        assert content(tmp_path / "run") == {}


def test_a_claim_that_leaves_nothing_takes_its_folders_back(tmp_path):
    with pytest.raises(UserError, match="wrong"), claimed(tmp_path / "a" / "b"):
        raise UserError("wrong")
    assert content(tmp_path) == {}
    with claimed(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "file").touch()
    assert (tmp_path / "a" / "b" / "file").exists()


def test_parents_are_taken_back_where_the_folder_itself_cannot_be_made(tmp_path, monkeypatch):
    def full(path, **_):
        os.mkdir(path.parent)  # noqa: PTH102 - that of pathlib is replaced
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "mkdir", full)
    run_dir = tmp_path / "a" / "b"
    with (
        pytest.raises(UserError, match=f"--run-dir {run_dir}: cannot be written"),
        claimed(run_dir),
    ):
        pass
    assert content(tmp_path) == {}


@pytest.mark.parametrize(
    ("name", "reason"),
    [("gs://bucket/run", "must be a local folder"), (300 * "x", r"cannot be read or written \(Fi")],
)
def test_a_folder_that_cannot_be_is_refused_before_it_is_made(name, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"^--output {name}: {reason}"):
        check_output(Path(name))
    with (
        pytest.raises(UserError, match=f"^--output {name}: {reason}"),
        claimed(Path(name), "--output"),
    ):
        pass
    assert content(tmp_path) == {}


def test_a_device_is_no_place_for_a_file():
    """Root could rename a file over it."""
    with pytest.raises(UserError, match="--output /dev/null: is a device or a pipe; name a file"):
        check_output(Path("/dev/null"))


def test_a_full_disk_is_one_line_and_other_errors_are_not_hidden(tmp_path):
    with (
        pytest.raises(UserError, match=r"No space left on device: x\); mend that"),
        claimed(tmp_path),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x")
    with pytest.raises(FileNotFoundError), claimed(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "our own mistake")


def test_a_kill_before_the_settings_were_written_leaves_the_folder_free(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.json.tmp").write_text("{", encoding="utf-8")
    assert not check_run_directory(tmp_path / "run", make_config("paper"))
