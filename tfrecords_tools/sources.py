"""Where images come from: a folder, a tfds data set, or the demo that this project draws itself.

``open_source`` tells the three apart; all offer the same (``Source``).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Protocol

from cyclegan_tf.environment import start_tensorflow
from cyclegan_tf.errors import UserError, check_local
from tfrecords_tools.images import BadImage, prepare
from tfrecords_tools.schema import SPLITS

# The share of a domain's images that is held out for testing where there is no test folder.
HELD_OUT = 0.1
# What operating systems leave in folders; names that begin with a dot are litter as well.
_LITTER = ("thumbs.db", "desktop.ini", "__macosx")
_TFDS = "tfds:"


class SourceLost(UserError):
    """The source can no longer be read; the shards that are finished count when it can again."""


@dataclass(frozen=True)
class Item:
    """One file to pack.

    Attributes:
        split: "trainA", "trainB", "testA" or "testB".
        name: Path inside its folder, with "/" between folders.
        origin: Path inside the source; a held-out image's begins with "trainA" or "trainB".
        size: In bytes.
        read: Returns the encoded bytes; raises ``BadImage`` if they never could be had, and
            ``UserError`` if they no longer can, or are others by now.
    """

    split: str
    name: str
    origin: str
    size: int
    read: Callable[[], bytes]


class Source(Protocol):
    """What a build packs."""

    name: str
    paired: bool

    def fingerprint(self) -> str:
        """Returns a hash of the content, without drawing or downloading anything.

        Equal images of equal names give equal hashes.
        """

    def items(self) -> list[Item]:
        """Returns everything there is to pack; may draw or download it first."""


def open_source(
    text: str, *, flag: str = "--input", workers: int = 1, quiet: bool = True
) -> Source:
    """Returns the source that ``text`` names: a folder, "tfds:cycle_gan/NAME" or "demo".

    Args:
        text: What the user wrote.
        flag: The flag that it was written after, for messages.
        workers: Number of threads that read files, or of processes that draw the demo.
        quiet: Whether to do without a progress bar.

    Raises:
        UserError: If there is no such source, or trainA or trainB is missing.
    """
    if text == "demo":
        return DemoSource(workers, quiet)
    if text.startswith(_TFDS):
        return TfdsSource(text, flag)
    check_local(text, flag)
    try:
        return FolderSource(Path(text), flag, workers, quiet)
    except OSError as error:
        raise UserError(
            f"{flag} {text}: cannot be read ({error.strerror}); give a folder that can"
        ) from error


def _progress(results: Iterable[Any], total: int, label: str, quiet: bool) -> Iterable[Any]:
    from tqdm import tqdm

    return tqdm(results, label, total, leave=False, disable=quiet, unit=" images")


# --- A folder ------------------------------------------------------------------------------------


class FolderSource:
    """A folder with trainA and trainB, and testA and testB where there are any.

    Subfolders count. A domain without test images has a share of its images held out, chosen by a
    hash of their content, so that equal images are always on the same side.
    """

    paired = False

    def __init__(self, root: Path, flag: str, workers: int, quiet: bool) -> None:
        _check_folder(root, flag)
        self.name = root.resolve().name
        self._workers, self._quiet = workers, quiet
        self._files = [file for split in SPLITS for file in _scan(root / split, split)]
        for split in ("trainA", "trainB"):
            if not any(file.split == split for file in self._files):
                raise UserError(
                    f"{flag} {root}: {split} holds no files; put the images of domain"
                    f" {split[-1]} there"
                )

    def fingerprint(self) -> str:
        lines = (f"{file.origin}\0{digest}\n" for file, digest in zip(self._files, self._digests))
        return hashlib.sha256(b"".join(map(os.fsencode, lines))).hexdigest()

    def items(self) -> list[Item]:
        return [item for domain in ("A", "B") for item in self._items_of(domain)]

    def _items_of(self, domain: str) -> Iterator[Item]:
        train, test = f"train{domain}", f"test{domain}"
        files = [f for f in zip(self._files, self._digests) if f[0].split in (train, test)]
        has_test = any(file.split == test for file, _ in files)
        held_out = set() if has_test else _held_out({digest: file for file, digest in files})
        for file, digest in files:
            split = test if digest in held_out else file.split
            read = functools.partial(file.read_same, digest)
            yield Item(split, file.name, file.origin, file.size, read)

    @functools.cached_property
    def _digests(self) -> list[str]:
        with ThreadPoolExecutor(self._workers) as pool:
            digests = pool.map(_File.digest, self._files)
            return list(_progress(digests, len(self._files), "reading", self._quiet))


@dataclass(frozen=True)
class _File:
    split: str
    name: str
    path: Path
    size: int = 0
    problem: str | None = None  # why it is not even opened

    @property
    def origin(self) -> str:
        return f"{self.split}/{self.name}"

    def read(self) -> bytes:
        if self.problem:
            raise BadImage("unreadable", self.problem)
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise BadImage("unreadable", error.strerror or str(error)) from error

    def digest(self) -> str:
        """Returns the SHA-256 of the content, or why it cannot be read."""
        try:
            return hashlib.sha256(self.read()).hexdigest()
        except BadImage as error:
            return str(error)

    def read_same(self, digest: str) -> bytes:
        """Returns the content, which must still be what the fingerprint was made of."""
        try:
            data = self.read()
        except BadImage as error:
            if str(error) == digest:
                raise
            raise SourceLost(
                f"{self.path}: cannot be read any more ({error.detail}); mend that and run the same"
                " command to go on"
            ) from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise UserError(f"{self.path}: changed while it was packed; run the command again")
        return data


def _check_folder(root: Path, flag: str) -> None:
    if not root.is_dir():
        wrong = "is not a folder" if root.exists() else "does not exist"
        raise UserError(
            f"{flag} {root}: {wrong}; give a folder with trainA and trainB,"
            " tfds:cycle_gan/NAME or demo"
        )
    missing = [split for split in ("trainA", "trainB") if not (root / split).is_dir()]
    if missing:
        raise UserError(
            f"{flag} {root}: no folder {' and '.join(missing)} in it, only {_found_in(root)};"
            " name the two folders of images trainA and trainB"
        )


def _found_in(root: Path) -> str:
    """Says in a few words what a folder holds."""
    entries = [path for path in sorted(root.iterdir()) if not _is_litter(path.name)]
    folders = [f"{path.name}/" for path in entries if path.is_dir()]
    files = len(entries) - len(folders)
    found = folders[:5] + ["more folders"] * (len(folders) > 5)
    found += [f"{files} file{'s' * (files > 1)}"] * (files > 0)
    return ", ".join(found) or "nothing"


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER


def _scan(folder: Path, split: str, prefix: str = "") -> Iterator[_File]:
    """Yields the files below ``folder`` in the order of their names."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in paths:
        name = prefix + path.name
        if _is_litter(path.name):
            continue
        try:
            if path.is_dir() and not path.is_symlink():
                yield from _scan(path, split, f"{name}/")
            elif path.is_file():
                yield _File(split, name, path, path.stat().st_size)
            else:  # Opening a pipe would wait for ever; a link to a folder can lead in a circle.
                yield _File(split, name, path, problem="not a regular file")
        except OSError as error:
            yield _File(split, name, path, problem=error.strerror)


def _held_out(files: dict[str, _File]) -> set[str]:
    """Picks from ``files``, by digest, those to hold out: the share with the lowest digests.

    Both sides get at least one usable image, as long as there are two different ones, and the
    other side two, as a training needs them, as long as there are three.
    """
    start_tensorflow()  # Whether it decodes an image is part of whether that is usable.
    digests = sorted(files)
    first = next((i for i, d in enumerate(digests) if _is_usable(files[d], d)), 0)
    backwards = (i for i, d in reversed([*enumerate(digests)]) if _is_usable(files[d], d))
    last = next(backwards, 0)
    last = next((i for i in backwards if i > first), last)
    share = sum(digest < f"{int(HELD_OUT * 2**32):08x}" for digest in digests)
    return set(digests[: min(max(share, first + 1), last)])


def _is_usable(file: _File, digest: str) -> bool:
    try:
        return bool(prepare(file.read_same(digest)))
    except BadImage:
        return False


# --- The demo ------------------------------------------------------------------------------------


class DemoSource:
    """Two styles of drawn portraits; the test splits show the same people in both."""

    name = "demo"
    paired = True

    def __init__(self, workers: int, quiet: bool) -> None:
        self._workers, self._quiet = workers, quiet

    def fingerprint(self) -> str:
        from cyclegan_tf.data import portraits

        # What is drawn depends on nothing but this code, so it serves as the version.
        return hashlib.sha256(Path(portraits.__file__).read_bytes()).hexdigest()

    def items(self) -> list[Item]:
        from cyclegan_tf.data import portraits

        drawings = portraits.demo_items()
        try:
            with self._pool() as pool:
                try:
                    with _interrupts_kept_back():
                        images = pool.map(portraits.DemoItem.encode, drawings, chunksize=8)
                    start_tensorflow()  # Packing needs it, and this process would only wait.
                    images = list(_progress(images, len(drawings), "drawing", self._quiet))
                except BaseException:  # Ctrl-C above all: what is not drawn yet is not waited for
                    pool.shutdown(cancel_futures=True)
                    raise
        except BrokenProcessPool as error:  # as in a script without the guard that spawning needs
            raise UserError(
                "demo: the processes that draw it ended early, as with too little memory; try "
                "`python -m tfrecords_tools.build --input demo --output demo_shards --workers 1` "
                "and --data demo_shards, and put a script's own code under "
                '`if __name__ == "__main__":`'
            ) from error
        return [
            _in_memory(drawing.split, drawing.file_name, image)
            for drawing, image in zip(drawings, images)
        ]

    def _pool(self) -> Executor:
        # Drawing is Python code, which threads do not speed up. Processes are spawned rather than
        # forked because the parent may already run TensorFlow, which does not survive a fork.
        if self._workers == 1:
            return ThreadPoolExecutor(1)
        return ProcessPoolExecutor(self._workers, multiprocessing.get_context("spawn"))


@contextlib.contextmanager
def _interrupts_kept_back() -> Iterator[None]:
    """A Ctrl-C comes after the block; processes that start in it never get one.

    It is for this process alone to end them: each would print a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    kept: list[int] = []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    # The mask is this thread's alone. Another one, as a library's, may still take the signal, upon
    # which Python would run the handler here.
    on_main_thread = threading.current_thread() is threading.main_thread()
    if on_main_thread:
        handler = signal.signal(signal.SIGINT, lambda number, _: kept.append(number))
    try:
        yield
    finally:
        if on_main_thread:
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if kept:
        signal.raise_signal(signal.SIGINT)


def _in_memory(split: str, name: str, data: bytes) -> Item:
    # Unlike a lambda, it can be sent to another machine.
    return Item(split, name, f"{split}/{name}", len(data), functools.partial(bytes, data))


# --- TensorFlow Datasets -------------------------------------------------------------------------


class TfdsSource:
    """One of the cycle_gan data sets of TensorFlow Datasets, which have the same four splits.

    They carry no file names, so an image is named after its place in its split.
    """

    paired = False

    def __init__(self, text: str, flag: str) -> None:
        self.name = text
        self._flag = flag
        self._dataset = text[len(_TFDS) :]
        self._tfds = _import_tfds(f"{flag} {text}")
        names = list(self._tfds.builder_cls("cycle_gan").builder_configs)
        family, _, name = self._dataset.partition("/")
        if family != "cycle_gan" or name.partition(":")[0] not in names:
            raise UserError(
                f"{flag} {text}: no such data set; write tfds:cycle_gan/NAME with one of"
                f" {', '.join(names)}"
            )

    def fingerprint(self) -> str:
        info = self._call(self._tfds.builder, self._dataset).info
        return hashlib.sha256(f"{_TFDS}{info.full_name}".encode()).hexdigest()

    def items(self) -> list[Item]:
        items = []
        for split in SPLITS:
            for index, image in enumerate(self._call(self._encoded_images, split)):
                items.append(_in_memory(split, f"{index:06d}", image))
        return items

    def _encoded_images(self, split: str) -> list[bytes]:
        keep_encoded = {"image": self._tfds.decode.SkipDecoding()}
        dataset = self._tfds.load(self._dataset, split=split, decoders=keep_encoded)
        return [example["image"] for example in dataset.as_numpy_iterator()]

    def _call(self, function: Callable[[str], Any], argument: str) -> Any:
        try:
            return function(argument)
        except ImportError as error:  # Some of what tfds needs, it imports only now.
            raise UserError(
                f"{self._flag} {self.name}: needs the package {error.name};"
                f" pip install {error.name}"
            ) from error
        except Exception as error:  # Downloads fail in more ways than tfds has exceptions for.
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(
                f"{self._flag} {self.name}: cannot be loaded ({reason}); check the connection, or"
                " give a folder of images"
            ) from error


def _import_tfds(value: str) -> Any:
    try:
        import tensorflow_datasets as tfds

        tfds.builder_cls  # noqa: B018  (it imports lazily: this is where a broken install shows)
    except ImportError as error:
        raise UserError(
            f"{value}: needs tensorflow-datasets, which cannot be imported"
            f" ({' '.join(str(error).split())}); pip install tensorflow-datasets"
        ) from error
    logging.getLogger("absl").setLevel(logging.ERROR)  # It warns of its own cache at every start.
    return tfds
