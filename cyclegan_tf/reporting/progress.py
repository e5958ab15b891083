"""The progress bar of a training."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

COLUMNS = 100  # The bar takes at most this many characters.
REFRESH_SECONDS = 0.5
LOG_SECONDS = 30.0  # between lines where stderr is a file or a pipe
MEMORY = 0.98  # of the smoothed losses, per step: they look back over about 50 steps

_BAR = "{desc} {percentage:3.0f}%|{bar}| {rate_noinv_fmt}, {remaining} left{postfix}"
_LINE = "{desc}, {percentage:.0f}%, {rate_noinv_fmt}, {remaining} left{postfix}"

# What is shown, and the losses whose mean it is.
_SHOWN = {
    "G": ("generator_ab", "generator_ba"),
    "cycle": ("cycle_a", "cycle_b"),
    "contrast": ("contrast_a", "contrast_b"),
    "D": ("discriminator_a", "discriminator_b"),
}


class Progress:
    """A context manager that shows on stderr how far a training is and how it goes.

    On a terminal it is one bar in place; elsewhere it is a line every ``LOG_SECONDS``.

    Args:
        total_steps: the length of the whole training.
        done_steps: the steps that earlier sessions took.
        steps_per_epoch: how many steps are one epoch.
        batch_size: images of each domain per step; images/s counts A and B pairs once.
    """

    def __init__(
        self, total_steps: int, done_steps: int, steps_per_epoch: int, batch_size: int
    ) -> None:
        self._steps_per_epoch = steps_per_epoch
        self._epochs = max(1, -(-total_steps // steps_per_epoch))
        self._smoothed: dict[str, float] = {}
        self._timed = False
        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total_steps,
            initial=done_steps,
            desc=self._epoch(done_steps),
            unit=" images",
            unit_scale=batch_size,
            file=sys.stderr if terminal else _Lines(sys.stderr),
            ncols=_columns() if terminal else None,
            nrows=20,  # Some terminals say that they have none, and tqdm would show nothing there.
            bar_format=_BAR if terminal else _LINE,
            mininterval=REFRESH_SECONDS if terminal else LOG_SECONDS,
            miniters=1,
            smoothing=0.1,  # Samples and checkpoints take time, too, which must not shake the rest.
        )

    def update(self, steps: int, losses: dict[str, float]) -> None:
        """Counts ``steps`` more steps, whose mean losses were ``losses`` (names as in the step)."""
        for shown, names in _SHOWN.items():
            values = [float(losses[name]) for name in names if name in losses]
            if values:
                self._smooth(shown, sum(values) / len(values), steps)
        texts = [f"{shown} {value:.3f}" for shown, value in self._smoothed.items()]
        self._bar.set_postfix_str(" ".join(texts), refresh=False)
        self._bar.set_description_str(self._epoch(self._bar.n + steps), refresh=False)
        if self._timed:
            self._bar.update(steps)
        else:
            self._count_untimed(steps)

    def note(self, text: str) -> None:
        """Prints a line on stderr without breaking the bar."""
        self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        """Leaves the last state on the screen."""
        self._bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _count_untimed(self, steps: int) -> None:
        """The first steps wait for the graph: their time would promise hours of training."""
        self._timed = True
        self._bar.unpause()
        self._bar.initial += steps
        self._bar.last_print_n += steps
        self._bar.n += steps
        self._bar.refresh()

    def _smooth(self, shown: str, value: float, steps: int) -> None:
        """An exponential moving average in steps, whatever the number of steps per call."""
        memory = MEMORY**steps if shown in self._smoothed else 0.0
        self._smoothed[shown] = memory * self._smoothed.get(shown, 0.0) + (1.0 - memory) * value

    def _epoch(self, steps: int) -> str:
        return f"epoch {min(steps // self._steps_per_epoch + 1, self._epochs)}/{self._epochs}"


class _Lines:
    """A text stream in which each of tqdm's redrawings becomes a line, as logs want it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        line = " ".join(text.split())
        if line:
            self._stream.write(line + "\n")

    def flush(self) -> None:
        self._stream.flush()


def _columns() -> int:
    """The width of the bar on this terminal."""
    try:
        terminal = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        return COLUMNS
    return min(COLUMNS, terminal or COLUMNS)  # Some terminals say 0: they do not know.
