"""Translates pictures, GIFs and films: ``python -m cyclegan_tf.translate``.

Give files, patterns or folders; folders keep their tree below --output. The model is a training run
(--run-dir), or a SavedModel or .tflite file that ``cyclegan_tf.export`` has written (--model).
"""

from __future__ import annotations

import argparse
import glob
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cyclegan_tf.environment import start_tensorflow
from cyclegan_tf.errors import UserError, run_command
from cyclegan_tf.exporting.suffixes import FILMS, PICTURES
from cyclegan_tf.flags import Parser, add_weights_flag
from cyclegan_tf.training.run_directory import check_writable

if TYPE_CHECKING:
    from cyclegan_tf.exporting.translator import Translator

_KNOWN = PICTURES + FILMS
_SMOOTH = 0.8
# Squares of this side have as many pixels as pictures may have (tfrecords_tools.images.MAX_PIXELS).
_LARGEST_SIZE = 9459


@dataclass(frozen=True)
class Job:
    """One file to translate, and where the result goes."""

    source: Path
    target: Path

    @property
    def is_film(self) -> bool:
        """Whether it has frames."""
        return self.source.suffix.lower() in FILMS


@dataclass
class Outcome:
    """What came of all files."""

    done: int = 0
    skipped: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)  # left out in folders, by kind
    results: int = 0  # of earlier calls, which a pattern means as well

    def summary(self) -> str:
        """A few lines for the end of the command."""
        lines = [f"{path}: {reason}" for path, reason in self.failed]
        left = [f"{count} × {kind}" for kind, count in sorted(self.others.items()) if count]
        left += [f"{self.results} × results in --output"] if self.results else []
        if left:
            lines.append(f"left out: {', '.join(left)}")
        counts = f"{self.done} translated, {len(self.failed)} failed"
        if self.skipped:
            counts += f", {self.skipped} already there (--overwrite replaces them)"
        return "\n".join([*lines, counts])


def main(argv: list[str] | None = None) -> int:
    """Runs the command; the exit status is 1 if any file failed."""
    arguments = parser().parse_intermixed_args(argv)
    _check(arguments)
    outcome = Outcome()
    jobs = list(_to_do(plan(arguments.inputs, arguments.output, outcome), arguments, outcome))
    if not (jobs or outcome.skipped or outcome.failed):
        raise UserError(f"{' '.join(arguments.inputs)}: holds nothing that can be translated")
    if any(job.is_film for job in jobs):
        from cyclegan_tf.exporting.video import import_av

        import_av()
    if jobs:
        start_tensorflow()
        from cyclegan_tf.exporting.translator import load

        model = arguments.run_dir or arguments.model
        translator = load(model, arguments.direction, arguments.weights)
        translate_jobs(translator, jobs, arguments, outcome)
    print(outcome.summary())
    return 1 if outcome.failed else 0


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    flags = Parser(prog="python -m cyclegan_tf.translate", description=__doc__)
    model = flags.add_mutually_exclusive_group(required=True)
    model.add_argument("--run-dir", type=Path, help="a training run")
    model.add_argument("--model", type=Path, help="a SavedModel's folder or a .tflite file")
    flags.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="a file, a folder, or a pattern like '**/*.jpg'"
    )
    flags.add_argument("--output", type=Path, required=True, help="the folder for the results")
    flags.add_argument(
        "--direction", metavar="ab|ba", help="which way, where the model holds both (default: ab)"
    )
    add_weights_flag(flags)
    flags.add_argument(
        "--size",
        type=_size,
        metavar="keep|N",
        help="N: the shorter side is brought to N pixels first; a generator does best near the "
        "size that it was trained at (default: keep)",
    )
    flags.add_argument(
        "--side-by-side", action="store_true", help="put the original on the left of the result"
    )
    flags.add_argument("--overwrite", action="store_true", help="replace results that are there")
    flags.add_argument(
        "--smooth",
        type=_share,
        nargs="?",
        const=_SMOOTH,
        default=0.0,
        metavar="SHARE",
        help="less flicker in films: share of the previous frame where the film stands still, 0 to "
        f"0.95 (default: 0; without a number: {_SMOOTH})",
    )
    flags.add_argument(
        "--batch-size", type=int, default=8, help="pictures or frames at once (default: 8)"
    )
    return flags


def _share(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(
            f"--smooth {text}: must be a number from 0 to 0.95; without one, give the files first"
        ) from None


def _size(text: str) -> int | None:
    if text == "keep":
        return None
    if not text.isdecimal() or not 8 <= int(text) <= _LARGEST_SIZE:
        raise UserError(
            f"--size {text}: must be keep or a number of pixels from 8 to {_LARGEST_SIZE}"
        )
    return int(text)


def _check(arguments: argparse.Namespace) -> None:
    if not 0.0 <= arguments.smooth <= 0.95:
        raise UserError(f"--smooth {arguments.smooth}: must be from 0 to 0.95")
    if arguments.batch_size < 1:
        raise UserError(f"--batch-size {arguments.batch_size}: must be at least 1")
    check_writable(arguments.output, "--output")


# --- What there is to do -------------------------------------------------------------------------


def plan(inputs: list[str], output: Path, outcome: Outcome) -> list[Job]:
    """The files that ``inputs`` name, each with its place below ``output``.

    Args:
        inputs: files, patterns and folders.
        output: the folder for the results; it is left out where it lies among the inputs.
        outcome: takes what cannot be translated.

    Raises:
        UserError: if an input names nothing at all.
    """
    jobs: dict[Path, Job] = {}
    for text in inputs:
        if len(inputs) > 1 and _is_same(Path(text), output):
            # As when a shell has made `photos/*` into names, and the results lie in photos/.
            outcome.results += sum(path.suffix.lower() in _KNOWN for path in output.rglob("*"))
            continue
        for source, relative in _files(text, output, outcome):
            target = output / relative
            if source.suffix.lower() not in _KNOWN:
                known = " ".join(_KNOWN)
                outcome.failed.append((source, f"of an unknown kind; must be one of {known}"))
            elif target in jobs and not _is_same(source, jobs[target].source):
                outcome.failed.append((source, f"{target} is the result of {jobs[target].source}"))
            else:
                jobs[target] = Job(source, target)
    return list(jobs.values())


def _is_same(one: Path, other: Path) -> bool:
    """Whether both lead to one place, which need not be there."""
    return os.path.realpath(one) == os.path.realpath(other)


def _files(text: str, output: Path, outcome: Outcome) -> Iterator[tuple[Path, Path]]:
    """(file, path relative to the input) of each file that one input names."""
    path = Path(text)
    if path.is_dir():
        yield from _walk(path, output, outcome)
    elif path.exists():
        yield path, Path(path.name)
    else:
        matches = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - may be absolute
        files = [Path(match) for match in matches if Path(match).is_file()]
        if not files:
            raise UserError(f"{text}: no such file or folder, and no pattern that fits any file")
        root, results = _fixed_part(text), output.resolve()
        # Where the results go to, or above it, the pattern may lie itself: those are no results.
        is_inside = results.is_relative_to(root.resolve()) and results != root.resolve()
        for file in files:
            if is_inside and file.resolve().is_relative_to(results):
                outcome.results += 1
            else:
                yield file, file.relative_to(root)


def _walk(folder: Path, output: Path, outcome: Outcome) -> Iterator[tuple[Path, Path]]:
    """Pictures and films below a folder; links to folders, which may lead round, are left.

    Those links and files of other kinds are counted, hidden ones are not; a folder that cannot be
    read has failed.
    """
    results = output.resolve()

    def fail(error: OSError) -> None:
        outcome.failed.append((Path(error.filename), f"cannot be read ({error.strerror})"))

    for parent, folders, names in os.walk(folder, onerror=fail):
        outcome.others["a link to a folder"] += sum(
            (Path(parent) / name).is_symlink() for name in folders if not name.startswith(".")
        )
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (Path(parent) / name).resolve() != results
        )
        for name in sorted(names):
            path = Path(parent) / name
            if name.startswith("."):
                continue
            if path.suffix.lower() in _KNOWN:
                yield path, path.relative_to(folder)
            else:
                outcome.others[path.suffix.lower() or "no suffix"] += 1


def _fixed_part(pattern: str) -> Path:
    """The folders of a pattern before the first one with a wildcard."""
    fixed = []
    for part in Path(pattern).parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return Path(*fixed)


def _to_do(jobs: list[Job], arguments: argparse.Namespace, outcome: Outcome) -> Iterator[Job]:
    """The jobs whose result is not there yet and lies inside --output."""
    root = arguments.output.resolve()
    for job in jobs:
        # A link among the results' folders could lead anywhere.
        if not job.target.parent.resolve().is_relative_to(root):
            outcome.failed.append((job.source, f"{job.target.parent} leads out of --output"))
        elif _is_same(job.target, job.source):
            outcome.failed.append((job.source, "would be replaced by its own result"))
        elif os.path.lexists(job.target) and not arguments.overwrite:
            outcome.skipped += 1
        else:
            yield job


# --- Doing it ------------------------------------------------------------------------------------


def translate_jobs(
    translator: Translator, jobs: list[Job], arguments: argparse.Namespace, outcome: Outcome
) -> None:
    """Translates files, pictures in batches before films; notes in ``outcome`` what came of each.

    Args:
        translator: what translates.
        jobs: the files.
        arguments: size, side_by_side, smooth and batch_size, as the command has them.
        outcome: is added to.
    """
    from tqdm import tqdm

    with tqdm(total=len(jobs), unit=" files", disable=None) as progress:
        pictures = [job for job in jobs if not job.is_film]
        for batch in _read_batches(pictures, arguments, outcome, progress.update):
            _translate_batch(translator, batch, arguments, outcome)
            progress.update(len(batch))
        for job in jobs:
            if job.is_film:
                _translate_film(translator, job, arguments, outcome)
                progress.update()


def _read_batches(jobs: list[Job], arguments, outcome: Outcome, on_bad) -> Iterator[list]:
    """Decoded pictures in rows of equal size, at most --batch-size and one tile's memory each."""
    from cyclegan_tf.exporting.pictures import BadFile, read_picture, reason_of
    from cyclegan_tf.exporting.translator import most_at_once

    batch: list = []
    for job in jobs:
        try:
            picture = read_picture(job.source).resized(arguments.size)
        except (BadFile, MemoryError) as error:
            outcome.failed.append((job.source, reason_of(error)))
            on_bad()
            continue
        most = most_at_once(picture.pixels, arguments.batch_size)
        if batch and (batch[0][1].pixels.shape != picture.pixels.shape or len(batch) >= most):
            yield batch
            batch = []
        batch.append((job, picture))
    if batch:
        yield batch


def _translate_batch(translator, batch: list, arguments, outcome: Outcome) -> None:
    import numpy as np

    from cyclegan_tf.exporting.pictures import BadFile, reason_of, save_picture

    try:
        originals = np.stack([picture.pixels for _, picture in batch])
        translations = translator.translate_batch(originals)
    except MemoryError as error:
        outcome.failed += [(job.source, reason_of(error)) for job, _ in batch]
        return
    for (job, picture), pixels in zip(batch, translations):
        result = picture.with_pixels(pixels)
        try:
            save_picture(picture.beside(result) if arguments.side_by_side else result, job.target)
            outcome.done += 1
        except (BadFile, MemoryError) as error:
            outcome.failed.append((job.source, reason_of(error)))


def _translate_film(translator, job: Job, arguments, outcome: Outcome) -> None:
    from tqdm import tqdm

    from cyclegan_tf.exporting.pictures import BadFile
    from cyclegan_tf.exporting.video import FilmOptions, translate_film

    options = FilmOptions(
        arguments.size, arguments.side_by_side, arguments.smooth, arguments.batch_size
    )
    with tqdm(unit=" frames", desc=job.source.name, leave=False, disable=None) as progress:
        try:
            report = translate_film(
                job.source, job.target, translator.translate_batch, options, progress.update
            )
        except BadFile as error:
            outcome.failed.append((job.source, str(error)))
            return
    outcome.done += 1
    flicker = "" if report.flicker is None else f", flicker {report.flicker:.2f} levels of 255"
    tqdm.write(f"{job.source}: {report.frames} frames{flicker}")


if __name__ == "__main__":
    run_command(main)
