"""How long an export takes, how large it is, and how fast it translates."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, Callable

import numpy as np

from cyclegan_tf.benchmarking.table import Table
from cyclegan_tf.config import Config
from cyclegan_tf.exporting.saved_model import save_generator
from cyclegan_tf.exporting.translator import load
from cyclegan_tf.models.generator import build_generator

_MEGABYTE = 1e6


def measure_export(config: Config, rounds: int) -> Table:
    """Seconds to save an untrained generator as a SavedModel, to load it, and per translation.

    Args:
        config: the generator's settings and the side of the picture that is translated.
        rounds: how often to measure each.
    """
    size = config.data.image_size
    generator = build_generator(config)
    picture = np.random.default_rng(config.run.seed).integers(0, 256, (1, size, size, 3), np.uint8)
    table = Table(f"SavedModel of {config.preset} at {size} px", "s")
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / "model"
            table.add("save", _timed(save_generator, generator, model)[0])
            seconds, translator = _timed(load, model)
            table.add("load", seconds)
            for name in ("first translation", "each further one"):
                table.add(name, _timed(translator.translate_batch, picture)[0])
            files = [path.stat().st_size for path in model.rglob("*") if path.is_file()]
    table.remark(f"{sum(files) / _MEGABYTE:.1f} MB")
    return table


def _timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Seconds that the call took, and what it returned."""
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result
