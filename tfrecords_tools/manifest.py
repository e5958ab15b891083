"""manifest.json: what a folder of shards holds, with checksums."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cyclegan_tf.errors import UserError
from tfrecords_tools.paths import AnyPath, as_path
from tfrecords_tools.schema import SPLITS

VERSION = 2
# In version 1, pictures that were kept as they came kept the colours of their profiles, too.
_READABLE = (1, VERSION)
FILE_NAME = "manifest.json"
_FRAME_BYTES = 16  # which a TFRecord has beside its content
_MAX_BYTES = 2**63 - 1


class Damaged(UserError):
    """The file is no JSON object, as after a fault of the disk."""


def shard_name(split: str, index: int, count: int) -> str:
    """Returns the file name of one shard, e.g. "trainA-00000-of-00008.tfrecord"."""
    return f"{split}-{index:05d}-of-{count:05d}.tfrecord"


def is_shard_name(name: str, split: str = "|".join(SPLITS)) -> bool:
    """Tells whether ``name`` is a shard's plain file name (of ``split``, if given)."""
    return re.fullmatch(rf"({split})-\d{{5}}-of-\d{{5}}\.tfrecord", name, re.ASCII) is not None


def temporary(path: Path) -> Path:
    """Returns where ``path`` is written before it is renamed into place."""
    return path.with_name(f".{path.name}.tmp")


def write_text(path: Path, text: str) -> None:
    """Writes ``text``; a reader sees the old file or the whole new one, never a part of it."""
    unfinished = temporary(path)
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's content as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


@dataclass(frozen=True)
class Shard:
    """One TFRecord file: its name, number of examples, size in bytes and SHA-256."""

    file: str
    examples: int
    bytes: int
    sha256: str

    def is_intact(self, folder: Path) -> bool:
        """Tells whether the file in ``folder`` has this size and checksum."""
        path = folder / self.file
        try:
            return path.stat().st_size == self.bytes and file_sha256(path) == self.sha256
        except OSError:
            return False


@dataclass(frozen=True)
class Manifest:
    """What a folder of shards holds.

    Attributes:
        version: Version of the manifest and of the examples; new ones have ``VERSION``.
        source: Where the images came from, e.g. "demo", "tfds:cycle_gan/maps" or a folder's name.
        fingerprint: Hash of the source's content (names and bytes).
        paired: Whether the test splits are true pairs: testA and testB images with the same
            file name show the same thing.
        shards: The number of shards a split that was asked for; None if it was chosen.
        max_side: The longest side in pixels that images were shrunk to; None if they were not.
        splits: The shards of each split that is there, by "trainA", "trainB", "testA", "testB".
    """

    version: int
    source: str
    fingerprint: str
    paired: bool
    shards: int | None
    max_side: int | None
    splits: dict[str, tuple[Shard, ...]]

    @classmethod
    def load(cls, folder: str | AnyPath) -> Manifest:
        """Reads the manifest of ``folder``.

        Raises:
            UserError: If it is missing, of another version, or names a shard that would lead
                outside the folder.
            Damaged: If it is no JSON object.
        """
        path = as_path(folder) / FILE_NAME
        fields = _read(path)
        _check_fields(path, fields)
        splits = {
            split: tuple(_shard(path, split, entry) for entry in entries)
            for split, entries in fields["splits"].items()
        }
        names = {shard.file for shards in splits.values() for shard in shards}
        if len(names) < sum(map(len, splits.values())):
            raise UserError(f"{path}: names a shard twice; build the shards again")
        return cls(**{**{name: fields[name] for name in _KINDS}, "splits": splits})

    def save(self, folder: Path) -> None:
        """Writes the manifest into ``folder`` in one atomic step."""
        write_text(Path(folder) / FILE_NAME, json.dumps(asdict(self), indent=1) + "\n")

    def count(self, split: str) -> int:
        """Returns the number of examples of ``split``; 0 if it is not there."""
        return sum(shard.examples for shard in self.splits.get(split, ()))

    def bytes(self, split: str) -> int:
        """Returns the size of the shards of ``split`` in bytes; 0 if it is not there."""
        return sum(shard.bytes for shard in self.splits.get(split, ()))


_KINDS: dict[str, tuple[type, ...]] = {
    "version": (int,),
    "source": (str,),
    "fingerprint": (str,),
    "paired": (bool,),
    "shards": (int, type(None)),
    "max_side": (int, type(None)),
    "splits": (dict,),
}
_SHARD_KINDS: dict[str, tuple[type, ...]] = {
    "file": (str,),
    "examples": (int,),
    "bytes": (int,),
    "sha256": (str,),
}


def _read(path: AnyPath) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path.parent}: no {FILE_NAME} here; name a folder that"
            " `python -m tfrecords_tools.build` has written"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path}: not valid JSON ({error}); build the shards again") from None
    if not isinstance(fields, dict):
        raise Damaged(f"{path}: holds no JSON object; build the shards again")
    return fields


def _check_fields(path: Path, fields: dict[str, Any]) -> None:
    if fields.get("version") not in _READABLE:
        raise UserError(
            f"{path}: version {fields.get('version')!r} is unknown; this software reads versions"
            f" {' and '.join(map(str, _READABLE))}; build the shards again"
        )
    _check_kinds(path, "", fields, _KINDS)
    for split, entries in fields["splits"].items():
        if split not in SPLITS:
            raise UserError(f"{path}: split {split!r} must be one of {', '.join(SPLITS)}")
        if not isinstance(entries, list) or not entries:
            raise UserError(f"{path}: splits.{split} must be a list of shards")


def _check_kinds(
    path: Path, where: str, fields: dict[str, Any], kinds: dict[str, tuple[type, ...]]
) -> None:
    for name, allowed in kinds.items():
        # The exact type, because True is an int to isinstance.
        if name not in fields or type(fields[name]) not in allowed:
            wanted = " or ".join(
                "null" if kind is type(None) else kind.__name__ for kind in allowed
            )
            found = repr(fields[name]) if name in fields else "missing"
            raise UserError(f"{path}: {where}{name} must be {wanted}, not {found}")


def _shard(path: Path, split: str, entry: Any) -> Shard:
    if not isinstance(entry, dict):
        raise UserError(f"{path}: splits.{split} must list JSON objects, not {entry!r}")
    _check_kinds(path, f"splits.{split}: ", entry, _SHARD_KINDS)
    shard = Shard(**{name: entry[name] for name in _SHARD_KINDS})
    # A manifest may come from elsewhere: its names must not lead to files outside its folder.
    if not is_shard_name(shard.file, split) or (path.parent / shard.file).is_symlink():
        raise UserError(
            f"{path}: {shard.file!r} must be a plain file of this folder with a name like"
            f" {shard_name(split, 0, 1)}"
        )
    if shard.examples < 0 or shard.bytes < 0:
        raise UserError(f"{path}: {shard.file} has a negative size")
    # What counts pictures later must not be led to numbers that no disk could hold.
    if shard.bytes > _MAX_BYTES or shard.examples * _FRAME_BYTES > shard.bytes:
        raise UserError(
            f"{path}: {shard.file} cannot hold {shard.examples} examples in {shard.bytes} bytes; "
            "build the shards again"
        )
    return shard
