"""FID and KID against an independent implementation, on the same features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance, poly_mmd

from cyclegan_tf.evaluation.metrics import frechet_distance, kernel_distance, kid_subset_size


def features(count: int, channels: int, seed: int) -> np.ndarray:
    """Correlated features, not centred; another distribution for another seed."""
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(channels, channels))
    return random.gamma(2.0, 1.0, (count, channels)) @ mixing / channels + 0.2 * seed


class Passed(torch.nn.Module):
    """A feature network that gives back what it is given."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_features = channels

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.reshape(len(images), -1)


def independent(metric, one: np.ndarray, other: np.ndarray):
    metric.set_dtype(torch.float64)
    for values, real in ((one, False), (other, True)):
        metric.update(torch.from_numpy(values)[:, :, None, None], real=real)
    return metric.compute()


@pytest.mark.parametrize(("count", "other", "channels"), [(300, 200, 24), (70, 90, 64)])
def test_fid_as_torchmetrics(count, other, channels):
    one, two = features(count, channels, 1), features(other, channels, 2)
    expected = independent(FrechetInceptionDistance(Passed(channels)), one, two)
    assert float(expected) > 0.1
    assert frechet_distance(one, two) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize(("count", "other", "channels"), [(30, 20, 64), (20, 200, 32)])
def test_fid_of_fewer_pictures_than_channels(count, other, channels):
    """Where a covariance has no full rank, the root is taken of what torchmetrics calls noise."""
    one, two = features(count, channels, 1), features(other, channels, 2)
    expected = independent(FrechetInceptionDistance(Passed(channels)), one, two)
    assert frechet_distance(one, two) == pytest.approx(float(expected), rel=1e-4)


def test_fid_by_hand():
    one = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
    assert frechet_distance(one, one) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(one, one + [3.0, 4.0]) == pytest.approx(25.0)
    # Variances 4/3 and 9 · 4/3 in both directions: 2 (√(4/3) − 3 √(4/3))².
    assert frechet_distance(one, 3 * one - [2.0, 2.0]) == pytest.approx(2 * 4 * 4 / 3)


def test_kid_as_torchmetrics():
    one, two = features(60, 48, 1), features(60, 48, 2)
    metric = KernelInceptionDistance(Passed(48), subsets=3, subset_size=60)  # All are in each.
    mean, deviation = independent(metric, one, two)
    found = kernel_distance(one, two, subsets=3, subset_size=60)
    assert float(mean) > 1e-3
    assert found[0] == pytest.approx(float(mean), rel=1e-4)
    assert found[1] == pytest.approx(0.0, abs=1e-12) == float(deviation.round(decimals=12))


def test_kid_over_subsets_as_torchmetrics_on_the_same_subsets():
    one, two = features(50, 16, 1), features(40, 16, 2)
    random = np.random.default_rng(5)
    values = []
    for _ in range(20):
        chosen = [random.choice(len(values_), 15, replace=False) for values_ in (one, two)]
        parts = [torch.from_numpy(values_[i]) for values_, i in zip((one, two), chosen)]
        values.append(float(poly_mmd(*parts)))
    found = kernel_distance(one, two, subsets=20, subset_size=15, seed=5)
    assert found == pytest.approx((np.mean(values), np.std(values)), rel=1e-4)


def test_kid_of_one_source_is_about_zero():
    both = features(400, 32, 1)
    mean, deviation = kernel_distance(both[::2], both[1::2])
    assert abs(mean) < deviation
    assert kernel_distance(both[::2], both[1::2]) == (mean, deviation)  # the same every time


@pytest.mark.parametrize(
    ("count", "other", "size"), [(4, 9, 2), (100, 100, 50), (5000, 3000, 1000)]
)
def test_subsets_are_half_of_the_smaller_set(count, other, size):
    assert kid_subset_size(count, other) == size


@pytest.mark.parametrize("size", [1, 11])
def test_subsets_of_an_impossible_size_are_refused(size):
    with pytest.raises(ValueError, match="must be from 2 to 10"):
        kernel_distance(np.ones((10, 3)), np.ones((20, 3)), subset_size=size)
