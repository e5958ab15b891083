"""The tutorial's step is a fair opponent: it learns the same networks with the same losses."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from cyclegan_tf.benchmarking.tutorial import TutorialStep
from cyclegan_tf.models.networks import build_networks


@pytest.mark.parametrize("upsampling", ["transpose", "resize"])
def test_its_kernels_are_those_of_paper(tiny_config, upsampling):
    config = tiny_config("paper", generator_upsampling=upsampling)
    networks, step = build_networks(config, 16), TutorialStep(config)
    for ours, theirs in zip(networks, step._networks()):
        shapes = [
            [weight.shape for weight in model.trainable_variables if len(weight.shape) == 4]
            for model in (ours, theirs)
        ]
        assert shapes[0] == shapes[1]


def test_it_trains_all_four_networks(tiny_config, pictures, eager):
    step = TutorialStep(tiny_config("paper", learning_rate=0.01))
    before = [weight for model in step._networks() for weight in model.get_weights()]
    cycle = step.run(tf.constant(pictures()), tf.constant(pictures(seed=1)))
    after = [weight for model in step._networks() for weight in model.get_weights()]
    assert np.isfinite(float(cycle))
    kernels = [(old, new) for old, new in zip(before, after) if old.ndim == 4]
    assert all((old != new).any() for old, new in kernels)
