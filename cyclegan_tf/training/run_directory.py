"""A run directory: created once with its settings, and continued only with the same ones."""

from __future__ import annotations

import os
from pathlib import Path

from cyclegan_tf.config import Config
from cyclegan_tf.errors import UserError

CONFIG_FILE = "config.json"


def check_writable(folder: Path, flag: str) -> None:
    """Changes nothing; the name of the flag is for the message.

    Raises:
        UserError: if ``folder`` neither is nor could become a folder that one may write to.
    """
    present = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not present.is_dir():
        raise UserError(f"{flag} {folder}: {present} is no folder; name another")
    if not os.access(present, os.W_OK):
        raise UserError(f"{flag} {folder}: {present} may not be written to; name another folder")


def check_run_directory(run_dir: Path, config: Config) -> bool:
    """Whether ``run_dir`` holds a run with just these settings; False if it is free for a new one.

    Changes nothing.

    Raises:
        UserError: if it holds a run with other settings, or something that is no run, or cannot be
            written to.
    """
    check_writable(run_dir, "--run-dir")
    if (run_dir / CONFIG_FILE).exists():
        differences = config.differences(Config.load(run_dir))
        if differences:
            raise UserError(
                f"--run-dir {run_dir}: holds a run with other settings ({'; '.join(differences)}); "
                "give the same settings to go on, or another --run-dir to start anew"
            )
        return True
    if run_dir.is_dir() and any(run_dir.iterdir()):
        raise UserError(f"--run-dir {run_dir}: is not empty and holds no run; name a new folder")
    return False


def create_run_directory(run_dir: Path, config: Config) -> None:
    """Makes the folder and writes its config.json, atomically.

    Raises:
        UserError: if it cannot be written.
    """
    unfinished = run_dir / f".{CONFIG_FILE}.tmp"
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(config.to_json(), encoding="utf-8")
        unfinished.replace(run_dir / CONFIG_FILE)
    except OSError as error:
        raise UserError(f"--run-dir {run_dir}: cannot be written ({error.strerror})") from None
