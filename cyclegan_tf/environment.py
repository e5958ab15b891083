"""Settings of TensorFlow that must stand before it is imported."""

from __future__ import annotations

import os


def prepare_environment(training: bool = False) -> None:
    """Sets TensorFlow's environment variables, unless the user has set them.

    oneDNN's convolutions are on by default only on CPUs with AVX-512 VNNI; on others they make the
    training step faster too (docs/performance.md). TensorFlow's own start-up lines are left out.

    Args:
        training: whether the training step will run. Its two directions are independent, so each
            gets half of the cores: that costs less than sharing out every small operation.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if training:
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(max(1, _cores() // 2)))


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
