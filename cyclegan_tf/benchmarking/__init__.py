"""Measurements of the input, the step, the start, the memory and the exports.

Everything that is compared takes turns, so that other work on the machine slows all of it alike.
"""

from __future__ import annotations

from typing import Callable

from cyclegan_tf.benchmarking.table import Table

SUBJECTS = ("step", "data", "start", "memory", "export")


def measurement(what: str) -> Callable[..., Table]:
    """The function that measures one of ``SUBJECTS``; start and memory import no TensorFlow."""
    if what == "step":
        from cyclegan_tf.benchmarking.step import measure_step as measure
    elif what == "data":
        from cyclegan_tf.benchmarking.data import measure_data as measure
    elif what == "start":
        from cyclegan_tf.benchmarking.processes import measure_start as measure
    elif what == "memory":
        from cyclegan_tf.benchmarking.processes import measure_memory as measure
    else:
        from cyclegan_tf.benchmarking.export import measure_export as measure
    return measure
