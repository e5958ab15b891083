from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cyclegan_tf.errors import UserError
from cyclegan_tf.reporting.metrics import (
    MetricsLog,
    group_of,
    list_protocols,
    read_metrics,
    split_name,
)
from cyclegan_tf.reporting.samples import save_samples

KINDS = ("png", "jpg")  # of a sample: the grid and the strip


def write_steps(run_dir: Path, done: int, *steps: int, value: float = 0.5) -> None:
    with MetricsLog(run_dir, done) as log:
        for step in steps:
            log.write(step, {"cycle_a": value})


def steps_of(run_dir: Path) -> list[int]:
    return [record["step"] for record in read_metrics(run_dir)]


@pytest.fixture(params=["TensorBoard", "the files"])
def board(request):
    """A function: {tag: [(step, value or PNG), …]} of a run, as TensorBoard shows it or on disk."""
    if request.param == "the files":
        return events_on_disk
    reason = "this TensorFlow came without TensorBoard"
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason=reason
    )

    def shown(run_dir: Path) -> dict[str, list]:
        events = reader.EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"images": 0})
        tags = events.Reload().Tags()
        scalars = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags["scalars"]}
        images = {
            tag: [(e.step, e.encoded_image_string) for e in events.Images(tag)]
            for tag in tags["images"]
        }
        return {**scalars, **images}

    return shown


def events_on_disk(run_dir: Path) -> dict[str, list]:
    """What the event files hold; as for TensorBoard, a START drops its step and later ones."""
    found: dict[str, list] = {}
    for path in sorted((run_dir / "tensorboard").glob("*tfevents*")):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            if event.HasField("session_log"):
                assert event.session_log.status == tf.compat.v1.SessionLog.START
                found = {t: [e for e in es if e[0] < event.step] for t, es in found.items()}
            for value in event.summary.value:
                content = value.image.encoded_image_string or value.simple_value
                found.setdefault(value.tag, []).append((event.step, content))
    return found


def test_record_is_readable_while_the_log_is_open(tmp_path):
    with MetricsLog(tmp_path, 0) as log:
        log.write(np.int64(20), {"cycle_a": np.float32(0.1), "learning_rate": 2e-4, "epoch": 1.5})
        (record,) = read_metrics(tmp_path)
    time = record.pop("time")
    assert record == {"step": 20, "cycle_a": 0.1, "learning_rate": 2e-4, "epoch": 1.5}
    assert time > 1.7e9


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_value_that_is_not_finite_is_null_in_strict_json(tmp_path, value):
    write_steps(tmp_path, 0, 20, value=value)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=refuse)["cycle_a"] is None
    assert read_metrics(tmp_path)[0]["cycle_a"] is None


def test_no_metrics_yet(tmp_path):
    assert read_metrics(tmp_path) == []


def test_resumed_run_takes_back_what_its_checkpoint_does_not_hold(tmp_path):
    write_steps(tmp_path, 0, 10, 20, 30, 40, 50)
    kept = b"".join((tmp_path / "metrics.jsonl").read_bytes().splitlines(True)[:3])
    write_steps(tmp_path, 30, 40)
    assert steps_of(tmp_path) == [10, 20, 30, 40]
    assert (tmp_path / "metrics.jsonl").read_bytes().startswith(kept)


def test_samples_of_lost_steps_are_deleted(tmp_path, make_samples):
    for step in (0, 10, 20):
        save_samples(tmp_path, step, make_samples())
    (tmp_path / "samples" / "step-0000020-mine.png").write_bytes(b"kept")
    write_steps(tmp_path, 10, 20)
    left = sorted(path.name for path in (tmp_path / "samples").rglob("step-*"))
    ours = [f"step-{n:07d}-{way}.{end}" for n in (0, 10) for way in ("ab", "ba") for end in KINDS]
    assert left == sorted([*ours, "step-0000020-mine.png"])


def test_a_protocol_is_logged_when_it_is_another(tmp_path):
    def score(done: int, *scored: tuple[int, dict | None]) -> None:
        with MetricsLog(tmp_path, done) as log:
            for step, protocol in scored:
                log.write(step, {"mae_ab": 30.0}, protocol)

    few, all_of_them = {"data": "no text: \udcff", "pairs": 5}, {"data": "demo", "pairs": 9}
    score(0, (10, few), (20, few), (25, None), (30, all_of_them))
    assert list_protocols(read_metrics(tmp_path)) == [(10, few), (30, all_of_them)]
    score(20, (30, few), (40, all_of_them))  # The one of step 30 was taken back.
    assert list_protocols(read_metrics(tmp_path)) == [(10, few), (40, all_of_them)]
    assert steps_of(tmp_path) == [10, 20, 30, 40]


def test_warning_is_taken_back_too(tmp_path):
    with MetricsLog(tmp_path, 0) as log:
        log.warn(20, "D is ahead")
    assert read_metrics(tmp_path)[0]["warning"] == "D is ahead"
    write_steps(tmp_path, 10)
    assert read_metrics(tmp_path) == []


@pytest.mark.parametrize("half", ['{"step": 25, "ti', '{"step": 25, "cycle_a": 0.5}', "\0\0\0"])
def test_half_written_line_is_dropped(tmp_path, half):
    write_steps(tmp_path, 0, 10, 20)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(half)
    assert steps_of(tmp_path) == [10, 20]
    write_steps(tmp_path, 25, 30)
    assert steps_of(tmp_path) == [10, 20, 30]


HUGE = [
    *('{"step": -1}', f'{{"step": {2**70}}}', f'{{"step": 2, "epoch": {1 << 4000}}}'),
    *(f'{{"step": 2, "fid_ab": {value}}}' for value in ("1.7e308", "-3e-323")),
    *(f'{{"step": 2, "time": {time}}}' for time in ('"x"', "null", "[1]", "1e30", "NaN", "-1")),
]


@pytest.mark.parametrize(
    "garbage",
    ["loss 0.5", "[1]", '{"loss": 1}', '{"step": "x"}', "", "\xff", *HUGE],
    ids=lambda text: text[:20],
)
def test_garbage_is_an_error_that_names_the_line_and_changes_nothing(tmp_path, garbage):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(f'{{"step": 1}}\n{garbage}\n{{"step": 9}}\n'.encode("latin-1"))
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"metrics\.jsonl: line 2 "):
        read_metrics(tmp_path)
    with pytest.raises(UserError, match=r"metrics\.jsonl: line 2 "):
        MetricsLog(tmp_path, 5)
    assert path.read_bytes() == before


def test_file_is_replaced_only_when_something_is_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_steps(tmp_path, 0, 10, 20)
    link = tmp_path / "link"
    os.link(path, link)
    write_steps(tmp_path, 20)
    assert path.samefile(link)
    write_steps(tmp_path, 10)
    # The old file was never touched, so a kill in between would have left it whole.
    assert steps_of(tmp_path) == [10]
    assert len(link.read_bytes().splitlines()) == 2


def test_tensorboard_shows_the_run_as_if_it_was_never_killed(tmp_path, board):
    write_steps(tmp_path, 0, 10, 20, 30, value=0.5)
    write_steps(tmp_path, 10, 20, value=0.25)
    assert board(tmp_path) == {"losses/cycle_a": [(10, 0.5), (20, 0.25)]}


def test_tensorboard_gets_pictures_at_once(tmp_path, board):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    with MetricsLog(tmp_path, 0) as log:
        log.images(20, "samples/ab", picture)
        ((step, png),) = board(tmp_path)["samples/ab"]
    assert step == 20
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(png))), picture)


@pytest.mark.parametrize(
    ("name", "stem", "suffix", "group"),
    [
        ("generator_ab", "generator", "ab", "losses"),
        ("discriminator_a", "discriminator", "a", "losses"),
        ("contrast_a", "contrast", "a", "losses"),
        ("learning_rate", "learning_rate", "", "speed"),
        ("test_mae_ba", "test_mae", "ba", "scores"),
        ("_a", "_a", "", "scores"),
    ],
)
def test_names(name, stem, suffix, group):
    assert split_name(name) == (stem, suffix)
    assert group_of(stem) == group


def test_reading_and_reporting_need_no_tensorflow():
    code = (
        "import sys, cyclegan_tf.reporting.report, cyclegan_tf.reporting.metrics; "
        "import cyclegan_tf.reporting.progress; sys.exit('tensorflow' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0
