"""What the tests of the shards share; see helpers.py for functions."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import pytest

from tests.tfrecords_tools.helpers import fill


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all four splits; not to be written to."""
    counts = {"trainA": 12, "trainB": 9, "testA": 3, "testB": 2}
    return fill(tmp_path_factory.mktemp("input") / "faces", counts)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must end with one line on stderr and exit status 2; returns the line."""

    def run(main: Callable[[list[str]], int], *arguments: object) -> str:
        from cyclegan_tf.errors import run_command

        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            run_command(lambda _: main([str(argument) for argument in arguments]))
        out, err = capsys.readouterr()
        assert exit.value.code == 2
        assert out == ""
        # What follows a carriage return replaces a progress bar.
        line = err.replace("\r", "\n").strip().splitlines()[-1]
        assert line.startswith("error: ")
        assert err.count("error: ") == 1 and "Traceback" not in err
        return line

    return run
