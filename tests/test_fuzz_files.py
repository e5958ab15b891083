"""Damaged and hostile files of a run and of shards through every command that reads them.

Each command must come to its end or say one line; nothing else of the run may change. The examples
are a function of this file alone (hypothesis, derandomized). The long form:

    python -m pytest -n0 -m slow tests/test_fuzz_files.py
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyclegan_tf import benchmark, evaluate, export, report, train, translate
from cyclegan_tf.config import Config
from cyclegan_tf.errors import UserError
from cyclegan_tf.reporting.metrics import MetricsLog
from cyclegan_tf.training.checkpoints import Checkpoints
from cyclegan_tf.training.run_directory import create_run_directory
from tests.tiny import FUZZ, chart, content, pack_charts, tiny_features
from tfrecords_tools import verify

SHORT = {"config": 12, "manifest": 8, "metrics": 30, "checkpoint": 3, "unsealed": 5}
LONG = {"config": 250, "manifest": 200, "metrics": 100, "checkpoint": 50, "unsealed": 100}
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
    pack_charts(folder, trainA=3, trainB=3, testA=4, testB=4)
    shutil.rmtree(folder / "pictures")
    config = tiny_config(data="shards", generator_blocks=1, steps=3)
    create_run_directory(folder / "run", config)
    state = new_training(config).state
    checkpoints = Checkpoints(state, folder / "run", 3)
    with MetricsLog(folder / "run", 0) as log:
        for step in (2, 3):
            state.step.assign(step)
            log.write(step, {"cycle_a": 0.5, "fid_tiny_ab": 9.0, "epoch": 1.0}, {"pairs": 3})
            log.warn(step, "in plain words", "check")
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


@st.composite
def mutated_line(draw, data: bytes) -> bytes:
    """JSON lines, one of them changed."""
    lines = data.split(b"\n")[:-1]
    number = draw(st.integers(0, len(lines) - 1))
    lines[number] = draw(mutated_json(lines[number]))
    return b"\n".join(lines) + b"\n"


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


def train_flags(place: Path, **others: str) -> list[str]:
    """Those with which the run of ``place`` goes on in the current folder, but for ``others``."""
    config = Config.load(place / "run")
    given = {"preset": config.preset, "run_dir": "run", "export_dir": "m", **config.flat()}
    given.update(others)
    del given["epochs"]  # which is not for a run of so many steps
    return [
        word
        for name, value in given.items()
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]


def every_command(place: Path, others: Collection[str]) -> None:
    """Those that read a run or shards, on those of the current folder: training, and ``others``.

    Only training writes there, and the report of one run its page.
    """
    run = Path("run")
    quietly(train.main, *train_flags(place))
    before = content(run), content(Path("shards"))
    quietly(verify.main, "shards")
    if "init-from" in others:
        quietly(train.main, *train_flags(place, run_dir="second", init_from="run"))
    if "translate" in others and not too_large(run):
        photo = place / "photo.png"
        quietly(translate.main, "--run-dir", run, photo, "--output", "translated")
        quietly(export.main, "--run-dir", run, "--output", "exported")
    if "evaluate" in others and not too_large(run):
        quietly(evaluate.main, "--run-dir", run, "--output", "scores.json")
    if "benchmark" in others:
        quietly(benchmark.main, "--what", "data", "--rounds", 1, "--data", "shards", *SMALL)
    if "report" in others:
        quietly(report.main, run, place / "run", "--output", "comparison.html")
        quietly(report.main, run)
        (run / "report.html").unlink(missing_ok=True)
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
    monkeypatch.setattr("cyclegan_tf.evaluation.features.load_feature_network", tiny_features)
    monkeypatch.setattr("cyclegan_tf.benchmarking.data._PICTURES", 4)


def clear(folder: Path) -> None:
    """Removes all that is in a folder."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def without_seal(draw) -> None:
    """Removes the checkpoint's seal, or makes it fit, so that TensorFlow meets the mutation."""
    seal = Path(f"{CHECKPOINT}.json")
    if draw(st.booleans()):
        seal.unlink()
        return
    contents = {path.name: path.read_bytes() for path in map(Path, KINDS["unsealed"][0])}
    files = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in contents.items()
    }
    seal.write_text(json.dumps({"files": files}), encoding="utf-8")


def fuzz(place: Path, folder: Path, kind: str, count: int) -> int:
    """Every command on ``count`` copies of ``place``, with a file of the kind mutated in each.

    Returns the number of copies. ``folder`` is the current one.
    """
    files, strategy = KINDS[kind]
    done = 0

    @settings(FUZZ, max_examples=count)
    @given(st.data())
    def check(data) -> None:
        nonlocal done
        done += 1
        clear(folder)
        for name in OWN:
            shutil.copytree(place / name, folder / name)
        path = folder / data.draw(st.sampled_from(files))
        path.write_bytes(data.draw(strategy(path.read_bytes())))
        if kind == "unsealed":
            without_seal(data.draw)
        every_command(place, [data.draw(st.sampled_from(OTHERS[kind]))])
        assert {path.name for path in folder.iterdir()} <= {*OWN, *MADE}
        if path.parent.name == "shards":
            assert content(folder / "shards").keys() == content(place / "shards").keys()

    before = content(folder.parent)
    check()
    clear(folder)
    assert content(folder.parent) == before
    assert done >= 0.9 * count
    return done


OWN = ("run", "shards")
MADE = {"second", "translated", "exported", "scores.json", "comparison.html"}
SMALL = ("--image-size", 16, "--load-size", 16, "--discriminator-strided", 2)
TENSORS = (".index", ".data-00000-of-00001")
CHECKPOINT = "run/checkpoints/step-3"
KINDS = {
    "config": (["run/config.json"], mutated_json),
    "manifest": (["shards/manifest.json"], mutated_json),
    "metrics": (["run/metrics.jsonl"], mutated_line),
    "checkpoint": ([f"{CHECKPOINT}{end}" for end in (".json", *TENSORS)], mutated_bytes),
    "unsealed": ([f"{CHECKPOINT}{end}" for end in TENSORS], mutated_bytes),
}


# Which commands read what; one of them at a time, as all would take too long.
OF_RUNS = ("init-from", "translate", "evaluate")
OF_ALL = (*OF_RUNS, "benchmark", "report")
OTHERS = {
    "config": (*OF_RUNS, "report"),
    "manifest": ("init-from", "evaluate", "benchmark"),
    "metrics": ("report",),
    "checkpoint": OF_RUNS,
    "unsealed": OF_RUNS,
}


def test_every_command_works_where_nothing_is_damaged(place, short, tmp_path, monkeypatch):
    """Else one could refuse its flags each time, and never come to the damaged file."""
    refusals = []

    def strictly(main, *arguments: object) -> None:
        if main([str(argument) for argument in arguments]):
            refusals.append(arguments)

    for name in OWN:
        shutil.copytree(place / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(globals(), "quietly", strictly)
    every_command(place, OF_ALL)
    assert refusals == []
    assert {path.name for path in tmp_path.iterdir()} == {*OWN, *MADE}


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
    fuzz(place, tmp_path / "here", kind, count)
