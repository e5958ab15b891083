"""A run directory: created once with its settings, and continued only with the same ones."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cyclegan_tf.config import Config, all_settings, flag
from cyclegan_tf.data.shards import MENDED, Shards
from cyclegan_tf.errors import UserError, check_local
from cyclegan_tf.files import to_disk, write_atomically
from cyclegan_tf.locking import locked

CONFIG_FILE = "config.json"
DATA_FILE = "data.json"  # which pictures the run has learnt from
_UNFINISHED_CONFIG = ".config.json.tmp"
# What a training that was killed before its first step may have left.
_LEFTOVERS = {_UNFINISHED_CONFIG, MENDED}
_NO_WEIGHTS = "discriminator_augment"  # changes what a network sees, not the network
# What the machine, not the software, is to blame for.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE)


@contextmanager
def claimed(run_dir: Path, flag: str = "--run-dir") -> Iterator[None]:
    """Makes ``run_dir`` and keeps other processes out of it; takes it back if it stays empty.

    The lock dies with the process, so a killed training never stands in the way of the next. The
    name of the flag is for messages.

    Raises:
        UserError: if another process works there, or the folder cannot be made or written to, as
            when the disk is full.
    """
    check_writable(run_dir, flag)
    made = [path for path in (run_dir, *run_dir.parents) if not path.exists()]
    try:
        _make(run_dir, flag)
        with locked(run_dir, lambda: _refuse_second(run_dir, flag)):
            yield
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        raise UserError(
            f"{flag} {run_dir}: cannot be written ({error.strerror}: {error.filename or 'file'}); "
            "mend that, and the same command goes on from the last checkpoint"
        ) from error
    finally:
        for path in made:
            with suppress(OSError):  # not empty, or not made at all
                path.rmdir()


def _make(run_dir: Path, flag: str) -> None:
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{flag} {run_dir}: cannot be written ({error.strerror})") from None


def _refuse_second(run_dir: Path, flag: str) -> None:
    raise UserError(
        f"{flag} {run_dir}: another process is working there; wait for it, or name another"
    )


def check_writable(folder: Path, flag: str) -> None:
    """Changes nothing; the name of the flag is for the message.

    Raises:
        UserError: if ``folder`` neither is nor could become a local folder to write to.
    """
    check_local(folder, flag)
    present = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not present.is_dir():
        raise UserError(f"{flag} {folder}: {present} is no folder; name another")
    if not os.access(present, os.W_OK):
        raise UserError(f"{flag} {folder}: {present} may not be written to; name another folder")


def check_output(path: Path) -> None:
    """For the file that --output names, before the work that fills it; changes nothing.

    Raises:
        UserError: if it is a folder, a device or a URL, or its folder cannot be written to.
    """
    check_local(path, "--output")
    if path.is_dir():
        raise UserError(f"--output {path}: is a folder; name a file")
    if path.exists() and not path.is_file():  # Root would put a file in the place of /dev/null.
        raise UserError(f"--output {path}: is a device or a pipe; name a file")
    check_writable(path.parent, "--output")


def check_run_directory(run_dir: Path, config: Config, flag: str = "--run-dir") -> bool:
    """Whether ``run_dir`` holds a run with these settings; False if it is free for a new one.

    Settings that have no part in what is learned may differ. Changes nothing; the name of the flag
    is for the message.

    Raises:
        UserError: if it holds a run with other settings, or something that is no run, or cannot be
            written to.
    """
    check_writable(run_dir, flag)
    return holds_run(run_dir, config, flag)


def holds_run(run_dir: Path, config: Config, flag: str = "--run-dir") -> bool:
    """What ``check_run_directory`` tells, for one who only reads there: it may be read-only."""
    if (run_dir / CONFIG_FILE).exists():
        differences = config.differences(Config.load(run_dir))
        if differences:
            raise UserError(
                f"{flag} {run_dir}: holds a run with other settings ({'; '.join(differences)}); "
                f"give the same settings to go on, or another {flag} to start anew"
            )
        return True
    check_place(run_dir, flag)
    return False


def check_place(run_dir: Path, flag: str = "--run-dir") -> None:
    """Changes nothing; the name of the flag is for the message.

    Raises:
        UserError: if ``run_dir`` holds something that is no run.
    """
    if not run_dir.is_dir() or (run_dir / CONFIG_FILE).exists():
        return
    if {path.name for path in run_dir.iterdir()} - _LEFTOVERS:
        raise UserError(f"{flag} {run_dir}: is not empty and holds no run; name a new folder")


def with_begun_precision(config: Config, run_dir: Path) -> Config:
    """The settings with the precision that the run began in, where they leave it to the machine.

    Raises:
        UserError: if the run's settings cannot be read.
    """
    if config.run.precision != "auto" or not (run_dir / CONFIG_FILE).exists():
        return config
    return config.replace(precision=Config.load(run_dir).run.precision)


def check_data(run_dir: Path, config: Config, shards: Shards) -> None:
    """Changes nothing.

    Raises:
        UserError: if the run has learnt from other shards than these: its schedule, the order of
            its pictures and its scores would all be others.
    """
    try:
        known = json.loads((run_dir / DATA_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:  # a new run, or one from before this was noted
        _check_same_place(run_dir, config)
        return
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{run_dir / DATA_FILE}: cannot be read ({error})") from None
    found = data_identity(shards)
    if known != found:
        before = known if isinstance(known, dict) else {}
        names = [name for name in found if found[name] != before.get(name)]
        raise UserError(
            f"--data {config.data.data}: does not hold the pictures that {run_dir} has learnt from "
            f"(another {', '.join(names)}); give those to go on, or --init-from {run_dir} and "
            "another --run-dir to learn from these"
        )


def _check_same_place(run_dir: Path, config: Config) -> None:
    if not (run_dir / CONFIG_FILE).exists():
        return
    known = Config.load(run_dir).data.data
    if known != config.data.data:
        raise UserError(
            f"--data {config.data.data}: {run_dir} has noted only where the pictures lay, "
            f"not what they are; give --data {known}"
        )


def note_data(run_dir: Path, shards: Shards) -> None:
    """Writes down which shards a run learns from, for ``check_data``, when it first learns."""
    if (run_dir / DATA_FILE).exists():
        return
    text = json.dumps(data_identity(shards), indent=1) + "\n"
    write_atomically(run_dir / DATA_FILE, text.encode())


def data_identity(shards: Shards) -> dict[str, object]:
    """What tells one folder of shards from another."""
    splits, count = shards.manifest.splits, shards.manifest.count
    digests = "".join(shard.sha256 for split in sorted(splits) for shard in splits[split])
    return {
        "number of pictures": {split: count(split) for split in sorted(splits)},
        "content of the shards": hashlib.sha256(digests.encode()).hexdigest(),
    }


def check_init_from(config: Config) -> Config:
    """The settings of the run that ``config.run.init_from`` names.

    Raises:
        UserError: if there is no such run, or the networks that it has have other weights.
    """
    name = f"--init-from {config.run.init_from}"
    try:
        other = Config.load(Path(config.run.init_from))
    except UserError as error:
        raise UserError(f"{name}: {str(error).split(': ', 1)[-1]}") from None
    ours, theirs = (
        each.replace(generator_blocks=each.generator_blocks()).flat() for each in (config, other)
    )
    # What was imported holds generators alone.
    is_trained = (Path(config.run.init_from) / DATA_FILE).exists()
    networks = ("generator", "discriminator") if is_trained else ("generator",)
    if is_trained and other.one_sided() and not config.one_sided():
        raise UserError(f"{name}: is one-sided, A to B alone; train one-sided too, as with cut")
    for section, flat, _ in all_settings():
        is_of_networks = section in networks and flat != _NO_WEIGHTS
        if is_of_networks and ours[flat] != theirs[flat]:
            raise UserError(
                f"{name}: has {flag(flat)} {theirs[flat]}, not {ours[flat]}; give the same"
            )
    return other


def create_run_directory(run_dir: Path, config: Config, flag: str = "--run-dir") -> None:
    """Makes the folder if need be, and writes its config.json, atomically.

    The name of the flag is for the message.

    Raises:
        UserError: if it cannot be written.
    """
    unfinished = run_dir / _UNFINISHED_CONFIG
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(config.to_json(), encoding="utf-8")
        to_disk(unfinished)
        unfinished.replace(run_dir / CONFIG_FILE)
    except OSError as error:
        raise UserError(f"{flag} {run_dir}: cannot be written ({error.strerror})") from None
