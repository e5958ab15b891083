"""User errors: one line that names the flag or file, the value, and what would be right."""

from __future__ import annotations

import sys
from typing import Callable, NoReturn


class UserError(Exception):
    """A mistake that the user can mend; its message is the one line the user sees."""


def fail(error: BaseException | str) -> NoReturn:
    """Prints ``error`` as one line on stderr and exits with status 2."""
    message = " ".join(str(error).split())
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def run_command(main: Callable[[list[str] | None], int | None]) -> NoReturn:
    """Runs a command's ``main(argv)``: what the user can mend is one line and status 2.

    That is a ``UserError``, a package that is not installed, and a file or folder that may not be
    opened. Ctrl-C is status 130.
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
    except PermissionError as error:  # wherever it is met; pathlib's questions raise it as well
        if error.filename is None:
            raise
        fail(f"{error.filename}: cannot be read or written ({error.strerror}); name another")
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise SystemExit(130) from None
    raise SystemExit(status or 0)
