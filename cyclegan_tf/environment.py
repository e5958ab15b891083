"""TensorFlow's start: settings that must stand before it is imported, and the import itself."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from cyclegan_tf.errors import UserError, first_line

_STDERR = 2  # the descriptor, which native code writes to past ``sys.stderr``
_LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"

# TensorFlow 2.21 logs these while it is imported, whatever its log level.
_WITHOUT_START_UP_LINES = r"""
import re, sys
for line in sys.stdin.buffer:
    if not re.match(rb"I\d{4} |WARNING: All log messages before absl::InitializeLog", line):
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
"""


def start_tensorflow(in_halves: bool = False) -> None:
    """Imports TensorFlow after ``prepare_environment``, without the lines it logs meanwhile."""
    prepare_environment(in_halves)
    if "tensorflow" not in sys.modules and os.environ[_LOG_LEVEL] != "0":
        with _filtered_stderr(_WITHOUT_START_UP_LINES):
            importlib.import_module("tensorflow")


def prepare_environment(in_halves: bool = False) -> None:
    """Sets TensorFlow's environment variables, unless the user has set them.

    oneDNN's convolutions are on by default only on CPUs with AVX-512 VNNI; on others they make the
    training step faster too (docs/performance.md). TensorFlow's own start-up lines are left out.

    Args:
        in_halves: whether a training step of two independent halves will run, usually the two
            directions. Each gets half of the cores: that costs less than sharing out every small
            operation.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault(_LOG_LEVEL, "3")
    if in_halves:
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(max(1, usable_cores() // 2)))


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def enough_memory(short: str, advice: str) -> Iterator[None]:
    """Where a device has too little memory inside, one line says so.

    Args:
        short: what it is too little for, with the flag.
        advice: what helps.

    Raises:
        UserError: if TensorFlow finds no memory.
    """
    import tensorflow as tf

    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise UserError(f"{short} ({first_line(error)}); {advice}") from None


@contextmanager
def _filtered_stderr(program: str) -> Iterator[None]:
    """Passes what is written to stderr through a Python program.

    It is a process of its own, so that the last words of a native crash still arrive, as when the
    CPU lacks instructions that TensorFlow needs.
    """
    sys.stderr.flush()
    kept = os.dup(_STDERR)
    command = [sys.executable, "-S", "-c", program]
    # In a session of its own, so that Ctrl-C is for this process alone.
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as filtering:
        os.dup2(filtering.stdin.fileno(), _STDERR)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, _STDERR)
            os.close(kept)
