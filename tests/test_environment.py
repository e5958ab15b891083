"""What stands in the environment before TensorFlow is imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cyclegan_tf import environment

NAMES = ("TF_ENABLE_ONEDNN_OPTS", "TF_CPP_MIN_LOG_LEVEL", "TF_NUM_INTRAOP_THREADS")


@pytest.fixture(autouse=True)
def cleared(monkeypatch):
    """None of our variables is set; what was comes back afterwards."""
    for name in NAMES:
        monkeypatch.setenv(name, "")  # So that it is put back even if it was not set before.
        monkeypatch.delenv(name)


def ours() -> list[str | None]:
    return [os.environ.get(name) for name in NAMES]


@pytest.mark.parametrize(("cores", "threads"), [(1, "1"), (2, "1"), (3, "1"), (8, "4")])
def test_each_direction_of_a_training_gets_half_of_the_cores(cores, threads, monkeypatch):
    monkeypatch.setattr(environment, "usable_cores", lambda: cores)
    environment.prepare_environment(in_halves=True)
    assert ours() == ["1", "3", threads]


def test_other_commands_leave_the_threads_to_tensorflow():
    environment.prepare_environment()
    assert ours() == ["1", "3", None]


def test_what_the_user_has_set_stays(monkeypatch):
    for name in NAMES:
        monkeypatch.setenv(name, "7")
    environment.prepare_environment(in_halves=True)
    assert ours() == ["7", "7", "7"]


def test_cores_are_those_this_process_may_use(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 5, 7}, raising=False)
    assert environment.usable_cores() == 3


STARTING = """
import os, sys
from cyclegan_tf import environment

class Loud:
    def find_spec(self, name, path=None, target=None):
        if name == "tensorflow":
            os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called ...\\n")
            os.write(2, b"I0000 00:00:17 port.cc:153] oneDNN custom operations are on.\\n")
            os.write(2, b"E0000 00:00:17 cpu.cc:1] this CPU lacks AVX\\n")
            {ending}

sys.meta_path.insert(0, Loud())
try:
    environment.start_tensorflow()
    import tensorflow
except ModuleNotFoundError:
    os.write(2, b"afterwards\\n")
"""


@pytest.mark.parametrize(
    ("ending", "status", "after"),
    [
        ("raise ModuleNotFoundError", 0, ["afterwards"]),
        ("os.abort()", -6, []),
    ],
    ids=["an error", "a crash"],
)
def test_only_start_up_lines_of_the_import_are_left_out(ending, status, after):
    result = subprocess.run(
        [sys.executable, "-c", STARTING.format(ending=ending)], capture_output=True, text=True
    )
    assert result.returncode == status
    assert result.stderr.splitlines() == ["E0000 00:00:17 cpu.cc:1] this CPU lacks AVX", *after]


def test_all_lines_of_the_import_are_shown_to_who_asks_for_them(monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    code = STARTING.format(ending="raise ModuleNotFoundError")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert [line.split()[0] for line in result.stderr.splitlines()] == [
        "WARNING:",
        "I0000",
        "E0000",
        "afterwards",
    ]
