"""Sample pictures of a run: the same test pictures every time, so that progress can be seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from cyclegan_tf.config import DataConfig
from cyclegan_tf.data.pipeline import test_images, to_pixels
from cyclegan_tf.data.shards import Shards
from cyclegan_tf.models.networks import Generators
from cyclegan_tf.reporting.metrics import MetricsLog
from cyclegan_tf.reporting.samples import Samples, grid, save_samples

PICTURES = 6


class Sampler:
    """Translates the first few test pictures of both domains there and back, or one-sided, A to B.

    Args:
        shards: the data set; without a test split, training pictures are shown.
        generators: what translates; their weights change between calls.
        data: how pictures come to size.
    """

    def __init__(self, shards: Shards, generators: Generators, data: DataConfig) -> None:
        self.generators = generators
        real_a, real_b = (
            fixed_pictures(shards, shown_split(shards, domain), data) for domain in "AB"
        )
        count = min(len(real_a), len(real_b))  # A grid has as many rows in both directions.
        self.real_a, self.real_b = real_a[:count], real_b[:count]

    def save(self, run_dir: Path, step: int, log: MetricsLog) -> None:
        """Writes the pictures of ``step`` to run_dir/samples and to TensorBoard."""
        pictures = self._translate(tf.constant(self.real_a), tf.constant(self.real_b))
        samples = Samples(**{name: to_pixels(batch).numpy() for name, batch in pictures.items()})
        save_samples(run_dir, step, samples)
        for direction in samples.directions():
            log.images(step, f"samples/{direction}", grid(samples, direction))

    @tf.function(autograph=False, reduce_retracing=True)
    def _translate(self, real_a: tf.Tensor, real_b: tf.Tensor) -> dict[str, tf.Tensor]:
        ab, ba = self.generators
        pictures = {"real_a": real_a, "real_b": real_b, "fake_b": ab(real_a, training=False)}
        if ba is not None:
            pictures["fake_a"] = ba(real_b, training=False)
            pictures["cycled_a"] = ba(pictures["fake_b"], training=False)
            pictures["cycled_b"] = ab(pictures["fake_a"], training=False)
        return pictures


def shown_split(shards: Shards, domain: str, least: int = 1) -> str:
    """A domain's test split, or the training split where ``least`` pictures are only there."""
    test, train = (shards.manifest.count(f"{split}{domain}") for split in ("test", "train"))
    return f"test{domain}" if test >= min(least, train) else f"train{domain}"


def fixed_pictures(
    shards: Shards, split: str, data: DataConfig, limit: int = PICTURES
) -> np.ndarray:
    """The first pictures of a split: float32 [n, size, size, 3] in [-1, 1]."""
    pictures = test_images(shards, split, data, limit).map(lambda image, _name: image)
    return np.stack(list(pictures.as_numpy_iterator()))
