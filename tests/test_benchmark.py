"""The command benchmark: every subject measured for real, on the smallest networks.

That of the start, four trainings in processes of their own, only in the long form (-m slow).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tensorflow as tf

from cyclegan_tf import benchmark
from cyclegan_tf.errors import UserError
from tests.tiny import pack_charts

TINY = {
    "preset": "paper",
    "image-size": 16,
    "generator-filters": 2,
    "generator-blocks": 1,
    "discriminator-filters": 2,
    "discriminator-strided": 2,
    "rounds": 1,
}


def measured(what: str, tmp_path, capsys, *flags: str) -> dict[str, list[float]]:
    """The rows that the command writes; each stands in the table that it prints, too."""
    output = tmp_path / "table.json"
    tiny = [f"--{name}={value}" for name, value in TINY.items()]
    assert benchmark.main([f"--what={what}", f"--output={output}", *tiny, *flags]) == 0
    content = json.loads(output.read_text(encoding="utf-8"))
    printed = capsys.readouterr().out
    for name, values in content["rows"].items():
        assert name in printed
        assert len(values) == 1 and values[0] > 0
    return content["rows"]


def test_step_takes_turns_with_the_tutorial(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("cyclegan_tf.benchmarking.step._SECONDS_PER_ROUND", 0.0)
    rows = measured("step", tmp_path, capsys, "--against=tutorial")
    assert set(rows) == {"step", "tutorial"}


def test_memory_of_a_step_is_more_than_that_of_the_import(tmp_path, capsys):
    rows = measured("memory", tmp_path, capsys)
    assert 0.05 < rows["TensorFlow imported"][0] < rows["after two steps"][0] < 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset=auto", "--what=step"], "--preset auto: not with --what step, which picks"),
        (["--what=memory", "--teacher=runs/one"], "--teacher runs/one: not with --what memory"),
    ],
)
def test_what_would_be_left_out_of_the_measure_is_refused(arguments, message):
    with pytest.raises(UserError, match=f"^{message}"):
        benchmark.main(arguments)


@pytest.fixture
def shards(tmp_path) -> str:
    return str(pack_charts(tmp_path, trainA=3, trainB=3, testA=1, testB=1).folder)


def test_data_beside_a_plain_loader(tmp_path, capsys, shards):
    rows = measured("data", tmp_path, capsys, f"--data={shards}")
    assert set(rows) == {"tf.data from shards", "Pillow + NumPy"}


def test_a_damaged_record_is_one_line(tmp_path, shards):
    path = next(Path(shards).glob("trainA-*"))
    content = path.read_bytes()
    path.write_bytes(content[:60] + bytes([content[60] ^ 1]) + content[61:])
    with pytest.raises(UserError, match="shards: a record cannot be read"):
        benchmark.main(["--what=data", f"--data={shards}", "--image-size=32"])


def test_a_deterministic_step_is_measured_as_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("cyclegan_tf.benchmarking.step._SECONDS_PER_ROUND", 0.0)
    asked = []
    experimental = tf.config.experimental
    monkeypatch.setattr(experimental, "enable_op_determinism", lambda: asked.append(True))
    measured("step", tmp_path, capsys)
    assert not asked
    measured("step", tmp_path, capsys, "--deterministic=true")
    assert asked


def test_the_title_tells_the_replicas_that_there_are(tmp_path, capsys, monkeypatch):
    """As with two GPUs, which a run uses without being told to."""
    monkeypatch.setattr("cyclegan_tf.benchmarking.step._SECONDS_PER_ROUND", 0.0)
    both = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    monkeypatch.setattr("cyclegan_tf.benchmarking.step.make_strategy", lambda _: both)
    measured("step", tmp_path, capsys, "--batch-size=2")
    assert "2 replica(s)" in json.loads((tmp_path / "table.json").read_text())["title"]


def test_too_little_memory_is_one_line(monkeypatch):
    def measure(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")

    monkeypatch.setattr(benchmark, "measurement", lambda _what: measure)
    message = r"--what step: too little memory \(OOM when allocating\); a smaller --image-size"
    with pytest.raises(UserError, match=message):
        benchmark.main(["--what=step"])


@pytest.mark.slow
def test_start(tmp_path, capsys, shards):
    rows = measured("start", tmp_path, capsys, f"--data={shards}")
    assert {"first step, nothing packed", "first step, shards packed"} <= set(rows)


def test_export(tmp_path, capsys):
    rows = measured("export", tmp_path, capsys)
    assert set(rows) == {"save", "load", "first translation", "each further one"}


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--what=nothing"], "--what nothing"),
        (["--what=step", "--rounds=0"], "--rounds 0"),
        (["--what=step", "--against=nobody"], "--against nobody"),
        (["--what=data", "--against=tutorial"], "--against tutorial"),
        (
            ["--what=step", "--against=tutorial", "--preset=cut"],
            "--against tutorial: its step has no --lambda-cycle 0.0",
        ),
        (
            ["--what=step", "--against=tutorial", "--generator-upsampling=shuffle"],
            "its step has no --generator-upsampling shuffle",
        ),
        (["--what=step", "--against=tutorial", "--generator-skip"], "no --generator-skip True"),
    ],
)
def test_wrong_flags_are_named(flags, named):
    with pytest.raises(UserError, match=named):
        benchmark.main(flags)
