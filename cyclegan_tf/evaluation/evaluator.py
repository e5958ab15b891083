"""Scores of generators over the test pictures, with the protocol they follow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from cyclegan_tf.config import LEAST_EVALUATED, DataConfig
from cyclegan_tf.data.pipeline import picture_names, test_images, to_pixels
from cyclegan_tf.data.shards import Shards
from cyclegan_tf.errors import UserError
from cyclegan_tf.evaluation.features import FeatureNetwork
from cyclegan_tf.evaluation.metrics import (
    KID_SUBSETS,
    checkerboard,
    frechet_distance,
    kernel_distance,
    kid_subset_size,
    paired_scores,
    power_spectra,
)
from cyclegan_tf.models.networks import Generators, present

Scores = dict[str, float]

_BATCH = 8
_LEVELS = 127.5  # levels of 255 in a unit of [-1, 1]
# By --preprocess, what ``pipeline.fit`` does.
_RESIZES = {
    "resize_and_crop": "bicubic to {}",
    "scale_width": "bicubic to a width of {0}, the middle {0}",
    "none": "none, the middle {}",
}


@dataclass
class _Pass:
    """What one pass over the pictures of a domain yields."""

    translated: list[np.ndarray] = field(default_factory=list)  # uint8 batches, if kept
    features: list[np.ndarray] = field(default_factory=list)
    spectrum: np.ndarray | float = 0.0  # the sum of all
    cycle: list[np.ndarray] = field(default_factory=list)
    identity: list[np.ndarray] = field(default_factory=list)


class Evaluator:
    """Evaluates generators on the same test pictures every time.

    Args:
        shards: the data set, with a test split of at least 4 pictures a domain if there is a
            feature network, and of 1 without.
        data: how pictures come to size.
        network: what FID and KID are taken with; None leaves them out.
        max_images: at most so many pictures of each domain, the first ones, or the pairs of the
            first names; 0 for all.
        paired: whether to compare with the truth: pictures of equal file names show the same.
            Every one must have its partner, unless the data set is paired by itself or was mended:
            there a damaged record has its neighbour in its place, and the other pairs are compared.
        paired_flag, limit_flag: what asked for that and for the number, for messages.

    Raises:
        UserError: if there are too few test pictures, or they are not paired and should be.
    """

    def __init__(
        self,
        shards: Shards,
        data: DataConfig,
        network: FeatureNetwork | None,
        *,
        max_images: int = 0,
        paired: bool = False,
        paired_flag: str = "--paired",
        limit_flag: str = "--max-images",
    ) -> None:
        self.shards, self.data = shards, data
        self.network, self.paired = network, paired
        self.limit = max_images or -1
        self._translators: dict[tuple[int, int], Any] = {}
        self.counts = {domain: self._count(domain) for domain in "AB"}
        if paired:
            self._check_names(paired_flag, limit_flag)
            self.counts = {
                domain: self._enough(domain, len(self._taken[domain])) for domain in "AB"
            }

    def _count(self, domain: str) -> int:
        count = self.shards.manifest.count(f"test{domain}")
        return self._enough(domain, min(count, self.limit) if self.limit > 0 else count)

    def _enough(self, domain: str, count: int) -> int:
        least = self._least()
        if count < least:
            raise UserError(
                f"{self.shards.manifest.source}: {count} test picture(s) of {domain} to evaluate; "
                f"at least {least} are needed in test{domain}: put more there, or name others with "
                "--data"
            )
        return count

    def _least(self) -> int:
        return LEAST_EVALUATED if self.network else 1

    def _check_names(self, flag: str, limit_flag: str) -> None:
        a, b = (set(names) for names in self._all_names.values())
        manifest, mended = self.shards.manifest, self.shards.mended
        may_lack = manifest.paired or (mended is not None and mended.is_dir())
        if manifest.source.startswith("tfds:"):
            raise UserError(
                f"{flag}: {manifest.source} carries no file names that could tell the pairs; "
                "give a folder of its pictures"
            )
        if may_lack and not a & b:
            raise UserError(f"{manifest.source}: testA and testB have no file name in common")
        if a != b and not may_lack and not 0 < self.limit <= len(a & b):
            name = min(a ^ b)
            there, missing = "AB" if name in a else "BA"
            first = f", or give {limit_flag} {len(a & b)} for those that have one"
            raise UserError(
                f"{flag}: {manifest.source}: test{missing} has no {name.decode(errors='replace')}"
                f", which test{there} has; put each picture and its partner into testA and testB "
                f"under one name{first * (len(a & b) >= self._least())}"
            )

    def protocol(self) -> dict[str, object]:
        """What the scores depend on, for people and for JSON."""
        told: dict[str, object] = {
            "data": f"{self.shards.manifest.source} ({self.shards.manifest.fingerprint[:8]})",
            "pictures": f"{self.counts['A']} of testA, {self.counts['B']} of testB",
            "resize": _RESIZES[self.data.preprocess].format(self.data.image_size),
        }
        if self.network:
            told["features"] = self.network.name
            told["resize for features"] = self.network.resize
            subset = kid_subset_size(self.counts["A"], self.counts["B"])
            told["kid"] = f"{KID_SUBSETS} subsets of {subset}"
            if self.network.weights:
                told["feature weights"] = self.network.weights
        if self.paired:
            told["pairs"] = len(self._places["A"])
        return told

    def real_counts(self) -> dict[str, int]:
        """How many training pictures of each domain ``baselines`` puts in translated ones' place.

        As many as those are, as FID depends on the number; fewer if there are no more.
        """
        return {
            target: min(self.counts[source], self.shards.manifest.count(f"train{target}"))
            for source, target in ("AB", "BA")
        }

    def evaluate(self, generators: Generators) -> dict[str, Scores]:
        """Scores each direction that there is a generator for.

        Returns:
            ``{"ab": scores, "ba": scores}``, or one of them. ``cycle_error`` (real to translated
            and back; not without a way back) and ``identity_error`` (a picture that is of the
            target domain already), mean absolute errors in levels of 255, and ``checkerboard``
            (``metrics.checkerboard``). With a network
            ``fid_NAME``, ``kid_NAME`` and ``kid_sd_NAME`` against the test pictures of the target
            domain. With pairs, ``mae``, ``psnr`` and ``ssim`` against the truth, and
            ``distance_NAME`` with a network.
        """
        a = self._pass("A", generators.ab, generators.ba)
        b = self._pass("B", generators.ba, generators.ab)
        passes = {"ab": (a, b, "B"), "ba": (b, a, "A")}
        return {name: self._scores(*passes[name]) for name in present(generators)}

    def baselines(self) -> dict[str, dict[str, Scores]]:
        """Scores to compare with.

        Returns:
            ``{"untranslated": {"ab": scores, "ba": scores}, "real": {…}}``: of the source pictures
            as they are, and of real ones of the target domain: the checkerboard of the test
            pictures, FID and KID of as many training pictures as there are translated ones.
        """
        patterns = {domain: self._checkerboard(domain) for domain in "AB"}
        found: dict[str, dict[str, Scores]] = {"untranslated": {}, "real": {}}
        for source, target in ("AB", "BA"):
            direction = f"{source}{target}".lower()
            features = self._real_features[source] if self.network else None
            scores = {"checkerboard": patterns[source]}
            scores.update(self._distribution_scores(features, target))
            if self.paired:
                scores.update(self._truth_scores(self._partners(source), target))
            found["untranslated"][direction] = scores
            found["real"][direction] = {"checkerboard": patterns[target]}
            count = self.real_counts()[target]
            if self.network and count >= LEAST_EVALUATED:
                other = self._features(_pixels(self._images(f"train{target}", count)))
                found["real"][direction].update(self._distribution_scores(other, target))
        return found

    def _pass(self, domain: str, forward, backward) -> _Pass:
        """Translates a domain's pictures, and back, and through the other generator.

        Either of the two may be None, and what it would do is left out.
        """
        key = (id(forward), id(backward))  # so that each pair is traced once
        translate = self._translators.setdefault(key, _translator(forward, backward))
        found = _Pass()
        for real, _ in self._test_images[domain].batch(_BATCH):
            made = translate(real)
            for kind, errors in (("cycle", found.cycle), ("identity", found.identity)):
                if kind in made:
                    errors.append(made[kind].numpy())
            if "fake" not in made:
                continue
            pixels = to_pixels(made["fake"]).numpy()
            found.spectrum += power_spectra(pixels).sum(axis=0)
            if self.network:
                found.features.append(self.network.features(pixels))
            if self.paired:
                found.translated.append(pixels)
        return found

    def _scores(self, found: _Pass, other: _Pass, target: str) -> Scores:
        scores = {"cycle_error": float(np.concatenate(found.cycle).mean())} if found.cycle else {}
        scores |= {
            "identity_error": float(np.concatenate(other.identity).mean()),
            "checkerboard": checkerboard(found.spectrum),
        }
        if self.network:
            features = np.concatenate(found.features)
            scores.update(self._distribution_scores(features, target))
        if self.paired:
            source = "A" if target == "B" else "B"
            translated = np.concatenate(found.translated)[self._places[source]]
            scores.update(self._truth_scores(translated, target))
        return scores

    def _distribution_scores(self, features: np.ndarray | None, target: str) -> Scores:
        if self.network is None:
            return {}
        reference, key = self._real_features[target], self.network.key
        mean, deviation = kernel_distance(features, reference)
        return {
            f"fid_{key}": frechet_distance(features, reference),
            f"kid_{key}": mean,
            f"kid_sd_{key}": deviation,
        }

    def _truth_scores(self, pixels: np.ndarray, target: str) -> Scores:
        """Scores of pictures in the order of ``_partners``."""
        truth = self._partners(target)
        scores = paired_scores(pixels, truth)
        if self.network:
            parts = range(0, len(truth), _BATCH)
            distances = [
                self.network.distances(pixels[i : i + _BATCH], truth[i : i + _BATCH]) for i in parts
            ]
            scores[f"distance_{self.network.key}"] = float(np.concatenate(distances).mean())
        return scores

    def _checkerboard(self, domain: str) -> float:
        pixels = _pixels(self._test_images[domain])
        return checkerboard(sum(power_spectra(batch).sum(axis=0) for batch in pixels))

    @cached_property
    def _real_features(self) -> dict[str, np.ndarray]:
        return {domain: self._features(_pixels(self._test_images[domain])) for domain in "AB"}

    def _features(self, batches: Iterator[np.ndarray]) -> np.ndarray:
        return np.concatenate([self.network.features(batch) for batch in batches])

    @cached_property
    def _all_names(self) -> dict[str, list[bytes]]:
        return {domain: picture_names(self.shards, f"test{domain}") for domain in "AB"}

    @cached_property
    def _chosen(self) -> list[bytes] | None:
        """The first names of pairs, where not all are taken: domains differ in their order."""
        if not self.paired or not 0 < self.limit < max(map(len, self._all_names.values())):
            return None
        a, b = map(set, self._all_names.values())
        return sorted(a & b)[: self.limit]

    @cached_property
    def _taken(self) -> dict[str, list[bytes]]:
        """The names of the pictures that are evaluated, in the shards' order, which is a hash's."""
        return {
            domain: [name for name in names if self._chosen is None or name in self._chosen]
            for domain, names in self._all_names.items()
        }

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        """Where the pictures with a name of both domains are, each once, in the names' order."""
        places = {
            domain: {name: place for place, name in enumerate(names)}
            for domain, names in self._taken.items()
        }
        common = sorted(places["A"].keys() & places["B"].keys())
        return {domain: [places[domain][name] for name in common] for domain in "AB"}

    def _partners(self, domain: str) -> np.ndarray:
        """The test pictures that have a partner in the other domain, in its order."""
        pixels = np.concatenate(list(_pixels(self._test_images[domain])))
        return pixels[self._places[domain]]

    @cached_property
    def _test_images(self) -> dict[str, tf.data.Dataset]:
        """Made once: each dataset traces functions of its own, which add up in a long training."""
        return {domain: self._images(f"test{domain}", self.limit, self._chosen) for domain in "AB"}

    def _images(self, split: str, limit: int, names: list[bytes] | None = None) -> tf.data.Dataset:
        return test_images(self.shards, split, self.data, limit, names)


def _pixels(images: tf.data.Dataset) -> Iterator[np.ndarray]:
    """uint8 batches of (image, name)."""
    return (to_pixels(batch).numpy() for batch, _ in images.batch(_BATCH))


def _translator(forward, backward):
    """A function: the translation of a batch, its cycle errors and its identity errors."""

    @tf.function(reduce_retracing=True, autograph=False)
    def translate(real: tf.Tensor) -> dict[str, tf.Tensor]:
        made = {}
        if forward is not None:
            made["fake"] = forward(real, training=False)
        if backward is not None:
            made["identity"] = _error(backward(real, training=False), real)
        if len(made) == 2:
            made["cycle"] = _error(backward(made["fake"], training=False), real)
        return made

    return translate


def _error(images: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
    """Mean absolute error of each picture in levels of 255."""
    return _LEVELS * tf.reduce_mean(tf.abs(images - real), axis=[1, 2, 3])
