"""The whole way in real processes: train, be stopped in every way, go on, export, load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.tiny import assert_same_state, content, pack_demo

STEPS = 10
COMMANDS = (
    "cyclegan_tf.train",
    "cyclegan_tf.translate",
    "cyclegan_tf.export",
    "cyclegan_tf.import_pytorch",
    "cyclegan_tf.evaluate",
    "cyclegan_tf.report",
    "cyclegan_tf.benchmark",
    "tfrecords_tools.build",
    "tfrecords_tools.verify",
)

# Runs the command and, after so many steps, sends itself a signal.
SIGNALLED = """
import os, signal, sys
import tensorflow as tf
from cyclegan_tf.errors import run_command
from cyclegan_tf.reporting.progress import Progress
from cyclegan_tf.train import main

number, last = signal.Signals[sys.argv.pop(1)], int(sys.argv.pop(1))
# Making a graph faster takes longer than running it a few times as it is.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
update = Progress.update

def update_and_signal(self, steps, losses):
    update(self, steps, losses)
    if self._bar.n == last:
        os.kill(os.getpid(), number)

Progress.update = update_and_signal
run_command(main)
"""
NEVER = STEPS + 1
SETTINGS = {
    "--preset": "selfie2anime-v1",
    "--image-size": 16,
    "--generator-filters": 2,
    "--generator-blocks": 1,
    "--generator-dropout": 0.3,
    "--discriminator-filters": 2,
    "--discriminator-strided": 2,
    "--batch-size": 2,
    "--replicas": 2,
    "--history-size": 4,
    "--average": 0.9,
    "--steps": STEPS,
    "--log-every": 2,
    "--sample-every": 5,
    "--checkpoint-every": 3,
    "--steps-per-call": 1,
    "--deterministic": "true",
}


class Project(NamedTuple):
    """A folder to work in, and the data set for it."""

    folder: Path
    data: Path

    def flags(self, name: str) -> list[str]:
        """The flags for a run."""
        places = {
            "--data": self.data,
            "--run-dir": f"runs/{name}",
            "--export-dir": f"models/{name}",
        }
        return [str(word) for flag in {**SETTINGS, **places}.items() for word in flag]

    def python(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        """Runs Python in the folder."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=900,
        )

    def train(self, name: str) -> subprocess.CompletedProcess:
        """The command as the user types it."""
        return self.python("-m", "cyclegan_tf.train", *self.flags(name))

    def train_until(self, signal: str, step: int, name: str) -> subprocess.CompletedProcess:
        """The command, that gets a signal after a step."""
        return self.python("-c", SIGNALLED, signal, str(step), *self.flags(name))


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    folder = tmp_path_factory.mktemp("project")
    pack_demo(folder / "shards", train=5, test=2)
    return Project(folder, folder / "shards")


@pytest.fixture(scope="module")
def finished(project) -> subprocess.CompletedProcess:
    """The command, run to its end."""
    result = project.train_until("SIGINT", NEVER, "whole")
    assert result.returncode == 0, result.stderr[-3000:]
    return result


def test_the_command_says_what_it_does_and_what_came_of_it(finished, project):
    printed = finished.stdout
    assert "selfie2anime-v1 on " in printed
    assert f"5 + 5 pictures at 16 px, {STEPS} steps of 2, 2 replica(s) on CPU, " in printed
    for words in (
        f"Done: {STEPS} steps.",
        "Against the truth of 2 test pairs, bicubic to 16 px:",
        "A to B: mean absolute error ",
        "B to A: mean absolute error ",
        "(untranslated ",
        "SSIM ",
        "Pictures:  runs/whole/samples",
        "Report:    runs/whole/report.html",
        "Export:    models/whole/ab/1",
        "Export:    models/whole/ba/1",
        "-m cyclegan_tf.translate --run-dir runs/whole photo.jpg --output translated",
    ):
        assert words in printed
    for path in ("runs/whole/samples", "runs/whole/report.html", "models/whole/README.md"):
        assert (project.folder / path).exists()


def test_a_fresh_process_needs_only_tensorflow_for_the_exports(finished, project):
    code = """
import json, sys
sys.modules.update(dict.fromkeys(["cyclegan_tf", "tfrecords_tools", "tensorflow_addons"]))
import tensorflow as tf
photos = tf.cast(tf.random.stateless_uniform([3, 20, 18, 3], [0, 0], 0, 256, tf.int32), tf.uint8)
models = [tf.saved_model.load(f"models/whole/{direction}/1") for direction in ("ab", "ba")]
results = [model(photos) for model in models]
print(json.dumps([[list(one.shape), one.dtype.name, float(one.numpy().std())] for one in results]))
"""
    result = project.python("-I", "-c", code)
    assert result.returncode == 0, result.stderr[-3000:]
    for shape, kind, deviation in json.loads(result.stdout.splitlines()[-1]):
        assert (shape, kind) == ([3, 20, 18, 3], "uint8")
        assert deviation > 0


def test_a_run_that_is_killed_and_stopped_comes_to_the_same_weights(finished, project):
    """Killed between checkpoints, then SIGTERM, then Ctrl-C, each time gone on with."""
    killed = project.train_until("SIGKILL", 5, "stopped")
    assert killed.returncode == -9
    ended = project.train_until("SIGTERM", 7, "stopped")
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "Going on from step 3 of runs/stopped" in ended.stdout
    assert f"Stopped after step 7 of {STEPS}; everything is saved. To go on:" in ended.stdout
    stopped = project.train_until("SIGINT", 8, "stopped")
    assert stopped.returncode == 130, stopped.stderr[-3000:]
    assert "Going on from step 7 of runs/stopped" in stopped.stdout
    assert f"Stopped after step 8 of {STEPS}; everything is saved. To go on:" in stopped.stdout
    assert stopped.stdout.splitlines()[-1].endswith(
        f"-m cyclegan_tf.train {' '.join(project.flags('stopped'))}"
    )
    assert not (project.folder / "models" / "stopped").exists()

    resumed = project.train_until("SIGINT", NEVER, "stopped")
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert "Going on from step 8 of runs/stopped" in resumed.stdout
    runs = project.folder / "runs"
    assert_same_state(runs / "stopped", runs / "whole")
    lines = (runs / "stopped" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    logged_or_sampled = [2, 4, 5, 6, 8, 10]
    assert [json.loads(line)["step"] for line in lines] == logged_or_sampled


def test_a_finished_run_takes_no_step_and_exports_again(finished, project):
    runs = project.folder / "runs"
    before = content(runs / "whole")
    again = project.train("whole")
    assert again.returncode == 0, again.stderr[-3000:]
    assert content(runs / "whole") == before
    assert f"Done: {STEPS} steps." in again.stdout
    assert "Export:    models/whole/ab/2" in again.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_no_tensorflow(command, tmp_path):
    code = f"""
import runpy, sys
sys.argv = ["{command}", "--help"]
try:
    runpy.run_module("{command}", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
assert not {{"tensorflow", "keras", "tensorflow_addons"}} & set(sys.modules)
"""
    result = Project(tmp_path, tmp_path).python("-c", code)
    assert result.returncode == 0, result.stderr
    assert f"usage: python -m {command}" in result.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("cyclegan_tf.train", ["--image-size", "30"], "error: --image-size 30: must be divisible"),
        ("cyclegan_tf.export", ["--run-dir", "nowhere"], "error: --run-dir nowhere: no run there"),
    ],
)
def test_an_error_is_one_line_and_exit_status_2(command, arguments, message, tmp_path):
    result = Project(tmp_path, tmp_path).python("-m", command, *arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith(message)
    assert list(tmp_path.iterdir()) == []
