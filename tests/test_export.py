"""The export command: its flags, its table and its exit status."""

from __future__ import annotations

from pathlib import Path

import pytest

from cyclegan_tf import export
from cyclegan_tf.errors import run_command
from cyclegan_tf.exporting import litert, pytorch, saved_model, tflite
from cyclegan_tf.exporting.litert import Speed
from cyclegan_tf.exporting.tflite import Parity, TfliteExport, TfliteOptions


@pytest.fixture
def command(capsys):
    """A function: runs the command; returns the status and what it said."""

    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            run_command(lambda _: export.main([str(text) for text in arguments]))
        out, err = capsys.readouterr()
        return exit.value.code, out + err

    return run


@pytest.fixture
def exported(monkeypatch):
    """What tflite exports were asked for; the file for B to A is always refused."""
    asked = []

    def fake(run_dir, output, directions, options, weights):
        asked.append((run_dir, output, directions, options, weights))
        return [
            TfliteExport(
                output / options.file_name(direction, 64, quantize),
                1_250_000,
                Parity(3, 0.25, 0.95 if direction == "ab" else 0.5),
                None if direction == "ab" else "its SSIM with Keras is 0.500, under 0.90",
            )
            for quantize in options.quantizations
            for direction in directions or ("ab", "ba")
        ]

    monkeypatch.setattr(tflite, "export_tflite", fake)
    monkeypatch.setattr(
        litert, "measure_in_new_process", lambda path, threads: Speed(0.5 / threads, 10.0 * threads)
    )
    return asked


def test_saved_models_by_default(command, monkeypatch, tmp_path):
    asked = []

    def fake(*arguments, weights):
        asked.append((*arguments, weights))
        return [tmp_path / "ab" / "1", tmp_path / "ba" / "1"]

    monkeypatch.setattr(saved_model, "export_saved_models", fake)
    status, said = command("--run-dir", "runs/faces")
    assert status == 0
    assert asked == [(Path("runs/faces"), Path("saved_models/faces"), None, None)]
    assert str(tmp_path / "ba" / "1") in said
    assert "Without warm-up requests" in said
    (tmp_path / "ab" / "1" / "assets.extra").mkdir(parents=True)
    (tmp_path / "ab" / "1" / "assets.extra" / "tf_serving_warmup_requests").touch()
    flags = ["--direction", "ba", "--weights", "best"]
    assert "Without" not in command("--run-dir", "runs/faces", *flags)[1]
    assert asked[-1][2:] == (("ba",), "best")


def test_generators_for_pytorch(command, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(
        pytorch, "export_pytorch", lambda *a: asked.append(a) or [tmp_path / "x.pth"]
    )
    flags = ["--format", "pytorch", "--direction", "both", "--weights", "last"]
    status, said = command("--run-dir", "r", *flags)
    assert (status, said) == (0, f"{tmp_path / 'x.pth'}\n")
    assert asked == [(Path("r"), Path("saved_models/r"), ("ab", "ba"), "last")]


def test_the_table_has_a_line_per_file(command, exported, tmp_path):
    flags = ["--format", "tflite", "--direction", "ab", "--output", tmp_path]
    status, said = command("--run-dir", "r", *flags, "--quantize", "none", "float16")
    assert status == 0
    header, *lines = said.splitlines()
    assert header.split("  ")[0] == "file"
    assert [Path(line.split()[0]).name for line in lines] == [
        "ab_64_none.tflite",
        "ab_64_float16.tflite",
    ]
    assert lines[0].split()[1:] == [
        "1.25",
        "3",
        "0.250",
        "0.9500",
        *["500.0", "ms", "250.0", "ms", "20", "MB"],
    ]
    assert len({len(line) for line in [header, *lines]}) == 1


def test_a_refused_file_is_a_warning_and_status_1(command, exported, tmp_path):
    flags = ["--format", "tflite", "--output", tmp_path, "--quantize", "int8", "--seed", 4]
    status, said = command("--run-dir", "r", *flags)
    assert status == 1
    assert "Calibrating int8 with 100 training pictures or all if fewer, chosen by seed 4" in said
    assert "WARNING" in said.splitlines()[-1]
    assert said.splitlines()[-1].endswith(
        "was not written: its SSIM with Keras is 0.500, under 0.90"
    )


def test_a_refused_file_beside_one_of_an_earlier_export(command, exported, tmp_path):
    (tmp_path / "ba_64_int8.tflite").write_bytes(b"of before")
    flags = ["--format", "tflite", "--output", tmp_path, "--quantize", "int8"]
    said = command("--run-dir", "r", *flags)[1]
    assert said.splitlines()[-1].endswith("under 0.90; what is there is of an earlier export")


def test_flags_reach_the_options(command, exported):
    flags = ["--io", "float32", "--image-size", "32", "--seed", "3", "--data", "d"]
    flags += ["--model-version", "2", "--license", "MIT", "--direction", "ab"]
    flags += ["--weights", "average"]
    assert command("--run-dir", "runs/x", "--format", "tflite", *flags)[0] == 0
    (asked,) = exported
    assert asked[:3] == (Path("runs/x"), Path("saved_models/x"), ("ab",))
    assert asked[3:] == (TfliteOptions(("none",), False, 32, "d", 3, "2", "MIT"), "average")


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--format", "onnx"], "--format onnx: must be one of saved_model, tflite, pytorch"),
        (["--direction", "aa"], "--direction aa: must be one of all, ab, ba, both"),
        (["--quantize", "none", "int4"], "--quantize int4: must be one of none, float16"),
        (["--io", "bytes"], "--io bytes: must be one of uint8, float32"),
        (["--run-dir", "/nowhere"], "--run-dir /nowhere: no run there"),
        (["--quantize", "int8"], "--quantize: is for --format tflite, not saved_model"),
        (["--weights", "mean"], "argument --weights: invalid choice: 'mean'"),
        (["--license", ""], "--license: is for --format tflite, not saved_model"),
        (["--output", f"{__file__}/out"], "test_export.py is no folder; name another"),
    ],
)
def test_wrong_flags_are_one_line(command, flags, message):
    status, said = command("--run-dir", "r", *flags)
    assert status == 2
    assert message in said
    assert said.count("\n") == 1
