"""The commands as the user runs them, in processes of their own: few, as each loads TensorFlow."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tfrecords_tools.helpers import content, fill
from tfrecords_tools.build import build, main

ROOT = Path(__file__).parents[2]


def command(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"tfrecords_tools.{module}", *map(str, arguments)]


def run(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(module, *arguments), cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_help_and_imports_do_without_tensorflow():
    code = """
import sys
from tfrecords_tools import build, journal, images, manifest, schema, sources, verify
for main in (build.main, verify.main):
    try:
        main(["--help"])
    except SystemExit as exit:
        assert exit.code == 0
assert "tensorflow" not in sys.modules and "tensorflow_datasets" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--max-side PX" in done.stdout and "DIR" in done.stdout


def test_a_mistake_is_one_line(tmp_path):
    done = run("build", "--input", tmp_path / "missing", "--output", tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: --input {tmp_path / 'missing'}: does not exist")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_tensorflow_is_not_heard(tmp_path):
    """Its start-up lines and its own word on a broken image are none of the user's business."""
    root = fill(tmp_path / "x", {"trainA": 4, "trainB": 4})  # A part is held out for tests.
    broken = next((root / "trainA").iterdir())
    broken.write_bytes(broken.read_bytes()[:-30])
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    for arguments in (("build", "--input", root, "--output", tmp_path / "out"), ("verify", "out")):
        done = subprocess.run(
            command(*arguments),
            cwd=tmp_path,
            env=quiet,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        bars = done.stderr.replace("\r", "\n").splitlines()
        assert not [
            line for line in bars if not re.match(r"(reading|packing|verifying): |\s*$", line)
        ]


def test_kill_9_and_go_on(tmp_path):
    root = fill(tmp_path / "x", {"trainA": 20, "trainB": 20, "testA": 1, "testB": 1})
    for path in list((root / "trainA").iterdir()):  # many files, to have the time to kill it
        for number in range(20):
            shutil.copy(path, path.with_name(f"{number} {path.name}"))
    arguments = ("--input", root, "--output", tmp_path / "out", "--shards", 60, "--workers", 2)

    process = subprocess.Popen(command("build", *arguments), cwd=ROOT, stderr=subprocess.DEVNULL)
    state = tmp_path / "out" / "build_state.jsonl"
    while process.poll() is None and len(recorded(state)) < 3:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = {path.name: path.stat().st_mtime_ns for path in state.parent.glob("*.tfrecord")}
    kept = recorded(state)
    assert 3 <= len(kept) < 60 and kept <= set(done)
    assert not (state.parent / "manifest.json").exists()

    assert main([str(argument) for argument in arguments]) == 0
    for name in kept:
        assert (state.parent / name).stat().st_mtime_ns == done[name]
    build(str(root), tmp_path / "at once", shards=60, quiet=True)
    assert content(state.parent) == content(tmp_path / "at once")


@pytest.mark.parametrize("drawn", [False, True])
def test_ctrl_c_while_the_demo_is_drawn_is_one_line(tmp_path, drawn):
    """Whether the processes that draw are at work by then, or still starting."""
    arguments = command("build", "--input", "demo", "--output", tmp_path / "out", "--workers", 2)
    with subprocess.Popen(
        arguments,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # A shell's jobs in the background, as these tests may be one, are started without.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        said, children = b"", Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while process.poll() is None and not (b"drawing" in said if drawn else workers(children)):
            if drawn:
                said += os.read(process.stderr.fileno(), 4096)
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGINT)
        said += process.stderr.read()
    assert process.returncode == 130
    assert said.splitlines()[-1] == b"interrupted; the same command goes on from here"
    assert b"Traceback" not in said


def workers(children: Path) -> list[str]:
    """The processes that draw, among the children that the system lists."""
    commands = [Path(f"/proc/{number}/cmdline") for number in children.read_text().split()]
    return [text for text in map(read_or_nothing, commands) if "spawn_main" in text]


def read_or_nothing(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it has ended
        return ""


def test_a_build_waits_for_another_one_of_the_same_folder(dataset, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    output = tmp_path / "out"
    output.mkdir()
    other = os.open(output, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    waiting = subprocess.Popen(
        command("build", "--input", dataset, "--output", output),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert waiting.stderr.readline() == f"waiting for another build in {output}\n"
    assert content(output) == {}
    os.close(other)
    waiting.communicate()
    assert waiting.returncode == 0
    build(str(dataset), tmp_path / "alone", quiet=True)
    assert content(output) == content(tmp_path / "alone")


def recorded(state: Path) -> set[str]:
    """The shards that build_state.jsonl names; its last line may not be whole."""
    text = state.read_text() if state.exists() else ""
    lines = text[: text.rfind("\n") + 1].splitlines()[1:]
    return {json.loads(line)["shard"]["file"] for line in lines}
