"""kill -9 at random moments of the real command: the weights come out the same, to the bit.

The long form makes the table of docs/reliability.md:

    python -m pytest -n0 -s -m slow tests/test_kills.py
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, NamedTuple

import pytest

from cyclegan_tf.data import portraits
from tests.tiny import assert_same_state

STEPS, LOG_EVERY = 60, 2
ROUNDS = 5
SETTINGS = {
    "--preset": "selfie2anime-v2",  # with the gradient penalty
    "--image-size": 16,
    "--generator-filters": 2,
    "--generator-blocks": 1,
    "--generator-dropout": 0.3,
    "--discriminator-filters": 2,
    "--discriminator-strided": 2,
    "--batch-size": 2,
    "--history-size": 4,
    "--average": 0.9,
    "--steps": STEPS,
    "--log-every": LOG_EVERY,
    "--sample-every": 20,
    "--checkpoint-every": 5,
    "--steps-per-call": 3,
    "--deterministic": "true",
}


class Place(NamedTuple):
    """A folder in which the command is given again and again."""

    folder: Path
    data: Path

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def start(self) -> subprocess.Popen:
        """The command, in a process group of its own."""
        places = {"--data": self.data, "--run-dir": "run", "--export-dir": "models"}
        flags = [str(word) for flag in {**SETTINGS, **places}.items() for word in flag]
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "output.txt").open("a") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "cyclegan_tf.train", *flags],
                cwd=self.folder,
                env={**os.environ, "CYCLEGAN_TF_CACHE": str(self.folder / "cache")},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def finish(self) -> None:
        assert self.start().wait(600) == 0, (self.folder / "output.txt").read_text()[-3000:]

    def steps(self) -> int:
        """The step of the last whole line of metrics.jsonl."""
        try:
            lines = (self.run / "metrics.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
        except FileNotFoundError:
            return 0
        return json.loads(lines[-1])["step"] if lines else 0

    def kill_when(self, due: Callable[[], bool], delay: float) -> str:
        """Starts the command and kills it ``delay`` seconds after ``due``; where that was."""
        process = self.start()
        while not due():
            assert process.poll() is None, (self.folder / "output.txt").read_text()[-3000:]
            time.sleep(0.0005)
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        left = [path for path in self.folder.rglob("*") if path.name.startswith((".", "build_st"))]
        names = sorted({path.name for path in left})
        return f"step {self.steps()}; left behind: {', '.join(names) or 'nothing'}"


def moments(place: Place, choose: random.Random) -> list[tuple[str, Callable[[], bool], float]]:
    """(what is under way, when that is, seconds until the kill) of four kills of one run."""
    step = choose.randrange(4, 30)
    later = choose.randrange(30, STEPS - 8)

    def packing() -> bool:
        return any((place.folder / "cache").rglob("build_state.jsonl"))

    def in_a_checkpoint() -> bool:
        return place.steps() >= later and (place.run / "checkpoints" / ".unfinished").exists()

    def exporting() -> bool:
        return any((place.folder / "models").rglob(".unfinished*"))

    return [
        ("shard building", packing, choose.uniform(0, 0.05)),
        ("steps", lambda: place.steps() >= step, choose.uniform(0, 0.3)),
        ("a checkpoint", in_a_checkpoint, choose.uniform(0, 0.03)),
        ("an export", exporting, choose.uniform(0, 3.0)),
    ]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """A folder of portraits, two dozen of each kind."""
    folder = tmp_path_factory.mktemp("pictures")
    for item in portraits.demo_items(size=32, train=24, test=3):
        (folder / item.split).mkdir(exist_ok=True)
        (folder / item.split / item.file_name).write_bytes(item.encode())
    return folder


@pytest.fixture(scope="module")
def whole(pictures, tmp_path_factory) -> Place:
    """A run that is left alone."""
    place = Place(tmp_path_factory.mktemp("whole"), pictures)
    place.finish()
    assert logged_steps(place) == list(range(LOG_EVERY, STEPS + 1, LOG_EVERY))
    return place


def logged_steps(place: Place) -> list[int]:
    text = (place.run / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line)["step"] for line in text.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(ROUNDS))
def test_killed_four_times_and_the_weights_are_the_same(number, whole, pictures, tmp_path):
    place = Place(tmp_path, pictures)
    for name, due, delay in moments(place, random.Random(number)):
        where = place.kill_when(due, delay)
        print(f"| {number + 1} | {name} | {where} |", flush=True)
    place.finish()
    assert_same_state(place.run, whole.run)
    assert logged_steps(place) == logged_steps(whole)
    for direction in ("ab", "ba"):
        names = [path.name for path in (place.folder / "models" / direction).iterdir()]
        assert [name for name in names if name.startswith(".")] == []
