"""Shared by all tests: quiet TensorFlow, two virtual CPUs, and networks as small as they get."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import pytest
import tensorflow as tf

from cyclegan_tf.presets import PRESETS, make_config

tf.get_logger().setLevel("ERROR")

# Two virtual CPUs for two replicas; possible only before TensorFlow's first operation.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

TINY = {
    "image_size": 16,
    "generator_filters": 2,
    "generator_blocks": 2,
    "discriminator_filters": 2,
    "discriminator_strided": 2,
}


@pytest.fixture(scope="session", autouse=True)
def importable() -> Iterator[None]:
    """Child processes find the packages and the tests wherever pytest was started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent.parent), prepend=os.pathsep)
        yield


@pytest.fixture(scope="session")
def tiny_config():
    """A function: a preset's config at 16 pixels, 2-channel networks, some settings changed."""

    def make(preset: str = "paper", **overrides):
        return make_config(preset, **{**TINY, **overrides})

    return make


@pytest.fixture(params=list(PRESETS))
def preset(request) -> str:
    """Every preset in turn."""
    return request.param


@pytest.fixture(scope="session")
def pictures():
    """A function: float32 [count, size, size, 3] in [-1, 1], the same for the same seed."""

    def draw(count: int = 1, size: int = 16, seed: int = 0) -> np.ndarray:
        drawn = np.random.default_rng(seed).uniform(-1, 1, (count, size, size, 3))
        return drawn.astype(np.float32)

    return draw


@pytest.fixture(scope="session")
def mirrored():
    """A function: the strategy that a run with so many replicas trains under."""
    from cyclegan_tf.config import RunConfig
    from cyclegan_tf.training.devices import make_strategy

    def make(replicas: int = 1) -> tf.distribute.Strategy:
        return make_strategy(RunConfig(replicas=replicas, batch_size=replicas))

    return make


@pytest.fixture(scope="session")
def new_training(mirrored):
    """A function: a fresh TrainingStep, with a TrainingState and a strategy of its own."""
    from cyclegan_tf.training.contrastive import make_step
    from cyclegan_tf.training.state import TrainingState

    def make(config, replicas: int = 1, total_steps: int = 100, precision: str = "float32"):
        strategy = mirrored(replicas)
        state = TrainingState(config, strategy, precision)
        return make_step(config, state, strategy, total_steps)

    return make


@pytest.fixture
def eager():
    """Functions run operation by operation: for a few small steps, tracing would take longer."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="session")
def pairs():
    """A function: an endless iterator over batches of (A, B) for a TrainingStep."""

    def iterate(step, a: np.ndarray, b: np.ndarray):
        data = tf.data.Dataset.from_tensor_slices((a, b)).repeat()
        data = data.batch(step.config.run.batch_size, drop_remainder=True)
        return iter(data)

    return iterate
