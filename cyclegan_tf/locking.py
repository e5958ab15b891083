"""A lock on a folder that dies with the process that holds it, however it dies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Callable


@contextmanager
def locked(folder: Path, when_taken: Callable[[], None]) -> Iterator[None]:
    """Keeps other processes out of ``folder`` while the block runs; it leaves no file behind.

    Args:
        folder: an existing folder.
        when_taken: called if another process holds the lock; unless it raises, the lock is waited
            for.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such lock.
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            when_taken()
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            pass  # Some network file systems know no locks.
        yield
    finally:
        os.close(handle)
