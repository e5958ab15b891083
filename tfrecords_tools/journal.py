"""What a build has done: build_state.jsonl while it is under way, build_report.json in the end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tfrecords_tools.manifest import Shard, write_text

STATE_NAME = "build_state.jsonl"
REPORT_NAME = "build_report.json"


@dataclass(frozen=True)
class LeftOut:
    """A file of the source that is in no shard, with a short reason and the details."""

    file: str
    reason: str
    detail: str


@dataclass(frozen=True)
class PackedShard:
    """A finished shard, the files left out of it, and how many were encoded anew, by reason."""

    shard: Shard
    left_out: tuple[LeftOut, ...]
    reencoded: dict[str, int]

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> PackedShard:
        left_out = tuple(LeftOut(**entry) for entry in fields["left_out"])
        return cls(Shard(**fields["shard"]), left_out, fields["reencoded"])


class Journal:
    """The finished shards of a build that is under way, kept in build_state.jsonl.

    Its first line holds the settings, each further one a finished shard. As long as the file is
    there, the folder holds an unfinished build.

    Args:
        folder: The output folder.
        settings: What the bytes of the shards depend on, as JSON values. What an earlier build
            recorded counts only if its settings were the same.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self._path = folder / STATE_NAME
        self._settings = settings
        self._packed = self._read()
        self._write()

    def resume(self, files: Iterable[str]) -> list[PackedShard]:
        """Forgets all shards but those of ``files`` that have their checksum; returns them."""
        folder = self._path.parent
        wanted = [self._packed[file] for file in files if file in self._packed]
        self._packed = {e.shard.file: e for e in wanted if e.shard.is_intact(folder)}
        self._write()
        return list(self._packed.values())

    def add(self, packed: PackedShard) -> None:
        """Records a finished shard."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(packed)) + "\n")

    def _write(self) -> None:
        lines = [self._settings, *map(asdict, self._packed.values())]
        write_text(self._path, "".join(json.dumps(line) + "\n" for line in lines))

    def _read(self) -> dict[str, PackedShard]:
        packed: dict[str, PackedShard] = {}
        try:
            settings, *lines = self._path.read_text(encoding="utf-8").splitlines()
            if json.loads(settings) == self._settings:
                for line in lines:
                    entry = PackedShard.from_json(json.loads(line))
                    packed[entry.shard.file] = entry
        except (OSError, ValueError, KeyError, TypeError):
            pass  # No file, or a line that was not written to its end: what is before it counts.
        return packed


@dataclass(frozen=True)
class Report:
    """What became of the files that are not in the shards as they came."""

    left_out: tuple[LeftOut, ...]
    reencoded: dict[str, int]

    @classmethod
    def of(cls, packed: Iterable[PackedShard]) -> Report:
        """Sums up the shards of a build."""
        left_out: list[LeftOut] = []
        reencoded: Counter[str] = Counter()
        for entry in packed:
            left_out += entry.left_out
            reencoded.update(entry.reencoded)
        return cls(
            tuple(sorted(left_out, key=lambda entry: entry.file)), dict(sorted(reencoded.items()))
        )

    @classmethod
    def load(cls, folder: Path) -> Report | None:
        """Reads build_report.json; None if it is missing or damaged."""
        try:
            fields = json.loads((folder / REPORT_NAME).read_text(encoding="utf-8"))
            return cls(tuple(LeftOut(**entry) for entry in fields["left_out"]), fields["reencoded"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, folder: Path) -> None:
        """Writes build_report.json in one atomic step."""
        write_text(folder / REPORT_NAME, json.dumps(asdict(self), indent=1) + "\n")

    def reasons(self, split: str = "") -> str:
        """Returns how many files (of ``split``) were left out and why: "2 empty, 1 truncated"."""
        left_out = (entry for entry in self.left_out if entry.file.startswith(split))
        counts = Counter(entry.reason for entry in left_out).most_common()
        return ", ".join(f"{count:,} {reason}" for reason, count in counts)
