"""How a run is doing, in plain words: what goes wrong with CycleGANs, and what usually helps.

``HealthMonitor`` measures on a few fixed pictures, with each sample and each evaluation;
``complaints`` judges what was measured and logged so far. The limits are wide: a run that is merely
not done yet should hear nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from cyclegan_tf.config import Config
from cyclegan_tf.data.shards import Shards
from cyclegan_tf.models.networks import present
from cyclegan_tf.reporting.metrics import HEALTH_MEASURE
from cyclegan_tf.training.sampler import fixed_pictures, shown_split
from cyclegan_tf.training.state import TrainingState

Record = dict[str, Any]  # a line of metrics.jsonl

PICTURES = 32
_LEAST = 8  # test pictures; how much fewer differ from each other says nothing
_BATCH = 8
_SMALL = 16  # side at which layout and brightness are compared
_PATCHES = 8  # patches along a side
_EXTREME = 8  # levels from black or full, within which a channel counts as clipped

# From which share of the training on a run is judged, but from no earlier and no later step than
# these.
_JUDGED_SHARE, _JUDGED_EARLIEST, _JUDGED_LATEST = 0.05, 200, 1000

# Limits. What was measured on good and on spoilt runs is in docs/results.md.
DIVERSITY = 0.35  # of the target domain's
ACCURACY_STRONG, MARGIN_STRONG = 0.99, 0.9
ACCURACY_WEAK, MARGIN_WEAK, RANKING_WEAK = 0.6, 0.05, 0.57
MARGIN_BY_HEART, SHARE_UNSEEN = 0.3, 0.5
GENERATOR_LOSS = 0.02
INVERTED = -0.2
CLIPPED = 0.05
CYCLE_RISE = 1.5
GRADIENT_RISE, GRADIENT_FALL, GRADIENT_LEAST = 10.0, 0.03, 1e-5


class Log(NamedTuple):
    """What a run is judged by.

    Attributes:
        measured: the records that hold health measures, oldest first.
        losses: those that hold losses, oldest first.
        config: the settings.
    """

    measured: list[Record]
    losses: list[Record]
    config: Config


class Complaint(NamedTuple):
    """Something that goes wrong.

    Attributes:
        check: which check found it and where: "diversity_ab".
        text: one line in plain words, with what usually helps.
    """

    check: str
    text: str


class HealthMonitor:
    """Measures a training's state on fixed pictures.

    Args:
        config: the settings.
        state: what is trained.
        shards: the data set; where it has few test pictures, training pictures are taken.
    """

    def __init__(self, config: Config, state: TrainingState, shards: Shards) -> None:
        self.config, self.state, self.shards = config, state, shards
        # Made once, so that they are traced once.
        self.networks = {name: _in_graph(model) for name, model in present(state.networks).items()}

    @cached_property
    def reals(self) -> tuple[np.ndarray, np.ndarray]:
        """The pictures of A and B: float32 [n, size, size, 3]; not read before the first step."""
        a, b = (self._pictures(shown_split(self.shards, domain, _LEAST)) for domain in "AB")
        return a, b

    @cached_property
    def trained(self) -> dict[str, np.ndarray]:
        """Training pictures by domain, "a" and "b", where ``reals`` are test pictures."""
        return {
            domain.lower(): self._pictures(f"train{domain}")
            for domain in "AB"
            if shown_split(self.shards, domain, _LEAST) == f"test{domain}"
        }

    def _pictures(self, split: str) -> np.ndarray:
        return fixed_pictures(self.shards, split, self.config.data, PICTURES)

    def measure(self) -> dict[str, float]:
        """What ``complaints`` judges, by name; "ab" and "ba" are directions, "a" and "b" domains.

        ``diversity_*``: how much translated pictures differ from each other, as a share of how much
        real ones of the target domain do. ``brightness_*``: correlation of the brightness of a
        picture and of its translation, from −1 to 1. ``clipped_*``: share of patches that are all
        black, white or fully saturated, above what real pictures have. ``accuracy_real_*``,
        ``accuracy_fake_*`` and ``margin_*``: how surely the discriminators tell, 1 being perfect
        (not for the Wasserstein loss, which has no boundary); of real pictures they see test
        pictures, where there are enough, and ``margin_trained_*`` is that of training pictures.
        ``ranking_*``: how often a real patch is thought more real than a generated one; 0.5 is
        guessing, whatever the scale of the decisions, which a gradient penalty makes small.
        ``gradient_*``: the root of the mean squared gradient norm over the last steps, from Adam's
        second moments.
        """
        reals = dict(zip("ab", self.reals))
        measures = {}
        for source, target in ("ab", "ba"):
            direction = source + target
            generator = self.networks.get(f"generator_{direction}")
            if generator is None:  # of a one-sided training
                continue
            fake = _in_batches(generator, reals[source])
            measures |= _picture_measures(direction, reals[source], fake, reals[target])
            discriminator = self.networks[f"discriminator_{target}"]
            measures |= self._decisions(target, discriminator, reals[target], fake)
        return {
            **measures,
            "gradient_generators": self._gradient(self.state.generator_optimizer),
            "gradient_discriminators": self._gradient(self.state.discriminator_optimizer),
        }

    def _decisions(self, domain: str, discriminator, real, fake) -> dict[str, float]:
        kind = self.config.losses.gan_loss
        if kind == "wasserstein":
            return {}
        of_fake = _in_batches(discriminator, fake)
        measures = decision_measures(kind, _in_batches(discriminator, real), of_fake)
        if domain in self.trained:
            of_trained = _in_batches(discriminator, self.trained[domain])
            known = decision_measures(kind, of_trained, of_fake)
            measures["margin_trained"] = known["margin"]
        return {f"{name}_{domain}": value for name, value in measures.items()}

    def _gradient(self, optimizer) -> float:
        squares = sum(float(tf.reduce_sum(moment)) for moment in optimizer.second_moments)
        done = self.state.steps_done()
        known = 1.0 - self.config.optimizer.beta_2**done
        return math.sqrt(squares / known) if done else 0.0


def _in_graph(model) -> Callable[[tf.Tensor], tf.Tensor]:
    return tf.function(lambda batch: model(batch, training=False), reduce_retracing=True)


def _in_batches(network: Callable[[tf.Tensor], tf.Tensor], images: np.ndarray) -> np.ndarray:
    parts = [images[i : i + _BATCH] for i in range(0, len(images), _BATCH)]
    return np.concatenate([network(tf.constant(part)).numpy() for part in parts])


def decision_measures(kind: str, real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
    """How surely a discriminator tells real from generated pictures.

    Args:
        kind: the adversarial loss: "least_squares", "vanilla" or "hinge".
        real: its decisions on real pictures, logits of any shape.
        fake: those on generated ones.

    Returns:
        The shares of right decisions; the margin: the difference of the mean decisions, in units of
        what the loss asks for; and the ranking: the share of pairs in which the real one's decision
        is the higher one, ties being half.
    """
    ranking = _ranking(real, fake)
    if kind == "vanilla":
        real, fake = (1.0 / (1.0 + np.exp(-np.clip(values, -50, 50))) for values in (real, fake))
    boundary, unit = (0.0, 2.0) if kind == "hinge" else (0.5, 1.0)
    return {
        "accuracy_real": float((real > boundary).mean()),
        "accuracy_fake": float((fake < boundary).mean()),
        "margin": float(real.mean() - fake.mean()) / unit,
        "ranking": ranking,
    }


def _ranking(real: np.ndarray, fake: np.ndarray) -> float:
    ordered = np.sort(fake, axis=None)
    lower, not_higher = (np.searchsorted(ordered, real, side) for side in ("left", "right"))
    return float((lower + not_higher).mean() / (2 * fake.size))


def _picture_measures(direction: str, source, translated, target) -> dict[str, float]:
    most = max(clipped_share(source), clipped_share(target))
    return {
        f"diversity_{direction}": diversity(translated) / max(diversity(target), 1e-6),
        f"brightness_{direction}": brightness_correlation(source, translated),
        f"clipped_{direction}": max(0.0, clipped_share(translated) - most),
    }


def diversity(images: np.ndarray) -> float:
    """How much pictures differ: the mean standard deviation of a pixel from picture to picture.

    Args:
        images: float [n, height, width, 3], n of at least 2; compared at 16 × 16 pixels.
    """
    return float(_small(images).std(axis=0, ddof=1).mean())


def brightness_correlation(images: np.ndarray, translated: np.ndarray) -> float:
    """The mean correlation of the brightness within a picture and within its translation.

    Args:
        images: float [n, height, width, 3], compared at 16 × 16 pixels.
        translated: the same.
    """
    one, other = (
        _small(batch).mean(axis=-1).reshape(len(batch), -1) for batch in (images, translated)
    )
    one, other = (values - values.mean(axis=1, keepdims=True) for values in (one, other))
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(((one * other).sum(axis=1) / np.maximum(norms, 1e-6)).mean())


def clipped_share(images: np.ndarray) -> float:
    """The share of patches, 8 × 8 to a picture, whose every channel is at black or at full.

    Args:
        images: float [n, side, side, 3] in [-1, 1].
    """
    clipped = (np.abs(images) >= 1.0 - 2.0 * _EXTREME / 255.0).all(axis=-1)
    side = clipped.shape[1] // _PATCHES
    clipped = clipped[:, : side * _PATCHES, : side * _PATCHES]
    patches = clipped.reshape(len(clipped), _PATCHES, side, _PATCHES, side)
    return float(patches.all(axis=(2, 4)).mean())


def _small(images: np.ndarray) -> np.ndarray:
    return tf.image.resize(images, (_SMALL, _SMALL), method="area").numpy()


# --- What is wrong -------------------------------------------------------------------------------


def complaints(records: list[Record], total_steps: int, config: Config) -> list[Complaint]:
    """What is wrong with a run, judged by its newest record that holds health measures.

    Args:
        records: all lines of metrics.jsonl so far, oldest first.
        total_steps: the length of the training; its very beginning is not judged.
        config: the run's settings.
    """
    log = Log(
        measured=[record for record in records if HEALTH_MEASURE in record],
        losses=[record for record in records if "generator_ab" in record],
        config=config,
    )
    if not log.measured:
        return []
    start = min(max(_JUDGED_SHARE * total_steps, _JUDGED_EARLIEST), _JUDGED_LATEST)
    if log.measured[-1]["step"] < start:
        return []
    return [complaint for check in _CHECKS for complaint in check(log)]


_WAYS = {"ab": "A to B", "ba": "B to A"}


_LOWER_RATE = "a lower --learning-rate"
_SKIP = "--generator-skip"
_SMOOTH = "--generator-upsampling bilinear"
_AUGMENT = "--discriminator-augment color,translation,cutout"
# Advice that a run follows already.
_FOLLOWED: dict[str, Callable[[Config], bool]] = {
    _SKIP: lambda config: config.generator.skip,
    _SMOOTH: lambda config: config.generator.upsampling == "bilinear",
    _AUGMENT: lambda config: len(config.discriminator.augmentations()) == 3,
}


def _helps(log: Log, *advice: str) -> str:
    """What is worth trying, of what the run does not do already."""
    new = [one for one in advice if not _FOLLOWED.get(one, lambda config: False)(log.config)]
    return f"Usually helps: {', '.join(new)}."


def _keeps_content(log: Log) -> str:
    """The setting that holds a translation to what its source shows."""
    return f"a higher {'--contrast-weight' if log.config.one_sided() else '--lambda-cycle'}"


def _keeps_colours(log: Log) -> str:
    """The setting that leaves pictures of the target domain as they are."""
    if log.config.one_sided():
        weight, first = log.config.contrast.identity, "--contrast-identity 1"
    else:
        weight, first = log.config.losses.lambda_identity, "--lambda-identity 5"
    return f"a higher {first.split()[0]}" if weight else first


def _diversity(log: Log) -> Iterator[Complaint]:
    for key, way in _WAYS.items():
        share = _value(log.measured[-1], f"diversity_{key}")
        if share < DIVERSITY:
            yield Complaint(
                f"diversity_{key}",
                f"Mode collapse {way}: the translated pictures differ from each other only "
                f"{share:.2f} times as much as real ones. "
                + _helps(log, _keeps_content(log), _LOWER_RATE, _SKIP),
            )


def _discriminators(log: Log) -> Iterator[Complaint]:
    # A student that is as good as its teacher makes a discriminator guess.
    imitates = bool(log.config.distillation.teacher)
    for domain in "ab":
        real, fake, margin = (
            _value(log.measured[-1], f"{name}_{domain}")
            for name in ("accuracy_real", "accuracy_fake", "margin")
        )
        told = (
            f"it tells {real:.0%} of real and {fake:.0%} of generated patches, margin {margin:.2f}"
        )
        name = f"Discriminator {domain.upper()}"
        known = _value(log.measured[-1], f"margin_trained_{domain}")
        if known >= MARGIN_BY_HEART and margin <= SHARE_UNSEEN * known:
            yield Complaint(
                f"discriminator_by_heart_{domain}",
                f"{name} knows its training pictures by heart: margin {known:.2f} on them, "
                f"{margin:.2f} on test pictures. "
                + _helps(log, _AUGMENT, "more pictures", "fewer --discriminator-filters"),
            )
        elif min(real, fake) >= ACCURACY_STRONG and margin >= MARGIN_STRONG:
            yield Complaint(
                f"discriminator_strong_{domain}",
                f"{name} is too strong: {told}, so the generator learns little from it. "
                + _helps(
                    log, "fewer --discriminator-filters", "a lower --discriminator-rate", _AUGMENT
                ),
            )
        elif _guesses(log.measured, domain) and not imitates:
            yield Complaint(
                f"discriminator_weak_{domain}",
                f"{name} is too weak: {told}, which is guessing. "
                + _helps(
                    log,
                    "more --discriminator-filters",
                    "a higher --discriminator-rate",
                    _LOWER_RATE,
                ),
            )


def _guesses(measured: list[Record], domain: str) -> bool:
    """In two looks in a row: with batches of one, a sound one may guess for a moment."""
    names = ("accuracy_real", "accuracy_fake", "margin", "ranking")
    looks = [[_value(look, f"{name}_{domain}") for name in names] for look in measured[-2:]]
    return len(looks) == 2 and all(
        (real + fake) / 2 <= ACCURACY_WEAK and margin <= MARGIN_WEAK and ranking <= RANKING_WEAK
        for real, fake, margin, ranking in looks
    )


def _generator_losses(log: Log) -> Iterator[Complaint]:
    # What it is where the discriminator takes everything for real; the Wasserstein loss has no end.
    bounds = {"hinge": -1.0, "wasserstein": -math.inf}
    least = bounds.get(log.config.losses.gan_loss, 0.0)
    for key, way in _WAYS.items():
        recent = _recent(log.losses, f"generator_{key}")
        if recent < least + GENERATOR_LOSS:
            yield Complaint(
                f"generator_{key}",
                f"The adversarial loss of the generator {way} has collapsed to {recent:.4f}: the "
                "discriminator takes everything for real. "
                + _helps(log, "more --discriminator-filters", _LOWER_RATE),
            )


def _colours(log: Log) -> Iterator[Complaint]:
    for key, way in _WAYS.items():
        correlation = _value(log.measured[-1], f"brightness_{key}")
        if correlation < INVERTED:
            yield Complaint(
                f"brightness_{key}",
                f"Colours inverted {way}: bright becomes dark (correlation {correlation:.2f}). "
                + _helps(log, _keeps_colours(log), _SKIP, "another --seed"),
            )


def _clipped(log: Log) -> Iterator[Complaint]:
    for key, way in _WAYS.items():
        share = _value(log.measured[-1], f"clipped_{key}")
        if share > CLIPPED:
            yield Complaint(
                f"clipped_{key}",
                f"Black or saturated patches {way}: {share:.0%} more of the picture than in real "
                "ones. " + _helps(log, _LOWER_RATE, _keeps_colours(log), _SMOOTH),
            )


def _cycle(log: Log) -> Iterator[Complaint]:
    for domain in "ab":
        name = f"cycle_{domain}"
        windows = _windows([_value(record, name) for record in log.losses])
        if len(windows) >= 3 and windows[-1] > CYCLE_RISE * min(windows):
            yield Complaint(
                name,
                f"The cycle error of {domain.upper()} is rising: {windows[-1]:.3f} after "
                f"{min(windows):.3f}. " + _helps(log, _LOWER_RATE, _keeps_content(log)),
            )


def _gradients(log: Log) -> Iterator[Complaint]:
    for kind in ("generators", "discriminators"):
        norms = _gradient_norms(log, f"gradient_{kind}")
        if not norms:
            continue
        *earlier, newest = norms
        alive = [one.norm for one in earlier if not one.has_fallen()]
        usual, now = (float(np.nanmedian(alive)) if len(alive) >= 3 else math.nan), newest.norm
        is_low = now < GRADIENT_LEAST or (newest.has_fallen() and now < GRADIENT_FALL * usual)
        said = f"The gradient norm of the {kind} is"
        if now > GRADIENT_RISE * usual and not newest.has_fallen():
            yield Complaint(
                f"gradient_high_{kind}",
                f"{said} {now:.3g}, usually {usual:.3g}. {_helps(log, _LOWER_RATE)}",
            )
        # As long as a spike is fading from the moments, what came after it is too small to tell.
        elif is_low and not newest.moments > GRADIENT_RISE * usual:
            yield Complaint(
                f"gradient_low_{kind}",
                f"{said} only {now:.1e}, so nothing is learnt any more. "
                + _helps(log, f"{_LOWER_RATE} from the start", "another --gan-loss"),
            )


class _Gradient(NamedTuple):
    """The gradient's norm since the look before, and that of Adam's moments, which forget slowly.

    Each is the root of a mean square.
    """

    norm: float
    moments: float

    def has_fallen(self) -> bool:
        """Whether nothing much was added to the moments: so it stays while a gradient is dead."""
        return self.norm < GRADIENT_FALL * self.moments


def _gradient_norms(log: Log, name: str) -> list[_Gradient]:
    """Those of each look: what the moments were at the look before is taken out of them."""
    norms, before, sum_before, beta = [], 0, 0.0, log.config.optimizer.beta_2
    for look in log.measured:
        step, value = look["step"], _value(look, name)
        if step <= before or name not in look:
            continue
        squares, fading = value**2 * (1.0 - beta**step), beta ** (step - before)
        norm = math.sqrt(max(squares - fading * sum_before, 0.0) / (1.0 - fading))
        norms.append(_Gradient(norm, value))
        before, sum_before = step, squares
    return norms


_CHECKS: tuple[Callable[[Log], Iterator[Complaint]], ...] = (
    _diversity,
    _discriminators,
    _generator_losses,
    _colours,
    _clipped,
    _cycle,
    _gradients,
)


def _value(record: Record, name: str) -> float:
    """A logged value; NaN, which fulfils no condition, if it is missing or was not finite."""
    value = record.get(name)
    return math.nan if value is None else float(value)


def _recent(losses: list[Record], name: str) -> float:
    """The mean over the last tenth of the records, 3 to 20; NaN if none of them was finite."""
    count = min(max(3, len(losses) // 10), 20)
    values = [_value(record, name) for record in losses[-count:]]
    finite = [value for value in values if math.isfinite(value)]
    return float(np.mean(finite)) if finite else math.nan


def _windows(values: list[float]) -> list[float]:
    """The medians of ten equal parts of a curve, or of as many of three values or more as fit."""
    count = min(10, len(values) // 3)
    if count < 1:
        return []
    parts = np.array_split(values, count)
    return [float(np.nanmedian(part)) for part in parts if not np.isnan(part).all()]
