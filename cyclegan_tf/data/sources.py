"""What ``--data`` names, as a folder of shards: training always reads shards."""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing.connection
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cyclegan_tf.data.shards import MENDED, Shards
from cyclegan_tf.environment import usable_cores
from cyclegan_tf.errors import UserError, check_local, first_line
from tfrecords_tools.build import build
from tfrecords_tools.manifest import FILE_NAME, VERSION
from tfrecords_tools.paths import is_remote
from tfrecords_tools.sources import open_source

_MIN_PICTURES = 2
_CACHE = "CYCLEGAN_TF_CACHE"
_LONGEST_NAME = 200  # of the 255 bytes that a folder's name may have


def open_data(data: str, mended: Path | None = None, apart: bool = False) -> Shards:
    """Opens the shards that ``data`` names, after packing them if they are not packed yet.

    Packed shards are kept in ``cache_folder()`` under a name made from the content and the version
    of packing, so that the same pictures are packed once, whatever runs use them.

    Args:
        data: "demo", a folder of pictures, "tfds:cycle_gan/NAME" or a folder of shards, which may
            be remote (gs://).
        mended: where a training keeps copies of damaged shards; they need not be whole then.
        apart: whether to pack in a process of its own. Packing starts TensorFlow, which may be told
            of several devices or workers only before.

    Raises:
        UserError: if there is nothing to train on.
    """
    pack = _packed_apart if apart else _packed
    shards = Shards.open(data if _is_packed(data) else pack(data))
    for split in ("trainA", "trainB"):
        count = shards.manifest.count(split)
        if count < _MIN_PICTURES:
            raise UserError(
                f"--data {data}: {split} has {count} usable picture(s); at least {_MIN_PICTURES} "
                f"are needed, and one more to hold out where there is no test{split[-1]}"
            )
    shards = dataclasses.replace(shards, mended=mended)
    if mended is None:
        check_files(shards)
    return shards


def open_data_of(run_dir: Path, data: str, other: str | None = None) -> Shards:
    """The shards that a run learns from, with what its training has mended in them.

    Args:
        run_dir: the run directory.
        data: the run's own ``--data``.
        other: what was named in its place, if anything was.

    Raises:
        UserError: if there are none, or a file of them is missing or cut short.
    """
    if other:
        return open_data(other)
    shards = open_data(data, run_dir / MENDED)
    check_files(shards)
    return shards


@contextmanager
def readable(shards: Shards) -> Iterator[None]:
    """UserError for a record that cannot be read or decoded."""
    import tensorflow as tf

    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        place = "A LOCAL COPY" if is_remote(str(shards.folder)) else shards.folder
        raise UserError(
            f"{shards.folder}: a record cannot be read ({first_line(error)}); python -m "
            f"tfrecords_tools.verify {place} tells which, so that the shards can be built again"
        ) from None


def check_files(shards: Shards) -> None:
    """UserError for a shard that is missing or cut short: better now than in mid-run."""
    for shard in itertools.chain(*shards.manifest.splits.values()):
        path = shards.path(shard)
        is_copy = path.parent != shards.folder  # whose size differs from the manifest's
        if not path.is_file() or (path.stat().st_size != shard.bytes and not is_copy):
            raise UserError(
                f"{path}: missing or not of {shard.bytes} bytes; build the shards again"
            )


def cache_folder() -> Path:
    """Where packed shards are kept: $CYCLEGAN_TF_CACHE, or ~/.cache/cyclegan_tf.

    Raises:
        UserError: if nobody knows whose home that is in.
    """
    folder = os.environ.get(_CACHE) or "~/.cache/cyclegan_tf"
    try:
        return Path(folder).expanduser()
    except RuntimeError:
        raise UserError(
            f"{_CACHE} {folder}: there is no such home directory; name another folder"
        ) from None


def _is_packed(data: str) -> bool:
    try:
        return is_remote(data) or (Path(data) / FILE_NAME).is_file()
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise UserError(f"--data {data}: cannot be read ({error.strerror}); name another") from None


def _packed_apart(data: str) -> Path:
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_pack_and_send, args=(data, sender))
    process.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        process.join()
        raise UserError(
            f"--data {data}: its packing was ended (exit status {process.exitcode}); the same "
            "command goes on with it"
        ) from None
    except BaseException:  # Ctrl-C above all; what has answered is left to end by itself
        process.terminate()
        raise
    finally:
        process.join()
    if isinstance(result, UserError):
        raise result
    return result


def _pack_and_send(data: str, sender: multiprocessing.connection.Connection) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with suppress(KeyboardInterrupt):  # which the other process has got as well
        try:
            sender.send(_packed(data))
        except UserError as error:
            sender.send(error)


def _packed(data: str) -> Path:
    check_local(cache_folder(), _CACHE)
    source = open_source(data, flag="--data", workers=usable_cores(), quiet=False)
    content = source.fingerprint()
    name = re.sub(r"[^A-Za-z0-9]+", "-", Path(data).name).strip("-") or "data"
    folder = cache_folder() / f"{name[:_LONGEST_NAME]}-{content[:16]}-{VERSION}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder.parent}: cannot be made ({error.strerror}); name another folder in {_CACHE}"
        ) from None
    build(data, folder, flag="--data", output_flag=_CACHE, opened=source)
    return folder
