"""Silence for native code that tells users what concerns only its authors."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_STDERR = 2  # the descriptor, which native code writes to past ``sys.stderr``


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keeps back what is written to stderr; it is shown after all if an exception comes of it."""
    sys.stderr.flush()
    kept = os.dup(_STDERR)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), _STDERR)
        try:
            yield
        except BaseException:
            log.seek(0)
            os.write(kept, log.read())
            raise
        finally:
            os.dup2(kept, _STDERR)
            os.close(kept)
