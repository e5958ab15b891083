"""What stands in the environment before TensorFlow is imported."""

from __future__ import annotations

import os

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
    monkeypatch.setattr(environment, "_cores", lambda: cores)
    environment.prepare_environment(training=True)
    assert ours() == ["1", "3", threads]


def test_other_commands_leave_the_threads_to_tensorflow():
    environment.prepare_environment()
    assert ours() == ["1", "3", None]


def test_what_the_user_has_set_stays(monkeypatch):
    for name in NAMES:
        monkeypatch.setenv(name, "7")
    environment.prepare_environment(training=True)
    assert ours() == ["7", "7", "7"]


def test_cores_are_those_this_process_may_use():
    assert environment._cores() >= 1
