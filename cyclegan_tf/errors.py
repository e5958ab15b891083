"""User errors: one line that names the flag or file, the value, and what would be right."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Callable, NoReturn


class UserError(Exception):
    """A mistake that the user can mend; its message is the one line the user sees."""


def fail(error: BaseException | str) -> NoReturn:
    """Prints ``error`` as one line on stderr and exits with status 2."""
    message = " ".join(str(error).split())
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def check_local(path: Path | str, flag: str = "", advice: str = "") -> None:
    """For what is read or written with the system's own calls; changes nothing.

    Args:
        path: what was given.
        flag: the flag that it was given with, if any, for the message.
        advice: what else there is to say of a URL.

    Raises:
        UserError: if it is a URL, of which these calls would make a folder here, or its name is one
            that no file can have.
    """
    shown = f"{flag} {path}".strip()
    if re.match(r"[A-Za-z][\w+.-]+:/", str(path), re.ASCII):
        shown = re.sub(":/+", "://", shown, count=1)  # pathlib makes gs:/bucket of it
        raise UserError(f"{shown}: must be a local folder, not a URL{advice}")
    try:
        Path(path).lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise UserError(
            f"{shown}: cannot be read or written ({error.strerror}); name another"
        ) from None


def first_line(error: BaseException) -> str:
    """What TensorFlow says of an error, without the names of graph nodes that it puts around it."""
    line = (getattr(error, "message", None) or str(error) or type(error).__name__).splitlines()[0]
    return re.sub(r"\{\{.*?\}\}|\[Op:.*", "", line).strip()[:200]


def run_command(main: Callable[[list[str] | None], int | None]) -> NoReturn:
    """Runs a command's ``main(argv)``: what the user can mend is one line and status 2.

    That is a ``UserError``, a package that is not installed, and a file or folder that the system
    refuses to open, whatever its reason. Ctrl-C is status 130.
    """
    # File names may hold bytes, and our tables signs, that the terminal's encoding lacks.
    sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = main(None)
    except UserError as error:
        fail(error)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith(("cyclegan_tf", "tfrecords_tools")):
            raise
        fail(
            f"{error.name} is not installed for {sys.executable}; use the Python that has it, as "
            ".venv/bin/python after `make train`, or pip install -r requirements.txt"
        )
    except OSError as error:  # wherever it is met; pathlib's questions raise it as well
        # Without a file, as a closed pipe is, or with a number for it, nobody could mend it.
        if not error.strerror or error.filename is None or isinstance(error.filename, int):
            raise
        name = os.fsdecode(error.filename)
        fail(f"{name}: cannot be read or written ({error.strerror}); mend that or name another")
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise SystemExit(130) from None
    raise SystemExit(status or 0)
