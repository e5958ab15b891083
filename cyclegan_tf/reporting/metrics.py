"""The numbers of a run: one JSON line per record in metrics.jsonl, and the same for TensorBoard."""

from __future__ import annotations

import io
import json
import math
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from cyclegan_tf.errors import UserError
from cyclegan_tf.files import write_atomically
from cyclegan_tf.reporting.samples import remove_samples_after

FILE = "metrics.jsonl"
TENSORBOARD = "tensorboard"
_LARGEST = 2**53  # up to which a float holds every whole number
_LEAST_FLOAT = 1e-300  # beyond these, sums and quotients would not be finite
_LATEST = 253_402_300_799  # the last second of the year 9999, in seconds since 1970
HEALTH_MEASURE = "diversity_ab"  # in every record of a look at the run's health

# How the metrics are grouped in TensorBoard and in the report; everything else is a score.
_GROUPS = {
    "losses": (
        *("generator", "discriminator", "cycle", "identity", "penalty"),
        *("teacher", "features", "contrast"),
    ),
    "health": (
        "diversity",
        "accuracy_real",
        "accuracy_fake",
        "margin",
        "margin_trained",
        "ranking",
        "brightness",
        "clipped",
        "gradient_generators",
        "gradient_discriminators",
    ),
    "speed": ("learning_rate", "images_per_second", "epoch"),
}
_SUFFIXES = ("ab", "ba", "a", "b")


def split_name(name: str) -> tuple[str, str]:
    """The stem of a metric's name and its direction or domain: "cycle_a" → ("cycle", "a").

    The second is "" if the name has none.
    """
    stem, _, suffix = name.rpartition("_")
    return (stem, suffix) if stem and suffix in _SUFFIXES else (name, "")


def group_of(stem: str) -> str:
    """The group of a stem: "losses", "health", "speed" or "scores"."""
    return next((group for group, stems in _GROUPS.items() if stem in stems), "scores")


class MetricsLog:
    """Writes a run's metrics to ``metrics.jsonl`` and, with images, to ``tensorboard/``.

    A session that was killed may have logged steps that its last checkpoint does not hold. They
    will be taken again, so opening the log forgets them: it cuts metrics.jsonl back to
    ``done_steps``, deletes the samples that came after, and tells TensorBoard to drop all of them.

    Args:
        run_dir: the run directory; made if it is missing.
        done_steps: the steps of the checkpoint from which the training goes on; 0 for a new run.

    Raises:
        UserError: if metrics.jsonl holds something else than records.
    """

    def __init__(self, run_dir: Path, done_steps: int) -> None:
        path = Path(run_dir) / FILE
        _cut(path, done_steps)
        remove_samples_after(run_dir, done_steps)
        self._protocols = [protocol for _, protocol in list_protocols(read_metrics(run_dir))]
        # Names of files may hold bytes that are no text; JSON reads \udcff back as such a one.
        self._file = path.open("a", encoding="utf-8", errors="backslashreplace")
        self._board = _Board(Path(run_dir) / TENSORBOARD, done_steps)

    def write(
        self, step: int, values: dict[str, float], protocol: dict[str, Any] | None = None
    ) -> None:
        """Appends one record: {"step", "time" (seconds since 1970), and the values}.

        A value that is not finite becomes null, as JSON has no name for it. Values keep 7 digits,
        as many as a float32 has.

        Args:
            step: the steps done.
            values: by name.
            protocol: what the scores among them depend on; it goes into the record, as "protocol",
                if it is not the one that was logged last.
        """
        floats = {name: float(value) for name, value in values.items()}
        content: dict[str, Any] = {name: _rounded(value) for name, value in floats.items()}
        if protocol and self._protocols[-1:] != [protocol]:
            content["protocol"] = protocol
            self._protocols.append(protocol)
        self._append(step, content)
        self._board.scalars(step, floats)

    def warn(self, step: int, text: str, check: str = "") -> None:
        """Appends a record that holds only a warning, which the report shows.

        Args:
            step: when it was found.
            text: one line.
            check: what found it, for warnings that come again and again; the report shows the
                newest of each.
        """
        self._append(step, {"warning": text, "check": check} if check else {"warning": text})

    def images(self, step: int, name: str, image: np.ndarray) -> None:
        """Gives TensorBoard a picture, uint8 [height, width, 3]."""
        self._board.image(step, name, image)

    def close(self) -> None:
        """Closes the files."""
        self._file.close()
        self._board.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _append(self, step: int, content: dict[str, Any]) -> None:
        record = {"step": int(step), "time": round(time.time(), 3), **content}
        self._file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())  # No checkpoint may reach the disk before its line does.


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The records of a run, oldest first; none if there is no metrics.jsonl yet.

    Each has an int "step"; a value that was not finite is None. A half-written last line is left
    out.

    Raises:
        UserError: if any other line is no record.
    """
    return [record for _, record in _records(Path(run_dir) / FILE)]


def list_protocols(records: list[dict[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
    """(step, protocol) of each that was logged: what the scores depend on from that step on."""
    return [
        (record["step"], record["protocol"])
        for record in records
        if isinstance(record.get("protocol"), dict)
    ]


def content_of(entry: str) -> str:
    """What tells the content in a protocol's "NAME (HASH)"; an entry without a hash as it is."""
    return entry.rpartition("(")[2]


def _records(path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    """(line, record) of each complete line of a file that may be missing."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    lines = content.split(b"\n")[:-1]  # What follows the last newline is empty or half-written.
    return [(line + b"\n", _parse(line, path, n)) for n, line in enumerate(lines, start=1)]


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or type(record.get("step")) is not int:
        raise UserError(
            f"{path}: line {number} must be a JSON object with a step; delete that line"
        )
    for name, value in record.items():
        if not _is_possible(name, value):
            raise UserError(f"{path}: line {number} has a {name} out of bounds; delete that line")
    return record


def _is_possible(name: str, value: Any) -> bool:
    """Whether what reads a record can count and draw with it."""
    if name == "time":
        return isinstance(value, (int, float)) and 0 <= value <= _LATEST
    if name == "step":
        return 0 <= value <= _LARGEST
    if isinstance(value, int):
        return abs(value) <= _LARGEST
    if isinstance(value, float) and value and math.isfinite(value):
        return _LEAST_FLOAT <= abs(value) <= 1.0 / _LEAST_FLOAT
    return True


def _cut(path: Path, done_steps: int) -> None:
    """Leaves only the complete records up to ``done_steps``."""
    kept = b"".join(line for line, record in _records(path) if record["step"] <= done_steps)
    if not path.exists() or len(kept) != path.stat().st_size:
        write_atomically(path, kept)


def _rounded(value: float) -> float | None:
    return float(f"{value:.7g}") if math.isfinite(value) else None


class _Board:
    """TensorBoard events: one file per session, a TFRecord of Event messages.

    Written as such because tf.summary cannot tell TensorBoard from which step a run goes on, and
    TensorBoard's own writer is missing where TensorFlow comes without it, as 2.21 does.
    """

    def __init__(self, folder: Path, done_steps: int) -> None:
        import tensorflow as tf  # only here: who reads metrics.jsonl does without

        self._messages, self._errors = tf.compat.v1, tf.errors.OpError
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard looks for "tfevents" and reads the files in the order of their names.
        name = f"events.out.tfevents.{time.time_ns():020}.{socket.gethostname()}"
        self._writer = tf.io.TFRecordWriter(str(folder / name))
        self._add(0, file_version="brain.Event:2")
        start = self._messages.SessionLog(status=self._messages.SessionLog.START)
        self._add(done_steps + 1, session_log=start)  # TensorBoard drops this step and later ones.

    def scalars(self, step: int, values: dict[str, float]) -> None:
        tags = {name: f"{group_of(split_name(name)[0])}/{name}" for name in values}
        self._add_values(step, [{"tag": tags[n], "simple_value": v} for n, v in values.items()])

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        png = io.BytesIO()
        Image.fromarray(image).save(png, "PNG")
        height, width, channels = image.shape
        picture = self._messages.Summary.Image(
            height=height, width=width, colorspace=channels, encoded_image_string=png.getvalue()
        )
        self._add_values(step, [{"tag": name, "image": picture}])

    def close(self) -> None:
        with self._disk_errors():
            self._writer.close()

    def _add_values(self, step: int, values: list[dict[str, Any]]) -> None:
        summary = self._messages.Summary
        self._add(step, summary=summary(value=[summary.Value(**value) for value in values]))

    def _add(self, step: int, **content: Any) -> None:
        event = self._messages.Event(wall_time=time.time(), step=int(step), **content)
        with self._disk_errors():
            self._writer.write(event.SerializeToString())
            self._writer.flush()

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise UserError(f"{self._folder}: cannot be written ({error.message})") from None
