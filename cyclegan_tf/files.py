"""Files that are either the old one or the new one, never half of one."""

from __future__ import annotations

import os
import platform
import zlib
from pathlib import Path


def _machine() -> str:
    """A short hash of the machine, and of the container in it that counts processes by itself."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not Linux
        namespace = ""
    return f"{zlib.crc32((platform.node() + namespace).encode()):08x}"


# In names of unfinished files: machines that share a folder cannot ask for each other's processes.
MACHINE = _machine()


def write_atomically(path: Path, content: bytes) -> None:
    """Writes ``content`` to ``path``; whoever reads meanwhile, or after a kill, sees old or new.

    Missing parent folders are made.

    Raises:
        OSError: if it cannot be written; ``path`` is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Keeps two commands that write the same file out of each other's way; on a shared disk they
    # may have the same process number.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}-{MACHINE}")
    try:
        unfinished.write_bytes(content)
        to_disk(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def to_disk(path: Path) -> None:
    """Returns when a file's content, or a folder's names, would survive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
