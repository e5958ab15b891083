"""Settings of TensorFlow that must stand before it is imported."""

from __future__ import annotations

import os


def prepare_environment() -> None:
    """Sets TensorFlow's environment variables, unless the user has set them.

    oneDNN's convolutions are on by default only on CPUs with AVX-512 VNNI; on others they make the
    training step faster too (docs/performance.md). TensorFlow's own start-up lines are left out.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
