"""Damaged and hostile files of a run and of shards through every command that reads them.

Each command must come to its end or say one line; nothing else of the run may change. The examples
are a function of this file alone (hypothesis, derandomized). The long form:

    python -m pytest -n0 -m slow tests/test_fuzz_files.py
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyclegan_tf import export, train, translate
from cyclegan_tf.config import Config
from cyclegan_tf.errors import UserError
from cyclegan_tf.training.checkpoints import Checkpoints
from cyclegan_tf.training.run_directory import create_run_directory
from tests.tiny import FUZZ, chart, content, pack_charts
from tfrecords_tools import verify

SHORT = {"config": 12, "manifest": 8, "checkpoint": 3}
LONG = {"config": 250, "manifest": 200, "checkpoint": 50}
# What a changed setting may ask for: nobody wants to wait for networks of 1024 channels.
LIMITS = {"generator_filters": 8, "generator_blocks": 4, "discriminator_filters": 8}
LIMITS |= {"discriminator_strided": 4, "image_size": 64, "history_size": 64, "batch_size": 4}

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["../../../etc/passwd", "/etc/passwd", "a\x00b", "🂡", 1 << 4000, [], {}, [[]]]),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_config, new_training) -> Path:
    """A run with two checkpoints, its shards, and a photo; not to be written to."""
    folder = tmp_path_factory.mktemp("fuzz")
    pack_charts(folder, trainA=3, trainB=3, testA=1, testB=1)
    shutil.rmtree(folder / "pictures")
    config = tiny_config(data="shards", generator_blocks=1, steps=3)
    create_run_directory(folder / "run", config)
    state = new_training(config).state
    checkpoints = Checkpoints(state, folder / "run", 3)
    for step in (2, 3):
        state.step.assign(step)
        checkpoints.save()
    chart(1).save(folder / "photo.png")
    return folder


@st.composite
def mutated_bytes(draw, data: bytes) -> bytes:
    """A file with some bytes changed, or cut, or doubled, or another altogether."""
    start = draw(st.integers(0, len(data) - 1))
    end = draw(st.integers(start, min(len(data), start + 60)))
    middle = draw(st.one_of(st.binary(max_size=30), st.just(data[start:end] * 3)))
    return draw(
        st.sampled_from([data[:start] + middle + data[end:], data[:start], b"", b"[" * 100_000])
    )


@st.composite
def mutated_json(draw, data: bytes) -> bytes:
    """JSON with a value or a name changed at random, or bytes of it."""
    if draw(st.booleans()):
        return draw(mutated_bytes(data))
    tree = node = json.loads(data)
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = draw(st.sampled_from(keys))
        if not isinstance(node[key], (dict, list)) or not node[key] or draw(st.integers(0, 3)) == 0:
            break
        node = node[key]
    value = draw(VALUES)
    if isinstance(node, dict) and draw(st.integers(0, 3)) == 0:
        node[draw(st.text(max_size=10))] = node.pop(key)
    else:
        node[key] = value
    return json.dumps(tree).encode("utf-8", errors="surrogatepass")


def quietly(main, *arguments: object) -> None:
    """Runs a command, which may refuse in one line."""
    try:
        main([str(argument) for argument in arguments])
    except UserError as error:
        assert str(error).strip()


def too_large(run: Path) -> bool:
    try:
        flat = Config.load(run).flat()
    except UserError:
        return False
    return any(flat[name] > limit for name, limit in LIMITS.items())


def train_flags(place: Path) -> list[str]:
    """Those with which the run of ``place`` goes on in the current folder."""
    config = Config.load(place / "run")
    given = {"preset": config.preset, "run_dir": "run", "export_dir": "m", **config.flat()}
    del given["epochs"]  # which is not for a run of so many steps
    return [
        word
        for name, value in given.items()
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]


def every_command(place: Path) -> None:
    """All that read a run or shards, on those of the current folder; only training writes there."""
    run = Path("run")
    quietly(train.main, *train_flags(place))
    before = content(run), content(Path("shards"))
    if not too_large(run):
        photo = place / "photo.png"
        quietly(translate.main, "--run-dir", run, photo, "--output", "translated")
        quietly(export.main, "--run-dir", run, "--output", "exported")
    quietly(verify.main, "shards")
    assert (content(run), content(Path("shards"))) == before


@pytest.fixture
def short(monkeypatch, eager):
    """Leaves out what comes after the files were read, and would take hours five hundred times."""
    monkeypatch.setattr("cyclegan_tf.training.loop.Training.run", lambda training: True)
    monkeypatch.setattr("cyclegan_tf.train._finish", lambda *_: None)
    monkeypatch.setattr(
        "cyclegan_tf.exporting.saved_model.save_generator",
        lambda _, folder: (folder / "saved_model.pb").touch(),
    )
    monkeypatch.setattr("cyclegan_tf.exporting.serving_files.write_warmup", lambda *_: None)


def fuzz(place: Path, folder: Path, files: list[str], strategy, count: int) -> int:
    """Every command on ``count`` copies of ``place``, with one of the files mutated in each.

    Returns the number of copies. ``folder`` is the current one.
    """
    done = 0

    @settings(FUZZ, max_examples=count)
    @given(st.data())
    def check(data) -> None:
        nonlocal done
        done += 1
        for path in folder.iterdir():
            shutil.rmtree(path)
        for name in OWN:
            shutil.copytree(place / name, folder / name)
        path = folder / data.draw(st.sampled_from(files))
        path.write_bytes(data.draw(strategy(path.read_bytes())))
        every_command(place)
        assert {path.name for path in folder.iterdir()} <= {*OWN, "translated", "exported"}
        if path.parent.name == "shards":
            assert content(folder / "shards").keys() == content(place / "shards").keys()

    before = content(folder.parent)
    check()
    for path in folder.iterdir():
        shutil.rmtree(path)
    assert content(folder.parent) == before
    assert done >= 0.9 * count
    return done


OWN = ("run", "shards")
KINDS = {
    "config": (["run/config.json"], mutated_json),
    "manifest": (["shards/manifest.json"], mutated_json),
    "checkpoint": (
        [f"run/checkpoints/step-3.{end}" for end in ("index", "json", "data-00000-of-00001")],
        mutated_bytes,
    ),
}


def test_the_run_goes_on_where_nothing_is_damaged(place, short, tmp_path, monkeypatch):
    """Else training could refuse its flags each time, and never come to the damaged file."""
    for name in OWN:
        shutil.copytree(place / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert train.main(train_flags(place)) == 0


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        *SHORT.items(),
        *(pytest.param(kind, count, marks=pytest.mark.slow) for kind, count in LONG.items()),
    ],
)
def test_every_command_survives_mutated_files(kind, count, place, short, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    files, strategy = KINDS[kind]
    fuzz(place, tmp_path / "here", files, strategy, count)
