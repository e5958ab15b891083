"""What the tests of the exports share; see helpers.py for functions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.exporting.helpers import make_run
from tests.tfrecords_tools.helpers import fill


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> Path:
    """A folder of shards; not to be written to."""
    from tfrecords_tools.build import build

    folder = tmp_path_factory.mktemp("data")
    counts = {"trainA": 12, "trainB": 4, "testA": 3, "testB": 2}
    build(str(fill(folder / "pictures", counts)), folder / "shards", workers=1, quiet=True)
    return folder / "shards"


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory, tiny_config, shards) -> Path:
    """A tiny run on ``shards``; not to be written to."""
    return make_run(tmp_path_factory.mktemp("runs") / "faces", tiny_config(data=str(shards)))
