"""Two workers on this machine, as two machines would: TF_CONFIG and the same command."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cyclegan_tf.cluster import Cluster
from cyclegan_tf.config import flag
from cyclegan_tf.errors import UserError
from tests.tiny import assert_same_state, pack_charts, pack_demo, saved_state

STEPS = 12
SECONDS = 90  # within which the end of one worker must end the other

# Runs the command and prints, in the end, a digest of all weights.
WORKER = """
import hashlib
import tensorflow as tf
from cyclegan_tf.errors import run_command
from cyclegan_tf.train import main
from cyclegan_tf.training.loop import Training

# Making a graph faster takes longer than running it a few times as it is.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
run = Training.run

def run_and_print(self):
    finished = run(self)
    weights = self.state.generator_variables() + self.state.discriminator_variables()
    content = b"".join(weight.numpy().tobytes() for weight in weights)
    print("weights", hashlib.sha256(content).hexdigest(), self.state.steps_done(), flush=True)
    return finished

Training.run = run_and_print
run_command(main)
"""
SETTINGS = {
    "--image-size": 16,
    "--generator-filters": 2,
    "--generator-blocks": 1,
    "--discriminator-filters": 2,
    "--history-size": 4,
    "--batch-size": 2,
    "--steps": STEPS,
    "--log-every": 2,
    "--sample-every": 50,
    "--checkpoint-every": 3,
    "--steps-per-call": 1,
    "--deterministic": "true",
}


class Workers:
    """Two processes with one command."""

    def __init__(self, folder: Path, data: Path, name: str, second=(), **settings) -> None:
        """``settings`` are flags of both, ``second`` further ones of the second."""
        ports = [_free_port() for _ in range(2)]
        self.run_dir = folder / name
        flags = {**SETTINGS, "--data": data, "--run-dir": self.run_dir}
        flags["--export-dir"] = folder / f"{name}-models"
        flags |= {flag(name): value for name, value in settings.items()}
        command = [sys.executable, "-c", WORKER, *(str(w) for pair in flags.items() for w in pair)]
        self.processes = [
            subprocess.Popen(
                [*command, *(second if index else ())],
                env={**os.environ, "TF_CONFIG": _tf_config(ports, index)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for index in range(2)
        ]

    def outputs(self, seconds: int = 600) -> list[tuple[int, str, str]]:
        """(exit status, stdout, stderr) of each, when they have ended."""
        ended = []
        try:
            for process in self.processes:
                out, err = process.communicate(timeout=seconds)
                ended.append((process.returncode, out, err))
        finally:
            for process in self.processes:
                process.kill()
        return ended

    def wait_for_step(self, step: int) -> None:
        log = self.run_dir / "metrics.jsonl"
        while not log.exists() or f'"step": {step},' not in log.read_text(encoding="utf-8"):
            assert all(process.poll() is None for process in self.processes), self.outputs()
            time.sleep(0.01)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


def _tf_config(ports: list[int], index: int) -> str:
    hosts = [f"localhost:{port}" for port in ports]
    return json.dumps({"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}})


def digests(outputs: list[tuple[int, str, str]], right: int = 0) -> list[str]:
    for status, out, err in outputs:
        assert status == right, out[-1000:] + err[-3000:]
    return [re.search(r"^weights (\w+ \d+)$", out, re.MULTILINE)[1] for _, out, _ in outputs]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "shards"
    pack_demo(folder, train=6, test=2)
    return folder


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> tuple[Workers, list]:
    """A run that was left alone."""
    workers = Workers(tmp_path_factory.mktemp("whole"), data, "run")
    return workers, workers.outputs()


def test_two_workers_end_with_the_same_weights_and_the_chief_writes(whole):
    workers, outputs = whole
    one, other = digests(outputs)
    assert one == other
    assert one.endswith(f" {STEPS}")
    chief, second = (out for _, out, _ in outputs)
    assert "2 workers share out trainA by shard" in chief
    assert f"Done: {STEPS} steps." in chief
    assert second.splitlines() == [line for line in second.splitlines() if "weights" in line]
    folder = workers.run_dir
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(2, STEPS + 1, 2))
    assert len(list((folder / "tensorboard").iterdir())) == 1
    saved = saved_state(folder)
    for domain in "ab":
        own, others = (
            saved[f"histories_{domain}/{worker}/images/.ATTRIBUTES/VARIABLE_VALUE"]
            for worker in (0, 1)
        )
        assert own.any() and others.any() and (own != others).any()


def test_sigterm_to_one_stops_both_at_one_step_with_143_and_the_chief_saves(data, tmp_path):
    """Without a history, so that nothing is gathered for the checkpoint."""
    workers = Workers(tmp_path, data, "run", history_size=0, steps=100_000, checkpoint_every=50_000)
    workers.wait_for_step(2)
    workers.processes[1].send_signal(signal.SIGTERM)
    one, other = digests(workers.outputs(), 143)
    assert one == other
    [index] = (workers.run_dir / "checkpoints").glob("step-*.index")
    assert index.name == f"step-{one.split()[1]}.index"


def test_workers_with_different_settings_end_with_one_line_each(tmp_path, monkeypatch):
    """From pictures that are not packed yet, which must not start TensorFlow before the workers."""
    monkeypatch.setenv("CYCLEGAN_TF_CACHE", str(tmp_path / "cache"))
    pack_charts(tmp_path, trainA=4, trainB=4, testA=2, testB=2)
    pictures = tmp_path / "pictures"
    workers = Workers(tmp_path, pictures, "run", ["--learning-rate", "0.01"])
    for status, out, err in workers.outputs():
        assert status == 2, out[-1000:] + err[-3000:]
        assert "another worker has other settings or pictures" in err.strip().splitlines()[-1]


@pytest.mark.slow
def test_a_dead_worker_ends_the_other_and_a_restart_goes_on_exactly(whole, data, tmp_path):
    killed = Workers(tmp_path, data, "run")
    killed.wait_for_step(8)
    killed.processes[1].send_signal(signal.SIGKILL)
    begun = time.monotonic()
    chief, _ = killed.outputs(SECONDS)
    assert time.monotonic() - begun < SECONDS
    assert chief[0] == 2, chief
    line = chief[2].strip().splitlines()[-1]
    assert "error: worker 0: another worker has ended or cannot be reached (" in line
    assert line.endswith(
        "start all workers again with the same command, and they go on from the last checkpoint"
    )
    resumed = Workers(tmp_path, data, "run").outputs()
    assert digests(resumed) == digests(whole[1])
    assert "Going on from step " in resumed[0][1]
    assert_same_state(tmp_path / "run", whole[0].run_dir)


# --- TF_CONFIG -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cluster", "task", "expected"),
    [
        ({"worker": ["a:1", "b:1"]}, {"type": "worker", "index": 1}, Cluster(2, 1)),
        ({"worker": ["a:1", "b:1"]}, {"type": "worker", "index": 0}, Cluster(2, 0)),
        ({"chief": ["c:1"], "worker": ["a:1"]}, {"type": "worker", "index": 0}, Cluster(2, 1)),
        ({"chief": ["c:1"], "worker": ["a:1"]}, {"type": "chief", "index": 0}, Cluster(2, 0)),
        ({}, {}, Cluster(1, 0)),
    ],
)
def test_the_place_among_the_workers(monkeypatch, cluster, task, expected):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    assert Cluster.from_environment() == expected
    assert expected.is_chief == (expected.index == 0)


def test_without_tf_config_there_is_one(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert Cluster.from_environment() == Cluster(1, 0)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
        '{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}}',
    ],
)
def test_a_wrong_tf_config_is_one_line(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match="TF_CONFIG: must be JSON like"):
        Cluster.from_environment()
