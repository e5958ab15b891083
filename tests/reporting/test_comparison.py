"""The page that compares runs."""

from __future__ import annotations

import re

import numpy as np
import pytest

from cyclegan_tf import report as command
from cyclegan_tf.errors import UserError
from cyclegan_tf.reporting.comparison import MAX_RUNS, write_comparison
from cyclegan_tf.reporting.samples import Samples, save_samples
from tests.reporting.test_report import Page, make_run, records_until


@pytest.fixture
def runs(tmp_path, make_samples):
    """A function: so many runs with samples of the same pictures, each with a rate of its own."""

    def make(count: int):
        folders = []
        for number in range(count):
            rate = 1e-4 * (number + 1)
            folder = make_run(tmp_path / f"run-{number}", records_until(1000), learning_rate=rate)
            save_samples(folder, 1000, make_samples(count=2, size=32))
            folders.append(folder)
        return folders

    return make


def test_settings_that_differ_and_no_others_are_shown(runs, tmp_path):
    page = Page(write_comparison(runs(3), tmp_path / "c.html"))
    assert "3 runs compared" in page.text
    shown = re.findall(r"--[a-z0-9-]+ [^-]*", page.text)
    assert [text.split()[:4] for text in shown] == [
        ["--learning-rate", "0.0001", "0.0002", "0.00030000000000000003"]
    ]
    for number in range(3):
        assert f"run-{number} paper 1,000" in page.text


def test_curves_of_all_runs_lie_over_each_other(runs, tmp_path):
    page = Page(write_comparison(runs(3), tmp_path / "c.html"))
    html = (tmp_path / "c.html").read_text()
    charts = re.findall(r'<figure class="chart">.*?</figure>', html, re.S)
    assert len(charts) == 6  # cycle and discriminator of A and B, throughput, learning rate
    for chart in charts:
        assert set(re.findall(r'<circle class="(c\d)"', chart)) == {"c0", "c1", "c2"}
    assert "Cycle consistency, A" in page.text


def test_samples_of_the_same_pictures_stand_side_by_side(runs, tmp_path):
    page = Page(write_comparison(runs(3), tmp_path / "c.html"))
    assert page.count("img") == 2 * 2 * (1 + 3)  # directions, pictures, real and runs
    assert "run-2, step 1,000" in page.text
    html = (tmp_path / "c.html").read_text()
    # The real one stays where it is when the rest is scrolled.
    assert html.count('<th scope="row"><img') == 2 * 2
    translated = {f"translated by run-{number}" for number in range(3)}
    assert set(re.findall(r'alt="([^"]*)"', html)) == {"real", *translated}


def test_runs_on_other_pictures_bring_their_own_real_ones(runs, tmp_path):
    first, second = runs(2)
    other = Samples(*(np.full((2, 32, 32, 3), 10 * n, np.uint8) for n in range(10, 16)))
    save_samples(second, 2000, other)
    page = Page(write_comparison([first, second], tmp_path / "c.html"))
    assert page.count("img") == 2 * 2 * (1 + 3)
    assert "real of run-1, step 2,000" in page.text
    texts = re.findall(r'alt="([^"]*)"', (tmp_path / "c.html").read_text())
    assert texts[:4] == ["real", "translated by run-0", "real of run-1", "translated by run-1"]


def test_protocols_that_differ_are_named(tmp_path):
    def page_of(*protocols: dict | None) -> str:
        runs = []
        for number, protocol in enumerate(protocols):
            record = {"step": 500, "mae_ab": 28.0, **({"protocol": protocol} if protocol else {})}
            runs.append(make_run(tmp_path / f"run-{number}", [record]))
        return Page(write_comparison(runs, tmp_path / "c.html")).text

    demo = {"data": "demo (1234)", "pictures": "5 of testA"}
    text = page_of(demo, None, {**demo, "pictures": "9 of testA"})
    assert "Scores of these runs do not compare: they differ in pictures." in text
    assert "data demo (1234) demo (1234) pictures 5 of testA 9 of testA" in text
    assert "do not compare" not in page_of(demo, None, demo)
    assert "do not compare" not in page_of(demo, {**demo, "data": "the same moved (1) (1234)"})
    assert "they differ in data" in page_of(demo, {**demo, "data": "demo (5678)"})
    with_network = {**demo, "features": "efficientnet-lite0", "kid": "100 subsets of 2"}
    words = "FID, KID and feature distances of these runs do not compare: they differ in features"
    assert words in page_of(demo, with_network)
    assert "scored with" not in page_of(None, None)
    by_file = [{**with_network, "feature weights": f"{name} (1234)"} for name in ("a.h5", "b.h5")]
    assert "do not compare" not in page_of(*by_file)


def test_page_is_self_contained_and_names_are_no_html(runs, tmp_path):
    one, other = runs(2)
    bad = one.rename(tmp_path / "<script>alert(1)<script>")
    html = write_comparison([bad, other], tmp_path / "c.html").read_text()
    assert "<script" not in html
    assert "alert(1)" in html
    assert not re.search(r"https?:|url\(|@import", html)
    assert "default-src 'none'" in html


def test_size_is_bounded(runs, tmp_path):
    page = write_comparison(runs(MAX_RUNS), tmp_path / "c.html")
    assert page.stat().st_size < 3_000_000


def test_what_cannot_be_compared_is_refused(runs, tmp_path):
    (one,) = runs(1)
    for folders, words in (
        ([one], "1 runs: 2 to 8 can be compared"),
        ([one] * 9, "9 runs"),
        ([one, one], "named twice"),
        ([one, tmp_path / "none"], "no run there"),
    ):
        with pytest.raises(UserError, match=words):
            write_comparison(folders, tmp_path / "c.html")
    assert not (tmp_path / "c.html").exists()


def test_a_run_that_is_named_twice_is_the_one_in_the_message(runs):
    one, other = runs(2)
    with pytest.raises(UserError, match=f"^{other}: a run is named twice"):
        write_comparison([one, other, other], one / "c.html")


@pytest.mark.parametrize("output", [".", "", "run-0"])
def test_a_folder_is_no_file_to_write(output, runs, tmp_path, monkeypatch):
    one, other = (str(folder) for folder in runs(2))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^--output .*: is a folder; name a file"):
        command.main([one, other, "--output", output])


def test_the_command(runs, tmp_path, capsys, monkeypatch):
    one, other = (str(folder) for folder in runs(2))
    monkeypatch.chdir(tmp_path)
    assert command.main([one, other]) == 0
    assert "Written: comparison.html" in capsys.readouterr().out
    assert (tmp_path / "comparison.html").exists()
    assert command.main([one]) == 0
    assert "report.html" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--output c\.html: is for comparisons"):
        command.main([one, "--output", "c.html"])
