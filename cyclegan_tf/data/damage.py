"""Damaged shards in training: what is broken is named and left out, within an allowance.

A broken record is replaced by its neighbour in a copy of the shard that the run keeps. So every
other picture stays at its position, and a run that goes on sees what it would have seen.
"""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import tensorflow as tf

from cyclegan_tf.data.pipeline import decode
from cyclegan_tf.data.shards import Shards
from cyclegan_tf.data.sources import check_files
from cyclegan_tf.errors import UserError
from cyclegan_tf.files import write_atomically
from tfrecords_tools.manifest import Shard
from tfrecords_tools.paths import AnyPath
from tfrecords_tools.schema import parse_example

_LIST = "left_out.json"
_HEADER = struct.Struct("<QI")  # length of the record and its checksum
_FOOTER = 4  # the checksum of the record


@dataclass(frozen=True)
class Damage:
    """One broken record: its shard, its number in it counted from 0, and what is wrong."""

    shard: str
    record: int
    reason: str

    def __str__(self) -> str:
        return f"{self.shard}, record {self.record} ({self.reason})"


def check_sizes(shards: Shards) -> None:
    """Raises what reading would raise in mid-run if a shard is missing or not of the right size.

    Raises:
        tf.errors.DataLossError: for a shard that is in the manifest otherwise.
    """
    try:
        check_files(shards)
    except UserError as error:
        raise tf.errors.DataLossError(None, None, str(error)) from None


def mend(shards: Shards, allowance: int) -> list[Damage]:
    """Looks for damage in all shards and mends it in ``shards.mended``.

    A shard in which something lies behind its last record gets a copy without that.

    Args:
        shards: the data set, with a folder for what is mended.
        allowance: how many broken records may be left out over the whole run.

    Returns:
        What was found now; empty if every record is sound.

    Raises:
        UserError: if a shard is missing, a split has no sound record, or more is broken than
            allowed. Nothing is written then.
    """
    found: list[Damage] = []
    mended: dict[str, bytes] = {}
    for split in shards.manifest.splits:
        content, damages = _mended(shards, split, allowance)
        mended.update(content)
        found += damages
    everything = list(dict.fromkeys(_left_out(shards.mended) + found))
    if len(everything) > allowance:
        raise UserError(
            f"{shards.folder}: {len(everything)} records are broken, more than "
            f"--max-damaged {allowance}, the first being {everything[0]}; build the shards again, "
            "and the same command goes on from the last checkpoint"
        )
    if found:
        text = json.dumps([asdict(damage) for damage in everything], indent=1)
        write_atomically(shards.mended / _LIST, text.encode())
    for name, content in mended.items():
        write_atomically(shards.mended / name, content)
    return found


def _mended(shards: Shards, split: str, allowance: int) -> tuple[dict[str, bytes], list[Damage]]:
    """The content for each damaged shard of a split by its name, and what is broken in them."""
    sound: list[AnyPath] = []
    broken: dict[str, list[bytes | None]] = {}
    damages: list[Damage] = []
    for shard in shards.manifest.splits[split]:
        path = shards.path(shard)
        if _is_sound(path, shard) and not _has_rest(path, shard):
            sound.append(path)
        else:
            broken[shard.file], found = _sound_records(path, shard, allowance)
            damages += found
    if not broken:
        return {}, []
    spare = _first_sound(sound, broken)
    if spare is None:
        raise UserError(
            f"{shards.folder}: no record of {split} can be read; build the shards again, and the "
            "same command goes on from the last checkpoint"
        )
    return {name: b"".join(_filled(each, spare)) for name, each in broken.items()}, damages


def _is_sound(path: AnyPath, shard: Shard) -> bool:
    """Whether every record can be read, parsed and decoded, and none is missing."""
    if not path.is_file():
        raise UserError(
            f"{path}: is missing; put it back or build the shards again, and the same command goes "
            "on from the last checkpoint"
        )
    records = tf.data.TFRecordDataset(str(path)).map(_check, num_parallel_calls=tf.data.AUTOTUNE)
    try:
        return int(records.reduce(tf.constant(0, tf.int64), lambda n, _: n + 1)) == shard.examples
    except tf.errors.OpError:
        return False


def _has_rest(path: AnyPath, shard: Shard) -> bool:
    """Whether something lies behind the last record, so little that TensorFlow passes over it."""
    size = path.stat().st_size
    return size != shard.bytes and sum(map(len, _frames(path.read_bytes()))) < size


def _check(serialized: tf.Tensor) -> tf.Tensor:
    return tf.shape(decode(parse_example(serialized)["image"]))


def _sound_records(
    path: AnyPath, shard: Shard, allowance: int
) -> tuple[list[bytes | None], list[Damage]]:
    """The framed records of a damaged shard, None for each that is broken, and what is broken."""
    records: list[bytes | None] = []
    damages: list[Damage] = []
    frames = _frames(path.read_bytes())
    with tempfile.TemporaryDirectory() as folder:
        for number in range(shard.examples):
            frame = next(frames, None)
            if frame is None and shard.examples - number > allowance:  # of any number at all
                raise UserError(
                    f"{path}: {shard.examples - number} records are cut off, more than "
                    f"--max-damaged {allowance}; build the shards again, and the same command goes "
                    "on from the last checkpoint"
                )
            reason = "is cut off" if frame is None else _reason(frame, Path(folder) / "one")
            records.append(frame if reason is None else None)
            damages += [Damage(shard.file, number, reason)] if reason else []
    return records, damages


def _frames(content: bytes) -> Iterator[bytes]:
    """Each record with its header and footer; what is cut off or misstates its length is left."""
    offset = 0
    while offset + _HEADER.size <= len(content):
        length, _ = _HEADER.unpack_from(content, offset)
        end = offset + _HEADER.size + length + _FOOTER
        if end > len(content):
            return
        yield content[offset:end]
        offset = end


def _reason(frame: bytes, path: Path) -> str | None:
    """What is wrong with one record, found by reading it as training does; None if it is sound."""
    path.write_bytes(frame)
    try:
        serialized = next(iter(tf.data.TFRecordDataset(str(path))))
    except tf.errors.OpError:
        return "its checksum is wrong"
    try:
        example = parse_example(serialized)
        decode(example["image"])
    except tf.errors.OpError:
        return "is no picture that can be decoded"
    return None


def _first_sound(sound: list[AnyPath], broken: dict[str, list[bytes | None]]) -> bytes | None:
    """Some sound record of a split, the first of its first sound shard if there is one."""
    for path in sound:
        for frame in _frames(path.read_bytes()):
            return frame
    return next((one for records in broken.values() for one in records if one is not None), None)


def _filled(records: list[bytes | None], spare: bytes) -> list[bytes]:
    """The records with the nearest sound one before in place of a broken one.

    Before the first sound one it is the one after, and in a shard without any the spare.
    """
    last = next((record for record in records if record is not None), spare)
    filled = []
    for record in records:
        last = last if record is None else record
        filled.append(last)
    return filled


def _left_out(folder: Path) -> list[Damage]:
    try:
        return _parsed((folder / _LIST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{folder / _LIST}: cannot be read ({error}); delete {folder}") from None


def _parsed(text: str) -> list[Damage]:
    entries = json.loads(text)
    found = [Damage(**entry) for entry in entries]
    kinds = [[type(value) for value in asdict(damage).values()] for damage in found]
    if type(entries) is not list or any(kind != [str, int, str] for kind in kinds):
        raise ValueError("does not list broken records")
    return found
