"""Packs images into TFRecord shards: ``python -m tfrecords_tools.build --input X --output DIR``.

The same input always gives the same bytes. A build that was interrupted, even by kill -9, goes on
where it stopped when the same command is given again; a finished one is left as it is.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import sys
import threading
import warnings
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable

from cyclegan_tf.environment import start_tensorflow, usable_cores
from cyclegan_tf.errors import UserError, check_local, fail, run_command
from cyclegan_tf.locking import locked
from tfrecords_tools import beam, journal, manifest
from tfrecords_tools.journal import Journal, PackedShard, Report
from tfrecords_tools.manifest import Manifest
from tfrecords_tools.schema import SPLITS
from tfrecords_tools.sources import Item, Source, SourceLost, open_source
from tfrecords_tools.writer import write_shard

# Large enough to be read at full speed, small enough that a large split has many to read at once.
SHARD_BYTES = 100_000_000
# Small splits, too, get a few shards, so that several readers have something to do.
MIN_SHARDS = 8
MAX_SHARDS = 10_000
MIN_SIDE = 16


def build(
    source: str,
    output: Path,
    *,
    shards: int | None = None,
    max_side: int | None = None,
    workers: int | None = None,
    strict: bool = False,
    quiet: bool = False,
    flag: str = "--input",
    output_flag: str = "--output",
    runner: str | None = None,
    runner_args: str = "",
    opened: Source | None = None,
) -> Manifest:
    """Packs ``source`` into TFRecord shards in the folder ``output``.

    Does nothing if they are already there, and goes on if an earlier build was interrupted. Builds
    of the same folder wait for each other.

    Args:
        source: A folder with trainA and trainB, "tfds:cycle_gan/NAME" or "demo".
        output: A folder that is new, empty, or was written by this function.
        shards: Number of shards of a split, 1 to 10,000, though never more than it has images; by
            default one for about every 100 MB, and at least 8.
        max_side: Shrink images whose longer side has more than this many pixels, 16 or more.
        workers: Number of threads (of processes, to draw the demo); by default one for each CPU.
        strict: Whether a bad image is an error, rather than left out and reported.
        quiet: Whether to print nothing.
        flag: The flag that ``source`` was given with, for messages.
        output_flag: What ``output`` was named with, for messages.
        runner: The Apache Beam runner that does the work, e.g. "DirectRunner"; None for threads.
        runner_args: Further flags for Beam, as one would type them.
        opened: What ``open_source`` made of ``source``, where it was opened already: a folder's
            images are read once for each.

    Returns:
        The manifest, as saved in ``output``.

    Raises:
        UserError: For what the caller can mend. Nothing is left behind, except when reading or
            writing fails: then the same call goes on from there.
    """
    _check_number("--shards", shards, 1, MAX_SHARDS)
    _check_number("--max-side", max_side, MIN_SIDE, 1_000_000)
    _check_number("--workers", workers, 1, 1_000)
    if runner_args and runner is None:
        raise UserError(f"--runner-args {runner_args}: is for --runner, which is not given")
    if runner is not None:
        beam.check_runner(runner, runner_args)
    check_local(output, output_flag)
    workers = workers or usable_cores()
    opened = opened or open_source(source, flag=flag, workers=workers, quiet=quiet)
    output = Path(output)
    place = f"{output_flag} {output}"
    _refuse_inside_source(output, source, place)
    with _claimed(output, quiet, place):
        _refuse_foreign(output, place)
        wanted = Manifest(
            version=manifest.VERSION,
            source=opened.name,
            fingerprint=opened.fingerprint(),
            paired=opened.paired,
            shards=shards,
            max_side=max_side,
            splits={},
        )
        finished = _finished(output, wanted, place)
        if finished is None:
            job = _Build(
                opened,
                output,
                wanted,
                workers,
                strict,
                quiet,
                f"{flag} {source}",
                (runner, runner_args),
            )
            built, report, did = *job.run(), "packed"
        else:
            built, report, did = *finished, "already complete:"
        if strict:
            _refuse_left_out(report)
        if not quiet:
            print(_summary(output, built, report, did))
        return built


def plan_shards(items: list[Item], shards: int | None = None) -> dict[str, list[Item]]:
    """Assigns items to shards: returns the items of each shard by its file name.

    The order is that of a hash of the names, so that neighbours in the source (frames of one film,
    pictures of one person) are spread over all shards: training shuffles a large data set only
    within a bounded buffer. It depends on the names alone.
    """
    plan = {}
    for split in SPLITS:
        members = sorted((item for item in items if item.split == split), key=_hashed_name)
        wanted = shards or max(MIN_SHARDS, -(-sum(item.size for item in members) // SHARD_BYTES))
        count = min(wanted, len(members))
        for index in range(count):
            plan[manifest.shard_name(split, index, count)] = members[index::count]
    return plan


def _hashed_name(item: Item) -> bytes:
    return hashlib.sha256(os.fsencode(item.name)).digest()


@dataclass(frozen=True)
class _Build:
    """A build that has something to do."""

    source: Source
    output: Path
    wanted: Manifest  # as it will be, but for the shards
    workers: int
    strict: bool
    quiet: bool
    input: str  # the flag and its value, for messages
    beam: tuple[str | None, str]  # the runner, if any, and its flags

    def run(self) -> tuple[Manifest, Report]:
        try:
            with warnings.catch_warnings():
                # Pillow warns of oddities in single files; what matters is in the report.
                warnings.simplefilter("ignore")
                return self._pack()
        except (beam.PipelineFailed, SourceLost):
            raise
        except UserError:
            _remove_own_files(self.output)
            raise

    def _pack(self) -> tuple[Manifest, Report]:
        plan = plan_shards(self.source.items(), self.wanted.shards)
        start_tensorflow()
        log = Journal(self.output, _settings(self.wanted))
        (self.output / manifest.FILE_NAME).unlink(missing_ok=True)
        packed = {entry.shard.file: entry for entry in log.resume(plan)}
        self._check_strict(packed.values())
        with contextlib.closing(self._entries(plan, skip=set(packed))) as entries:
            for entry in entries:
                log.add(entry)
                packed[entry.shard.file] = entry
                self._check_strict([entry])
        return self._finish([packed[file] for file in plan])

    def _entries(self, plan: dict[str, list[Item]], skip: set[str]) -> Iterator[PackedShard]:
        runner, flags = self.beam
        if runner is None:
            return self._write_shards(plan, skip)
        missing = {file: items for file, items in plan.items() if file not in skip}
        return beam.write_shards(missing, self.output, _settings(self.wanted), runner, flags)

    def _check_strict(self, entries: Iterable[PackedShard]) -> None:
        if self.strict:
            _refuse_left_out(Report.of(entries))

    def _write_shards(self, plan: dict[str, list[Item]], skip: set[str]) -> Iterator[PackedShard]:
        """Yields the shards of ``plan`` as they get done, several at a time."""
        stop = threading.Event()
        pool = ThreadPoolExecutor(self.workers)
        done = sum(len(plan[file]) for file in skip)
        total = sum(map(len, plan.values()))
        with _progress_bar(total, done, self.quiet) as advance:
            try:
                futures = [
                    pool.submit(
                        write_shard, self.output / file, items, self.wanted.max_side, advance, stop
                    )
                    for file, items in plan.items()
                    if file not in skip
                ]
                for future in as_completed(futures):
                    yield future.result()
            finally:
                stop.set()
                pool.shutdown(cancel_futures=True)

    def _finish(self, packed: list[PackedShard]) -> tuple[Manifest, Report]:
        report = Report.of(packed)
        splits = {}
        for split in SPLITS:
            shards = [e.shard for e in packed if manifest.is_shard_name(e.shard.file, split)]
            if any(shard.examples for shard in shards):
                splits[split] = tuple(shards)
            elif split.startswith("train"):
                raise UserError(
                    f"{self.input}: no usable image in {split} (left out:"
                    f" {report.reasons(split)}); put images there that can be read"
                )
        finished = replace(self.wanted, splits=splits)
        report.save(self.output)
        finished.save(self.output)
        kept = {shard.file for shards in splits.values() for shard in shards}
        _remove_own_files(self.output, keep={*kept, manifest.FILE_NAME, journal.REPORT_NAME})
        return finished, report


@contextlib.contextmanager
def _progress_bar(total: int, done: int, quiet: bool) -> Iterator[Callable[[], None]]:
    """Yields a function that advances a progress bar on stderr by one image, from any thread."""
    from tqdm import tqdm

    lock = threading.Lock()
    with tqdm(
        desc="packing", total=total, initial=done, leave=False, disable=quiet, unit=" images"
    ) as bar:

        def advance() -> None:
            with lock:
                bar.update()

        yield advance


# --- The output folder ---------------------------------------------------------------------------


@contextlib.contextmanager
def _claimed(output: Path, quiet: bool, place: str) -> Iterator[None]:
    """Creates ``output`` and keeps other builds out of it; takes it back if it stays empty."""
    try:
        created = not output.exists()
        output.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserError(f"{place}: is a file; name a folder") from None
    except OSError as error:
        raise UserError(
            f"{place}: cannot be created ({error.strerror}); name a folder that you may write to"
        ) from None
    try:
        with locked(output, lambda: _say_waiting(output, quiet)):
            yield
    except UserError:
        if created:
            with contextlib.suppress(OSError):
                output.rmdir()
        raise
    except OSError as error:
        raise UserError(
            f"{place}: cannot be written ({error.strerror or error}); mend that and run"
            " the same command to go on"
        ) from error


def _say_waiting(output: Path, quiet: bool) -> None:
    if not quiet:
        print(f"waiting for another build in {output}", file=sys.stderr)


def _refuse_inside_source(output: Path, source: str, place: str) -> None:
    resolved = Path(os.path.realpath(output))  # A link that leads to itself is no error here.
    for split in SPLITS:
        folder = Path(os.path.realpath(Path(source) / split))
        if folder in (resolved, *resolved.parents):
            raise UserError(f"{place}: lies inside {split} of the input; name a folder outside it")


def _refuse_foreign(output: Path, place: str) -> None:
    names = {path.name for path in output.iterdir()}
    foreign = sorted(name for name in names if not _is_temporary(name))
    if foreign and not names & {manifest.FILE_NAME, journal.STATE_NAME}:
        raise UserError(
            f"{place}: holds {foreign[0]!r} but no shards of an earlier build; choose a"
            " new or empty folder"
        )


def _is_own(name: str) -> bool:
    own = (manifest.FILE_NAME, journal.STATE_NAME, journal.REPORT_NAME)
    is_ours = name in own or manifest.is_shard_name(name) or beam.is_receipt_name(name)
    return is_ours or _is_temporary(name)


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp") and _is_own(name[1:-4])


def _remove_own_files(output: Path, keep: Collection[str] = ()) -> None:
    """Removes what builds have written, but for ``keep``; the mark of an unfinished one last."""
    names = {path.name for path in output.iterdir() if _is_own(path.name)} - set(keep)
    for name in sorted(names, key=lambda name: name == journal.STATE_NAME):
        (output / name).unlink(missing_ok=True)


def _settings(of: Manifest) -> dict[str, Any]:
    """Returns what the bytes of the shards depend on."""
    return {
        "version": of.version,
        "fingerprint": of.fingerprint,
        "shards": of.shards,
        "max_side": of.max_side,
    }


def _finished(output: Path, wanted: Manifest, place: str) -> tuple[Manifest, Report] | None:
    """Returns what ``output`` holds, if that is a finished and intact build of ``wanted``."""
    present = (output / manifest.FILE_NAME).exists()
    if not present or (output / journal.STATE_NAME).exists():
        return None
    try:
        found = Manifest.load(output)
    except manifest.Damaged:
        return None
    if _settings(found) != _settings(wanted):
        raise UserError(
            f"{place}: holds shards of {_origin(found)}, not of {_origin(wanted)}; choose"
            " another folder or delete this one"
        )
    report = Report.load(output)
    shards = [shard for shards in found.splits.values() for shard in shards]
    if report is None or not all(shard.is_intact(output) for shard in shards):
        return None
    return found, report


def _origin(of: Manifest) -> str:
    """Says what shards were made of, e.g. "selfie2anime (1a2b3c4d; --max-side 256)"."""
    options = {"--shards": of.shards, "--max-side": of.max_side}
    given = [f"{flag} {value}" for flag, value in options.items() if value is not None]
    if of.version != manifest.VERSION:
        given.append(f"packed in the way of version {of.version}")
    return f"{of.source} ({'; '.join([of.fingerprint[:8], *given])})"


# --- Checks and messages -------------------------------------------------------------------------


def _check_number(flag: str, value: int | None, least: int, most: int) -> None:
    if value is not None and not least <= value <= most:
        raise UserError(f"{flag} {value}: must be a whole number from {least:,} to {most:,}")


def _refuse_left_out(report: Report) -> None:
    for bad in report.left_out[:1]:
        raise UserError(
            f"{bad.file}: {bad.reason} ({bad.detail}); mend or remove it, or leave --strict away"
        )


def _summary(output: Path, built: Manifest, report: Report, did: str) -> str:
    counts = ", ".join(f"{split} {built.count(split):,}" for split in built.splits)
    size = sum(map(built.bytes, built.splits))
    files = sum(map(len, built.splits.values()))
    line = f"{output}: {did} {counts} in {files} shards, {size / 1e6:,.1f} MB"
    if report.reencoded:
        line += f"; encoded anew {sum(report.reencoded.values()):,}"
    if report.left_out:
        line += f"; left out {len(report.left_out):,} ({report.reasons()}), see build_report.json"
    return line


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = vars(_parser().parse_args(argv))
    try:
        build(options.pop("input"), **options)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tfrecords_tools.build",
        description="Packs images into TFRecord shards. The same input always gives the same bytes;"
        " an interrupted build goes on when the same command is given again.",
    )
    parser.error = fail  # one line instead of the whole usage
    parser.add_argument(
        "--input",
        required=True,
        metavar="X",
        help="a folder with trainA and trainB (testA and testB if there are any), or"
        " tfds:cycle_gan/NAME, or demo",
    )
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder for the shards, manifest.json and build_report.json",
    )
    parser.add_argument(
        "--shards",
        type=int,
        metavar="N",
        help="shards of each split (default: one for every 100 MB, at least 8)",
    )
    parser.add_argument(
        "--max-side", type=int, metavar="PX", help="shrink larger images to PX on their longer side"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="work on N shards at a time (default: one per CPU)"
    )
    parser.add_argument(
        "--runner",
        metavar="NAME",
        help="hand the work to Apache Beam (pip install '.[beam]'): DirectRunner,"
        " DataflowRunner, FlinkRunner, SparkRunner; the shards come out the same",
    )
    parser.add_argument(
        "--runner-args",
        default="",
        metavar="FLAGS",
        help="further flags for Beam, e.g. --runner-args='--project=P --region=R'",
    )
    parser.add_argument(
        "--strict", action="store_true", help="stop at a bad image instead of leaving it out"
    )
    return parser


if __name__ == "__main__":
    run_command(main)
