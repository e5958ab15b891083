"""Measurements of the input and of the step, each with its median over rounds in alternation."""

from cyclegan_tf.benchmarking.data import measure_data
from cyclegan_tf.benchmarking.step import measure_step

__all__ = ["measure_data", "measure_step"]
