"""The Slurm script and the Kubernetes manifest of docs/scale.md give a TF_CONFIG that is taken."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from cyclegan_tf.cluster import Cluster

TEXT = (Path(__file__).parent.parent / "docs" / "scale.md").read_text(encoding="utf-8")
PRINT = 'printf %s "$TF_CONFIG"'


def block(kind: str) -> str:
    return re.search(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL)[1]


def run(script: str, **environment: str) -> str:
    script = re.sub(r"exec python.*", PRINT, script)
    result = subprocess.run(
        ["bash", "-euc", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout


@pytest.mark.parametrize("index", [0, 1])
def test_slurm(index, tmp_path, monkeypatch):
    for name, body in (("scontrol", "printf 'n1\\nn2\\n'"), ("srun", 'shift; exec "$@"')):
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    found = run(block("bash"), PATH=path, SLURM_JOB_NODELIST="n[1-2]", SLURM_PROCID=str(index))
    assert '["n1:12345","n2:12345"]' in found
    monkeypatch.setenv("TF_CONFIG", found)
    assert Cluster.from_environment() == Cluster(2, index)


@pytest.mark.parametrize("index", [0, 1])
def test_kubernetes(index, monkeypatch):
    args = re.search(r"args:\n\s+- \|\n((?: {14}.*\n)+)", block("yaml"))[1]
    monkeypatch.setenv("TF_CONFIG", run(args, JOB_COMPLETION_INDEX=str(index)))
    assert Cluster.from_environment() == Cluster(2, index)
