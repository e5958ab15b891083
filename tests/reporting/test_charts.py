from __future__ import annotations

import numpy as np
import pytest

from cyclegan_tf.reporting import charts
from cyclegan_tf.reporting.charts import Series, collect, compact, draw_charts, number


def draw_one(values: list[float], name: str = "cycle_a") -> charts.Chart:
    series = {name: Series(list(range(1, len(values) + 1)), values)}
    ((chart,),) = draw_charts(series).values()
    return chart


def points(text: str) -> np.ndarray:
    return np.array([[float(number) for number in pair.split(",")] for pair in text.split()])


def test_records_are_split_into_series_without_what_is_not_finite():
    records = [
        {"step": 1, "time": 5.0, "cycle_a": 0.5, "fid": None},
        {"step": 2, "warning": "text", "cycle_a": float("nan"), "fid": 3},
        {"step": 3, "cycle_a": None, "on": True, "list": [1]},
    ]
    series, broken = collect(records)
    assert series == {"cycle_a": Series([1], [0.5]), "fid": Series([2], [3])}
    assert broken == {"fid": 1, "cycle_a": 2}


def test_directions_share_a_chart_and_charts_have_groups():
    names = [
        "images_per_second",
        "ssim_ab",
        "ssim_ba",
        "cycle_b",
        "cycle_a",
        "generator_ab",
        "epoch",
    ]
    drawn = draw_charts({name: Series([1, 2], [0.1, 0.2]) for name in names})
    shown = {
        title: [(chart.title, [curve.label for curve in chart.curves]) for chart in group]
        for title, group in drawn.items()
    }
    assert shown == {
        "Losses": [("Generators", ["A → B"]), ("Cycle consistency", ["A", "B"])],
        "Scores": [("SSIM to the truth", ["A → B", "B → A"])],
        "Speed and schedule": [("Throughput", [""])],
    }
    assert [curve.colour for curve in drawn["Losses"][1].curves] == [0, 1]


def test_short_curve_goes_through_its_values():
    chart = draw_one([0.0, 1.0, 0.5])
    (curve,) = chart.curves
    xy = points(curve.points)
    zero, half = ({text: y for y, text in chart.y_ticks}[text] for text in ("0", "0.5"))
    np.testing.assert_allclose(xy[[0, 2], 1], [zero, half], atol=0.06)
    assert xy[1, 1] < half < zero
    assert tuple(xy[-1]) == curve.end
    assert curve.end[0] == charts.RIGHT
    assert curve.last == "0.5"
    assert not curve.smooth


def test_long_curve_is_thinned_to_means():
    values = np.random.default_rng(0).normal(5.0, 1.0, 10_000).tolist()
    (curve,) = draw_one(values).curves
    assert len(points(curve.points)) == len(points(curve.smooth)) == charts.MAX_POINTS
    assert points(curve.smooth)[:, 1].std() < points(curve.points)[:, 1].std()
    np.testing.assert_allclose(charts._thinned(list(range(1000))).mean(), 499.5, atol=0.5)


def test_spike_neither_flattens_the_curve_nor_leaves_the_drawing():
    values = [0.5 + 0.3 * np.sin(step / 50) for step in range(2000)]
    values[1000] = 1e6
    (curve,) = draw_one(values).curves
    for xy in (points(curve.points), points(curve.smooth)):
        assert xy[:, 1].min() >= charts.TOP
        assert xy[:, 1].max() <= charts.BOTTOM
        # Soon after the spike, the curve takes up much of the height as before.
        assert np.ptp(xy[170:, 1]) > 0.3 * (charts.BOTTOM - charts.TOP)


@pytest.mark.parametrize("values", [[0.0], [2.0], [-3.0, -3.0], [1e-30], [1e30, -1e30], [5] * 500])
@pytest.mark.parametrize("name", ["cycle_a", "learning_rate", "fid_ab"])
def test_any_values_make_a_drawing_with_a_few_ticks(values, name):
    chart = draw_one(values, name)
    assert 1 <= len(chart.y_ticks) <= 7
    assert all(charts.TOP - 0.1 <= y <= charts.BOTTOM + 0.1 for y, _ in chart.y_ticks)
    assert all(float(text) >= 0 and float(text).is_integer() for _, text in chart.x_ticks)
    assert np.isfinite(points(chart.curves[0].points)).all()


@pytest.mark.parametrize(
    "values",
    [[215.2, 216.8], [21.31, 21.38], [0.9997, 1.0], [-30_000, 90_000], [1e6, 1.2e6], [1e-5]],
)
def test_ticks_can_be_told_apart_and_read(values):
    texts = [text for _, text in draw_one(values, "fid_ab").y_ticks]
    assert len(set(texts)) == len(texts)
    assert max(map(len, texts)) <= 7  # as much as the page has room for


def test_number_of_charts_is_bounded():
    many = {f"score{index}": Series([1], [0.5]) for index in range(500)}
    assert sum(map(len, draw_charts(many).values())) == charts.MAX_CHARTS


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0002, "2e-4"),
        (1.18e-4, "1.18e-4"),
        (0.12345, "0.123"),
        (1234.5, "1,234"),
        (1e38, "1e38"),
    ],
)
def test_number(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("step", "text"), [(0, "0"), (999, "999"), (12_000, "12k"), (1.5e6, "1.5M")]
)
def test_compact(step, text):
    assert compact(step) == text
