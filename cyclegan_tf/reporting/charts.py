"""Curves of metrics over the steps, as small SVG drawings for the report."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cyclegan_tf.reporting.metrics import group_of, split_name

# The drawing, in SVG units; the page scales it.
WIDTH, HEIGHT = 400, 200
LEFT, RIGHT, TOP, BOTTOM = 56, 392, 8, 172

MAX_POINTS = 300  # of a curve
MAX_CHARTS = 30  # An unbounded number of metrics must not make an unbounded page.
MIN_SMOOTHED = 40  # Shorter curves are shown as they are.

GROUPS = {
    "scores": "Scores",
    "losses": "Losses",
    "health": "Health",
    "speed": "Speed and schedule",
}
_AXES = {"step", "time"}
_LABELS = {"ab": "A → B", "ba": "B → A", "a": "A", "b": "B", "": ""}
_TITLES = {  # stem → (title, hint), in the order of the page
    "generator": ("Generators", "adversarial"),
    "discriminator": ("Discriminators", "adversarial"),
    "cycle": ("Cycle consistency", "mean |difference|"),
    "identity": ("Identity", "mean |difference|"),
    "contrast": ("Patch contrast", "cross-entropy"),
    "penalty": ("Gradient penalty", ""),
    "teacher": ("Distance from the teacher", "mean |difference|"),
    "features": ("Distance from the teacher, in features", "mean |difference|"),
    "mae": ("MAE to the truth", "of 255, lower is better"),
    "psnr": ("PSNR to the truth", "dB, higher is better"),
    "ssim": ("SSIM to the truth", "higher is better"),
    "cycle_error": ("Cycle error, test pictures", "of 255, lower is better"),
    "identity_error": ("Identity error, test pictures", "of 255, lower is better"),
    "checkerboard": ("Checkerboard", "power at upsampling's frequencies, 1: none"),
    "diversity": ("Diversity", "share of the real pictures'"),
    "accuracy_real": ("Discriminators right on real", "share of patches"),
    "accuracy_fake": ("Discriminators right on generated", "share of patches"),
    "margin": ("Discriminators' margin", "1: sure, 0: guessing"),
    "margin_trained": ("The same, training pictures", "far above it: known by heart"),
    "ranking": ("Discriminators' ranking", "how often real is above generated; 0.5: guessing"),
    "brightness": ("Brightness kept", "correlation, below 0: inverted"),
    "clipped": ("Black or saturated patches", "share above real pictures'"),
    "gradient_generators": ("Gradient norm, generators", ""),
    "gradient_discriminators": ("Gradient norm, discriminators", ""),
    "images_per_second": ("Throughput", "images/s"),
    "learning_rate": ("Learning rate", ""),
}
_NETWORK_TITLES = {  # the longest first
    "kid_sd": "KID, deviation over subsets",
    "kid": "KID",
    "fid": "FID",
    "distance": "Feature distance to the truth",
}


@dataclass(frozen=True)
class Curve:
    """A curve in SVG units: ``points`` and ``smooth`` ("" if not smoothed) of polylines."""

    label: str
    colour: int  # 0 and 1: the directions or domains; in a comparison the number of the run
    last: str
    end: tuple[float, float]
    points: str
    smooth: str


@dataclass(frozen=True)
class Chart:
    """A drawing with one curve or more: of both directions or domains, or of several runs.

    The ticks are (position in SVG units, text).
    """

    title: str
    hint: str
    curves: list[Curve]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]


@dataclass
class Series:
    """The values of a metric and the steps at which they were logged."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


def collect(records: Iterable[dict[str, Any]]) -> tuple[dict[str, Series], dict[str, int]]:
    """Splits records into series.

    Returns:
        The series of each metric, without values that are not finite; and, for each metric that had
        such values, the step of the first.
    """
    series: dict[str, Series] = {}
    broken: dict[str, int] = {}
    for record in records:
        step = record["step"]
        for name, value in record.items():
            if name in _AXES or isinstance(value, (str, bool, list, dict)):
                continue
            if value is None or not math.isfinite(value):
                broken.setdefault(name, step)
            else:
                one = series.setdefault(name, Series())
                one.steps.append(step)
                one.values.append(value)
    return series, broken


def draw_charts(series: dict[str, Series]) -> dict[str, list[Chart]]:
    """The charts of each non-empty group, by its title; all share one range of steps."""
    last = max((one.steps[-1] for one in series.values()), default=0)
    together: dict[str, list[str]] = {}
    for name in sorted(series.keys() - {"epoch"}):
        together.setdefault(split_name(name)[0], []).append(name)
    stems = sorted(together, key=_page_order)
    charts: dict[str, list[Chart]] = {title: [] for title in GROUPS.values()}
    for stem in stems[:MAX_CHARTS]:
        suffixes = {name: split_name(name)[1] for name in together[stem]}
        curves = [
            (_LABELS[suffix], int(suffix.startswith("b")), series[name])
            for name, suffix in suffixes.items()
        ]
        chart = _draw(stem, "", curves, max(last, 1))
        charts[GROUPS[group_of(stem)]].append(chart)
    return {title: drawn for title, drawn in charts.items() if drawn}


def draw_comparison(runs: dict[str, dict[str, Series]]) -> dict[str, list[Chart]]:
    """The charts of each non-empty group, by its title: one per metric, with one curve per run.

    Args:
        runs: the series of each run, by its name; metrics that only one run has are drawn too.
    """
    names = {name for series in runs.values() for name in series} - {"epoch"}
    last = max((one.steps[-1] for series in runs.values() for one in series.values()), default=0)
    charts: dict[str, list[Chart]] = {title: [] for title in GROUPS.values()}
    for name in sorted(names, key=_page_order)[: 2 * MAX_CHARTS]:
        stem, suffix = split_name(name)
        present = {run: series[name] for run, series in runs.items() if name in series}
        colours = {run: number for number, run in enumerate(runs)}
        curves = [(run, colours[run], one) for run, one in present.items()]
        chart = _draw(stem, _LABELS[suffix], curves, max(last, 1))
        charts[GROUPS[group_of(stem)]].append(chart)
    return {title: drawn for title, drawn in charts.items() if drawn}


def compact(step: float) -> str:
    """A number of steps in few characters: 12000 → "12k"."""
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if step >= size:
            return f"{step / size:.4g}{letter}"
    return f"{step:g}"


def number(value: float, digits: int = 3) -> str:
    """A measured value in few characters, of so many digits that count: 0.000200 → "2e-4"."""
    size = abs(value)
    if value and not 1e-3 <= size < 1e5:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{float(mantissa):.{digits}g}e{int(exponent)}"
    if size >= 1000:
        return f"{value:,.{max(0, digits - 1 - int(math.log10(size)))}f}"
    return f"{value:.{digits}g}"


def _tick_texts(ticks: list[float]) -> list[str]:
    """The ticks with as many digits as tell them apart."""
    texts = []
    for digits in range(3, 16):
        texts = [number(tick, digits) for tick in ticks]
        if len(set(texts)) == len(texts):
            break
    return texts


def _page_order(name: str) -> tuple[int, str]:
    order, stem = list(_TITLES), split_name(name)[0]
    if stem.startswith(tuple(f"{kind}_" for kind in _NETWORK_TITLES)):
        return (-1, name)
    return (order.index(stem) if stem in order else len(order), name)


def _draw(stem: str, where: str, curves: list[tuple[str, int, Series]], last_step: int) -> Chart:
    """A chart of (label, colour, values) curves; ``where`` goes into the title."""
    title, hint = _title(stem)
    group = group_of(stem)
    noisy = group == "losses"
    values = [one.values for _, _, one in curves]
    low, high = _range(values, noisy, group not in ("scores", "health"))
    y_ticks = _ticks(low, high)
    x_ticks = [tick for tick in _ticks(0, last_step) if tick % 1 == 0]
    return Chart(
        title=f"{title}, {where}" if where else title,
        hint=hint,
        curves=[
            _curve(label, colour, one, noisy, last_step, low, high) for label, colour, one in curves
        ],
        x_ticks=[(_x(tick, last_step), compact(tick)) for tick in x_ticks],
        y_ticks=list(zip((_y(tick, low, high) for tick in y_ticks), _tick_texts(y_ticks))),
    )


def _title(stem: str) -> tuple[str, str]:
    """The title and hint of a metric; the scores of a feature network carry the network's name."""
    for kind, title in _NETWORK_TITLES.items():
        if stem.startswith(f"{kind}_"):
            network = stem[len(kind) + 1 :].replace("_", "-")
            return f"{title} ({network})", "lower is better"
    return _TITLES.get(stem, (stem.replace("_", " ").capitalize(), ""))


def _curve(
    label: str,
    colour: int,
    series: Series,
    noisy: bool,
    last_step: int,
    low: float,
    high: float,
) -> Curve:
    xs = _x(_thinned(series.steps), last_step).round(1).tolist()

    def polyline(values: np.ndarray) -> list[tuple[float, float]]:
        return list(zip(xs, _y(_thinned(values), low, high).round(1).tolist()))

    # Clipped before all else, so that a spike cannot pull the smoothed curve away for long.
    values = np.clip(series.values, low, high)
    points, smooth = polyline(values), []
    if noisy and len(values) >= MIN_SMOOTHED:
        smooth = polyline(_smoothed(values))
    return Curve(
        label=label,
        colour=colour,
        last=number(series.values[-1]),
        end=(smooth or points)[-1],
        points=_svg_points(points),
        smooth=_svg_points(smooth),
    )


def _thinned(values: list[int] | np.ndarray) -> np.ndarray:
    """At most ``MAX_POINTS`` values, the means of equal parts."""
    count = len(values)
    edges = np.linspace(0, count, min(count, MAX_POINTS), endpoint=False).astype(int)
    return np.add.reduceat(np.asarray(values, np.float64), edges) / np.diff([*edges, count])


def _smoothed(values: np.ndarray) -> np.ndarray:
    """An exponential moving average over about a fiftieth of the curve, unbiased at its start."""
    memory = 1.0 - 1.0 / max(3.0, len(values) / 50)
    total = weight = 0.0
    means = []
    for value in values.tolist():
        total, weight = memory * total + value, memory * weight + 1.0
        means.append(total / weight)
    return np.asarray(means)


def _range(curves: list[list[float]], noisy: bool, from_zero: bool) -> tuple[float, float]:
    """The range of the vertical axis: from zero if asked, or where that wastes little of it."""
    limits = [_limits(values) if noisy else (min(values), max(values)) for values in curves]
    low, high = min(low for low, _ in limits), max(high for _, high in limits)
    if low >= 0.0 and (from_zero or low < 0.5 * high):
        low = 0.0
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return (0.0 if low == 0.0 else low - margin), high + margin


def _limits(values: list[float]) -> tuple[float, float]:
    """The smallest and the largest value, but for rare ones that lie far out."""
    low, high = np.percentile(values, (1, 99)).tolist()
    reach = high - low
    return max(min(values), low - reach), min(max(values), high + reach)


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    """At most ``count`` round numbers (or one more) from ``low`` to ``high``."""
    power = 10.0 ** math.floor(math.log10((high - low) / count))
    step = next(f * power for f in (1, 2, 5, 10) if (high - low) / (f * power) <= count)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    # Rounding takes away what 3 × 0.1 has too much.
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def _x(step: Any, last_step: int) -> Any:
    return LEFT + (RIGHT - LEFT) * step / last_step


def _y(value: Any, low: float, high: float) -> Any:
    return BOTTOM - (BOTTOM - TOP) * (value - low) / (high - low)


def _svg_points(points: list[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)
