from __future__ import annotations

import io
import re
import sys

import pytest

from cyclegan_tf.reporting import progress
from cyclegan_tf.reporting.progress import Progress

LOSSES = {
    "generator_ab": 0.4,
    "generator_ba": 0.6,
    "cycle_a": 0.2,
    "cycle_b": 0.3,
    "identity_a": 9.0,
    "discriminator_a": 0.1,
    "discriminator_b": 0.1,
}


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when told: ``clock[0] += 2``."""
    seconds = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: seconds[0])
    return seconds


def test_line_shows_epoch_throughput_remaining_time_and_mean_losses(clock, capsys):
    with Progress(total_steps=100, done_steps=20, steps_per_epoch=40, batch_size=4) as bar:
        clock[0] += 300
        bar.update(4, LOSSES)
        clock[0] += 32
        bar.update(16, LOSSES)
    # 16 steps of 4 images in 32 s, and 60 more take 2 min; the first 4 waited for the graph.
    assert capsys.readouterr().err.splitlines()[1:3] == [
        "epoch 1/3, 24%, ? images/s, ? left, G 0.500 cycle 0.250 D 0.100",
        "epoch 2/3, 40%, 2.00 images/s, 02:00 left, G 0.500 cycle 0.250 D 0.100",
    ]


def test_last_epoch_ends_as_itself(clock, capsys):
    with Progress(80, 40, 40, 1) as bar:
        clock[0] += 40
        bar.update(40, LOSSES)
    assert capsys.readouterr().err.splitlines()[-1].startswith("epoch 2/2, 100%")


def test_log_gets_few_lines_and_no_carriage_return(clock, capsys):
    with Progress(1000, 0, 100, 1) as bar:
        for _ in range(100):
            clock[0] += 1
            bar.update(1, LOSSES)
    log = capsys.readouterr().err
    assert "\r" not in log
    assert 3 <= log.count("\n") <= 6


def test_terminal_gets_one_line_of_bounded_width(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(10_000_000, 9_000_000, 1000, 16) as bar:
        for _ in range(5):
            clock[0] += 100
            bar.update(1, {name: 1234.5 * value for name, value in LOSSES.items()})
    shown = terminal.getvalue()
    assert shown.count("\n") == 1  # the one that ends it
    assert "epoch 9001/10000" in shown
    lines = re.split("[\r\n]", shown)
    assert max(map(len, lines)) == progress.COLUMNS
    assert any("█" in line for line in lines)


def test_losses_are_smoothed_per_step_whatever_the_call_takes(clock, capsys):
    def shown(calls: list[int]) -> str:
        with Progress(1000, 0, 100, 1) as bar:
            bar.update(1, {"cycle_a": 1.0})
            for steps in calls:
                clock[0] += 100
                bar.update(steps, {"cycle_a": 0.0})
        return capsys.readouterr().err.splitlines()[-1].split(", ")[-1]

    assert shown([20]) == shown([5, 5, 10]) == f"cycle {progress.MEMORY**20:.3f}"


def test_note_is_a_line_of_its_own(clock, capsys):
    with Progress(10, 0, 10, 1) as bar:
        bar.note("discriminator A is ahead")
    assert "discriminator A is ahead" in capsys.readouterr().err.splitlines()
