"""The Slurm script and the Kubernetes manifest of docs/scale.md do what is said of them there.

They give a TF_CONFIG that is taken, write where all nodes see it, and are started again when they
were stopped before the last step.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from cyclegan_tf.cluster import Cluster

TEXT = (Path(__file__).parent.parent / "docs" / "scale.md").read_text(encoding="utf-8")
PRINT = 'printf %s "$TF_CONFIG"'
# In place of Slurm's own: scontrol tells what it was asked to queue again.
SLURM = {
    "scontrol": """case "$1" in show) printf 'n1\\nn2\\n' ;; *) echo "asked: $*" ;; esac""",
    "srun": 'while [[ "$1" == --* ]]; do shift; done; "$@"',
}


def block(kind: str) -> str:
    return re.search(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL)[1]


def kubernetes_args() -> str:
    return re.search(r"args:\n\s+- \|\n((?: {14}.*\n)+)", block("yaml"))[1]


def run(script: str, command: str = PRINT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a script with ``command`` in place of the training."""
    script, count = re.subn(r"exec python.*", lambda _: command, script)
    assert count == 1
    return subprocess.run(
        ["bash", "-euc", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def slurm(tmp_path) -> dict[str, str]:
    """The environment of a job's script."""
    for name, body in SLURM.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    return {"PATH": path, "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_ID": "7", "SLURM_PROCID": "0"}


@pytest.mark.parametrize("index", [0, 1])
def test_slurm(index, slurm, monkeypatch):
    done = run(block("bash"), **{**slurm, "SLURM_PROCID": str(index)})
    assert done.returncode == 0, done.stderr
    assert '["n1:12345","n2:12345"]' in done.stdout
    monkeypatch.setenv("TF_CONFIG", done.stdout)
    assert Cluster.from_environment() == Cluster(2, index)


@pytest.mark.parametrize(
    ("status", "is_asked"), [(143, True), (0, False), (2, False), (137, False)]
)
def test_slurm_queues_again_what_was_stopped_before_its_end(status, is_asked, slurm):
    done = run(block("bash"), f"exit {status}", **slurm)
    assert done.returncode == status
    assert done.stdout == "asked: requeue 7\n" * is_asked


def test_in_slurm_no_worker_ends_a_chief_that_is_saving():
    assert "srun --kill-on-bad-exit=0 " in block("bash")


@pytest.mark.parametrize("index", [0, 1])
def test_kubernetes(index, monkeypatch):
    done = run(kubernetes_args(), JOB_COMPLETION_INDEX=str(index))
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("TF_CONFIG", done.stdout)
    assert Cluster.from_environment() == Cluster(2, index)


def test_kubernetes_starts_again_what_did_not_end_with_0():
    assert re.search(r"^ +restartPolicy: OnFailure$", block("yaml"), re.MULTILINE)
    assert run(kubernetes_args(), "exit 143", JOB_COMPLETION_INDEX="0").returncode == 143


@pytest.mark.parametrize("kind", ["bash", "yaml"])
@pytest.mark.parametrize("flag", ["--data", "--run-dir", "--export-dir"])
def test_all_is_read_and_written_where_every_node_sees_it(kind, flag):
    words = shlex.split(re.search(r"exec (python .*)", block(kind))[1])
    assert words[words.index(flag) + 1].startswith("/shared/")
