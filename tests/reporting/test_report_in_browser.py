"""The report in a real Chromium: what a person sees on a phone and on a wide screen."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from html import escape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclegan_tf.config import Config
from cyclegan_tf.reporting.comparison import write_comparison
from cyclegan_tf.reporting.metrics import MetricsLog
from cyclegan_tf.reporting.report import write_report
from cyclegan_tf.reporting.samples import Samples, save_samples

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium or google-chrome on the PATH")

PHONE, WIDE = 390, 1400
# Colours that nothing else on the page has: of real A, translated to B and translated to A.
REAL_A, FAKE_B, FAKE_A = (250, 20, 200), (20, 240, 40), (120, 10, 250)
BLUE, ORANGE = (0x25, 0x63, 0xEB), (0xE0, 0x66, 0x1A)  # of the curves
AMBER = (0xFF, 0xF6, 0xE0)  # of the warnings

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
# Chromium's windows are wider than a phone, but frames can be as narrow. The page tells its width
# before and after something too wide is put into it.
_FRAME = '<iframe style="width:{width}px; height:800px; border:0" srcdoc="{html}"></iframe>'
_MEASURE = """<script>
const width = () => document.documentElement.scrollWidth, before = width()
document.body.insertAdjacentHTML("beforeend", "<div style='width:3000px'>wide</div>")
parent.document.title += `[${innerWidth} ${before} ${width()}]`
</script>"""


def browse(page: Path, width: int, height: int, *flags: str) -> str:
    """Opens a page in a fresh Chromium window; what that prints."""
    profile = tempfile.mkdtemp()
    command = [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}"]
    command += [f"--window-size={width},{height}", *flags, page.as_uri()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    finally:
        shutil.rmtree(profile, ignore_errors=True)  # Chromium's helpers may still be writing there.
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / ("a-run-with-a-name-longer-than-a-phone-is-wide" * 2)
    long_path = "/data/" + "pictures-of-many-people/" * 6
    config = Config().replace(data=long_path, image_size=64)
    run.mkdir()
    (run / "config.json").write_text(config.to_json())
    names = [f"{name}_{end}" for name in ("cycle", "discriminator", "identity") for end in "ab"]
    with MetricsLog(run, 0) as log:
        for step in range(20, 4001, 20):
            losses = {name: (2.0 - ord(name[-1]) % 2) / (1.0 + step / 500) for name in names}
            speed = {"images_per_second": 12.5, "learning_rate": 2e-4, "epoch": step / 100}
            scores = {"mae_ab": 0.1, "a_score_with_a_very_long_name": 1.0}
            weights = "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5 (12345678)"
            log.write(step, {**losses, **speed, **scores}, {"feature weights": weights})
        log.warn(4000, f"cannot read {long_path * 3}")
    for step in range(0, 15_000, 1000):
        save_samples(run, step, flat_samples())
    return write_report(run)


def flat_samples() -> Samples:
    def flat(colour: tuple[int, int, int]) -> np.ndarray:
        return np.full((2, 64, 64, 3), colour, np.uint8)

    grey = flat((128, 128, 128))
    return Samples(
        real_a=flat(REAL_A), fake_b=flat(FAKE_B), cycled_a=grey,
        real_b=grey, fake_a=flat(FAKE_A), cycled_b=grey,
    )  # fmt: skip


@pytest.mark.parametrize(("width", "height"), [(PHONE, 4000), (WIDE, 3200)])
def test_screenshot_shows_samples_curves_and_warnings(report, width, height, tmp_path):
    shot = tmp_path / "shot.png"
    browse(report, width, height, f"--screenshot={shot}")
    pixels = np.array(Image.open(shot).convert("RGB")).astype(int)
    assert pixels.shape == (height, width, 3)
    for colour, least in ((REAL_A, 5000), (FAKE_B, 5000), (FAKE_A, 5000), (AMBER, 2000)):
        assert covered(pixels, colour).sum() > least, colour
    assert_curves(pixels)


def test_page_is_no_wider_than_the_window(report, tmp_path):
    html, policies = re.subn(
        r'<meta http-equiv="Content-Security-Policy".*?>', "", report.read_text()
    )
    assert policies == 1  # which would forbid the script that measures
    html = escape(html.replace("</body>", _MEASURE + "</body>"))
    frames = tmp_path / "frames.html"
    frames.write_text("".join(_FRAME.format(width=width, html=html) for width in (PHONE, WIDE)))
    dom = browse(frames, WIDE, 1700, "--dump-dom")
    found = re.findall(r"\[(\d+) (\d+) (\d+)\]", re.search("<title>(.*)</title>", dom)[1])
    measured = {int(inner): (int(page), int(widened)) for inner, page, widened in found}
    assert set(measured) == {PHONE, WIDE}
    for width, (page, widened) in measured.items():
        assert page == width
        assert widened >= 3000  # The measure would have seen it.


def test_page_follows_the_dark_scheme(report, tmp_path):
    shot = tmp_path / "shot.png"
    browse(report, 800, 400, f"--screenshot={shot}", "--force-dark-mode")
    assert np.array(Image.open(shot).convert("L")).mean() < 60


def covered(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Where pixels are of a colour, or almost (JPEG)."""
    return np.abs(pixels - colour).max(axis=-1) < 12


def assert_curves(pixels: np.ndarray) -> None:
    """Curves go from left to right; dots and the bar of the progress cover less of the width."""
    for colour in (BLUE, ORANGE):
        assert covered(pixels, colour).any(axis=0).mean() > 0.3, colour


@pytest.fixture(scope="module")
def comparison(report, tmp_path_factory) -> Path:
    """The run of the report beside itself at another rate, under names as long."""
    other = tmp_path_factory.mktemp("other") / (
        "another-run-with-as-long-a-name-for-the-column" * 2
    )
    shutil.copytree(report.parent, other)
    config = Config.load(report.parent).replace(learning_rate=1e-4)
    (other / "config.json").write_text(config.to_json())
    log = other / "metrics.jsonl"
    log.write_text(re.sub(r'(_[ab]": )', r"\g<1>3", log.read_text()))
    return write_comparison([report.parent, other], other.parent / "comparison.html")


@pytest.mark.parametrize(("width", "height"), [(PHONE, 4000), (WIDE, 3200)])
def test_screenshot_of_a_comparison(comparison, width, height, tmp_path):
    shot = tmp_path / "shot.png"
    browse(comparison, width, height, f"--screenshot={shot}")
    pixels = np.array(Image.open(shot).convert("RGB")).astype(int)
    for colour in (REAL_A, FAKE_B, FAKE_A):
        assert covered(pixels, colour).sum() > 2000, colour
    assert_curves(pixels)


def test_a_comparison_is_no_wider_than_the_window(comparison, tmp_path):
    test_page_is_no_wider_than_the_window(comparison, tmp_path)
