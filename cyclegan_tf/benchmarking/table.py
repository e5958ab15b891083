"""A table of measurements, for people and as JSON."""

from __future__ import annotations

import json
import platform
import statistics
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from cyclegan_tf.errors import UserError
from cyclegan_tf.files import write_atomically

_PACKAGES = ("tensorflow", "tensorflow-cpu", "tensorflow-addons", "keras", "numpy")


@dataclass
class Table:
    """Named rows of measured values in one unit.

    Attributes:
        title: what was measured.
        unit: the values' unit.
        rows: the values of each name, one per round.
        remarks: lines below the table.
    """

    title: str
    unit: str
    rows: dict[str, list[float]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def add(self, name: str, value: float) -> None:
        """Adds one round's value to a row."""
        self.rows.setdefault(name, []).append(value)

    def median(self, name: str) -> float:
        """The median of a row."""
        return statistics.median(self.rows[name])

    def remark(self, text: str) -> None:
        """Adds a line below the table."""
        self.remarks.append(text)

    def compare(self, name: str, other: str) -> None:
        """Remarks how often ``other``'s time is ``name``'s: the median of the rounds' ratios."""
        pairs = zip(self.rows[name], self.rows[other])
        ratio = statistics.median(theirs / ours for ours, theirs in pairs)
        self.remark(
            f"{name} is {ratio:.2f} times as fast as {other} (median of the rounds' ratios)"
        )

    def text(self) -> str:
        """The table with the median, minimum and maximum of each row, and the remarks."""
        width = max(map(len, self.rows))
        lines = [
            f"{self.title} ({self.unit})",
            f"{'':{width}}  {'median':>10} {'min':>10} {'max':>10}",
        ]
        for name, values in self.rows.items():
            numbers = (statistics.median(values), min(values), max(values))
            lines.append(f"{name:{width}}  " + " ".join(f"{number:10.3f}" for number in numbers))
        return "\n".join(lines + self.remarks)

    def save(self, path: Path) -> None:
        """Writes the values as JSON, with the machine and the versions.

        Raises:
            UserError: if the file cannot be written.
        """
        content = {"title": self.title, "unit": self.unit, "rows": self.rows}
        content.update(remarks=self.remarks, **environment())
        try:
            write_atomically(Path(path), (json.dumps(content, indent=1) + "\n").encode())
        except OSError as error:
            raise UserError(f"--output {path}: cannot be written ({error.strerror})") from None


def environment() -> dict[str, object]:
    """The CPU, the system and the versions that a figure depends on."""
    return {
        "cpu": _cpu_name(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} × {names[0]}" if names else platform.processor()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
