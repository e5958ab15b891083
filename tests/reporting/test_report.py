from __future__ import annotations

import json
import math
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from cyclegan_tf.config import Config
from cyclegan_tf.errors import UserError
from cyclegan_tf.reporting.report import FILE, MAX_MOMENTS, MAX_WARNINGS, write_report
from cyclegan_tf.reporting.samples import STRIP_PICTURES, Samples, save_samples


def make_run(run_dir: Path, records: list[dict], **settings: object) -> Path:
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "config.json").write_text(Config().replace(**settings).to_json())
    lines = [json.dumps(record) + "\n" for record in records]
    (run_dir / "metrics.jsonl").write_text("".join(lines))
    return run_dir


def records_until(step: int, every: int = 20) -> list[dict]:
    return [
        {
            "step": now,
            "time": 1.7e9 + now,
            "epoch": now / 1000,
            **{
                f"{name}_{end}": math.exp(-now / step)
                for name in ("cycle", "discriminator")
                for end in "ab"
            },
            "images_per_second": 10.0,
            "learning_rate": 2e-4,
        }
        for now in range(every, step + 1, every)
    ]


class Page(HTMLParser):
    """Every tag with its attributes, and the text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def count(self, tag: str) -> int:
        return sum(found == tag for found, _ in self.tags)

    def values(self, attribute: str) -> list[str]:
        return [attributes[attribute] for _, attributes in self.tags if attribute in attributes]


def test_page_shows_where_the_run_is(tmp_path):
    run = make_run(tmp_path / "my-run", records_until(10_000), epochs=40, batch_size=2)
    path = write_report(run)
    assert path == run / "report.html"
    text = Page(path).text
    assert "my-run" in text
    assert "Step 10,000 Epoch 10.0 of 40 Images per second 10" in text
    # 10,000 steps of 2 images at 10 images/s; a quarter is done.
    assert "Trained for 33 min Left, about 1 h 40 min Learning rate 2e-4" in text
    assert "as of 2023-11-15 01:00 UTC" in text
    assert "Cycle consistency" in text
    assert "No samples yet." in text
    assert "Warnings" not in text


def test_length_in_steps_is_shown_too(tmp_path):
    page = Page(write_report(make_run(tmp_path, records_until(1000), steps=4000)))
    assert "Step 1,000 of 4,000 Epoch 1.0 Images" in page.text
    assert "25" in page.values("aria-valuenow")


def test_settings_are_shown_and_the_changed_ones_stand_out(tmp_path):
    page = Page(write_report(make_run(tmp_path, [], lambda_cycle=7.5)))
    assert "--lambda-cycle 7.5" in page.text
    assert "--beta-1 0.5" in page.text
    assert [attributes.get("class") for tag, attributes in page.tags if tag == "dt"].count(
        "changed"
    ) == 1


@pytest.mark.parametrize(
    "records",
    [
        [],
        [{"step": 0}],
        [{"step": 20, "cycle_a": None}],
        [{"step": 20, "time": 5, "warning": "w"}],
        [{"step": 20, "cycle_a": 0.5, "epoch": 0.1, "images_per_second": 0.0}],
        records_until(20),
    ],
)
def test_young_run_has_a_report(tmp_path, records):
    assert Page(write_report(make_run(tmp_path, records))).count("h1") == 1


def test_no_metrics_file_yet(tmp_path):
    make_run(tmp_path, [])
    (tmp_path / "metrics.jsonl").unlink()
    assert "No metrics yet." in Page(write_report(tmp_path)).text


def test_not_a_run_is_an_error_and_writes_nothing(tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_warnings_are_shown_the_newest_if_many(tmp_path):
    logged = [{"step": step, "time": 1.0, "warning": f"w{step}."} for step in range(1, 31)]
    records = [*logged, {"step": 40, "cycle_a": None}, {"step": 60, "cycle_a": None}]
    page = Page(write_report(make_run(tmp_path, records)))
    assert page.count("li") == MAX_WARNINGS
    assert "Step 30: w30." in page.text
    assert "Step 40: cycle_a was not finite." in page.text
    assert "Step 60:" not in page.text
    assert f"{31 - MAX_WARNINGS} older ones" in page.text


def test_texts_of_others_cannot_become_html(tmp_path):
    bad = "<img src=x onerror=alert(1)>\"'&"
    records = [
        {"step": 1, "time": 1.0, bad: 0.5},
        {"step": 2, "warning": bad},
        {"step": 3, f"{bad}n": None},
    ]
    run = make_run(tmp_path / bad.replace("/", ""), records, data=bad)
    page = Page(write_report(run))
    assert page.count("img") == 0
    assert not page.values("onerror")
    assert (
        page.text.count("onerror=alert(1)") >= 5
    )  # title, heading, data, warnings, chart, setting


def test_page_is_self_contained(tmp_path, make_samples):
    save_samples(tmp_path, 0, make_samples())
    save_samples(tmp_path, 20, make_samples())
    path = write_report(make_run(tmp_path, records_until(1000)))
    page, html = Page(path), path.read_text()
    assert page.count("script") == 0
    links = [link for name in ("src", "href", "xlink:href", "srcset") for link in page.values(name)]
    assert len(links) > 20
    assert all(link.startswith("data:") for link in links)
    assert not re.search(r"https?:|url\(|@import", html)
    assert "default-src 'none'" in html


def test_samples_are_shown_latest_first_and_over_time(tmp_path, make_samples):
    for step in (0, 500, 1000):
        save_samples(tmp_path, step, make_samples(count=2))
    page = Page(write_report(make_run(tmp_path, [])))
    latest, over_time = 2 * 3, 2 * (1 + 3 * 2)
    assert page.count("img") == 2 * (latest + over_time)
    assert "real A translated to B reconstructed A" in page.text
    assert (
        "A → B over time upper row translated to B, lower row reconstructed A real 0 500 1k"
        in page.text
    )


def test_broken_strip_is_left_out(tmp_path, make_samples):
    for step in (0, 500, 1000):
        save_samples(tmp_path, step, make_samples(count=1))
    (tmp_path / "samples" / "strips" / "step-0001000-ab.jpg").write_bytes(b"\xff\xd8 broken")
    page = Page(write_report(make_run(tmp_path, [])))
    assert "A → B step 500" in page.text
    assert "B → A step 1,000" in page.text


def test_metrics_that_cannot_be_read_are_one_line(tmp_path):
    run = make_run(tmp_path / "run", [])
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match=r"metrics\.jsonl: cannot be read"):
        write_report(run)


def test_page_that_cannot_be_written_is_one_line(tmp_path):
    run = make_run(tmp_path / "run", records_until(100))
    (run / FILE).mkdir()
    with pytest.raises(UserError, match=r"report\.html: cannot be written"):
        write_report(run)


def test_page_is_replaced_and_never_written_over(tmp_path):
    run = make_run(tmp_path, records_until(1000))
    path = write_report(run)
    before = path.read_bytes()
    os.link(path, tmp_path / "opened-by-a-reader")
    make_run(tmp_path, records_until(2000))
    write_report(run)
    assert (tmp_path / "opened-by-a-reader").read_bytes() == before
    assert path.read_bytes() != before
    assert not [found for found in tmp_path.iterdir() if found.name.startswith(".")]


def save_noise(run_dir: Path, moments: int) -> None:
    """The worst samples for a compressor, at so many steps; they share their bytes on the disk."""
    shape = (STRIP_PICTURES, 256, 256, 3)
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    save_samples(run_dir, 0, Samples(*[noise] * 6))
    strips = run_dir / "samples" / "strips"
    for direction in ("ab", "ba"):
        for moment in range(1, moments):
            first = strips / f"step-0000000-{direction}.jpg"
            os.link(first, strips / f"step-{1000 * moment:07d}-{direction}.jpg")


def test_size_does_not_grow_with_the_run(tmp_path):
    sizes = []
    for name, moments, steps in (("short", MAX_MOMENTS, 12_000), ("long", 500, 500_000)):
        run = make_run(tmp_path / name, records_until(steps, every=steps // (20 * moments)))
        save_noise(run, moments)
        path = write_report(run)
        sizes.append(path.stat().st_size)
    assert abs(sizes[1] - sizes[0]) < 20_000
    assert sizes[1] < 5_000_000
    page = Page(path)
    assert page.count("img") == 2 * STRIP_PICTURES * (3 + 1 + 2 * MAX_MOMENTS)
    assert " 0 45k " in page.text
    assert " 499k " in page.text


def test_a_check_that_warns_again_is_shown_once(tmp_path):
    def warned(step: int, check: str, text: str) -> dict:
        return {"step": step, "time": 1.0, "warning": text, "check": check}

    records = [
        warned(100, "diversity_ab", "collapse 0.3."),
        warned(100, "cycle_a", "rising."),
        {"step": 200, "diversity_ab": 0.2},
        warned(200, "diversity_ab", "collapse 0.2."),
    ]
    page = Page(write_report(make_run(tmp_path, records)))
    assert page.count("li") == 2
    assert "Steps 100 to 200: collapse 0.2." in page.text
    assert "Step 100: rising. (Not seen any more since.)" in page.text
    assert "collapse 0.3" not in page.text


def test_scores_stand_under_what_they_depend_on(tmp_path):
    records = [
        {"step": 500, "mae_ab": 28.0, "protocol": {"data": "demo (1234)", "pairs": 5}},
        {"step": 1000, "mae_ab": 27.0},
    ]
    assert (
        "Scores data: demo (1234); pairs: 5 MAE"
        in Page(write_report(make_run(tmp_path, records))).text
    )
    records.append({"step": 1500, "mae_ab": 26.0, "protocol": {"data": "<b>\udcff", "pairs": 4}})
    text = Page(write_report(make_run(tmp_path, records))).text
    assert "From step 500 on: data: demo (1234); pairs: 5 From step 1,500 on: data: <b>" in text


def test_scores_and_health_have_charts_under_their_names(tmp_path):
    records = [
        {
            "step": step,
            "kid_efficientnet_lite0_ab": 0.3,
            "kid_sd_efficientnet_lite0_ab": 0.01,
            "mae_ab": 28.0,
            "diversity_ab": 0.8,
            "accuracy_real_a": 0.9,
            "gradient_generators": 3.0,
        }
        for step in (500, 1000)
    ]
    page = Page(write_report(make_run(tmp_path, records)))
    for text in (
        "KID (efficientnet-lite0) lower is better",
        "KID, deviation over subsets (efficientnet-lite0)",
        "MAE to the truth",
        "Health",
        "Diversity",
        "Discriminators right on real",
        "Gradient norm, generators",
    ):
        assert text in page.text, text
