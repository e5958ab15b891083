"""Shared by the tests of the reporting: samples that show where each pixel came from."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cyclegan_tf.reporting.samples import Samples


@pytest.fixture(scope="session")
def make_samples():
    """A function: so many samples of a size, each field and picture of its own colour."""

    def make(count: int = 2, size: int = 16) -> Samples:
        arrays = {}
        for index, field in enumerate(dataclasses.fields(Samples)):
            pictures = np.zeros((count, size, size, 3), np.uint8)
            pictures[..., 0] = 40 * index
            pictures[..., 1] = 50 * np.arange(count)[:, None, None]
            pictures[:, : size // 2, :, 2] = 200  # The upper half is more blue.
            arrays[field.name] = pictures
        return Samples(**arrays)

    return make
