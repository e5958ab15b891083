"""What only a process of its own can show: how long it takes to start, and its peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cyclegan_tf.benchmarking.table import Table
from cyclegan_tf.config import Config, all_settings, flag
from cyclegan_tf.errors import UserError

_POLL_SECONDS = 0.02
_GIGABYTE = 1e9
_STEPS = 2  # The second shows what the first leaves behind.


def measure_start(config: Config, rounds: int) -> Table:
    """Seconds from the command to its help and to the first step, with and without packed shards.

    Args:
        config: the settings of the training; at least its second step is not waited for.
        rounds: how often to start each.
    """
    table = Table(f"start of {config.preset} on {config.data.data}", "s")
    for _ in range(rounds):
        table.add("train --help", _run_seconds("-m", "cyclegan_tf.train", "--help"))
        table.add("import tensorflow", _run_seconds("-c", "import tensorflow"))
        with tempfile.TemporaryDirectory() as folder:
            for name in ("first step, nothing packed", "first step, shards packed"):
                table.add(name, _seconds_to_first_step(config, Path(folder)))
    return table


def measure_memory(config: Config, rounds: int) -> Table:
    """Peak resident memory of a process that takes two steps, in GB (1e9 bytes).

    Args:
        config: the settings of the step.
        rounds: how many processes to measure.
    """
    recomputed = ", recomputed" if config.run.recompute else ""
    title = f"peak memory, {config.preset}, {config.data.image_size} px, batch "
    table = Table(title + f"{config.run.batch_size}{recomputed}", "GB")
    for _ in range(rounds):
        code = "from cyclegan_tf.benchmarking.processes import print_peak; print_peak()"
        done = _run("-c", code, input=config.to_json())
        if done.returncode:
            raise UserError(f"--what memory: the step failed: {done.stderr.strip()[-200:]}")
        for name, value in json.loads(done.stdout.splitlines()[-1]).items():
            table.add(name, value / _GIGABYTE)
    return table


def print_peak() -> None:
    """Takes steps with the settings on standard input and prints the peaks in bytes as JSON."""
    from cyclegan_tf.benchmarking.step import our_step
    from cyclegan_tf.training.devices import make_strategy, resolve_precision

    config = Config.from_json(sys.stdin.read())
    before = _peak_bytes()
    take = our_step(config, resolve_precision(config.run)[0], make_strategy(config.run))
    take(_STEPS)
    print(json.dumps({"TensorFlow imported": before, "after two steps": _peak_bytes()}))


def _peak_bytes() -> int:
    """Peak resident memory of this process; Linux only."""
    # Not getrusage, whose maximum a process inherits from the one that started it.
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        raise UserError("--what memory: only on Linux, where /proc says it") from None
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return 1024 * int(kilobytes)


def _run(*arguments: str, input: str | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], input=input, capture_output=True, text=True, check=False
    )


def _run_seconds(*arguments: str) -> float:
    start = time.perf_counter()
    _run(*arguments).check_returncode()
    return time.perf_counter() - start


def _seconds_to_first_step(config: Config, folder: Path) -> float:
    """Starts a training with its shards packed in ``folder`` and stops it after its first step."""
    with tempfile.TemporaryDirectory(dir=folder) as run:
        metrics = Path(run) / "run" / "metrics.jsonl"
        settings = config.replace(log_every=1)
        command = [sys.executable, "-m", "cyclegan_tf.train", "--run-dir", str(metrics.parent)]
        command += ["--export-dir", str(Path(run) / "exports"), *_flags(settings)]
        environment = {**os.environ, "CYCLEGAN_TF_CACHE": str(folder / "cache")}
        start = time.perf_counter()
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while process.poll() is None and not _has_a_line(metrics):
                time.sleep(_POLL_SECONDS)
            seconds = time.perf_counter() - start
            process.kill()
        if not _has_a_line(metrics):
            raise UserError(f"--what start: no step was taken by: {' '.join(command)}")
        return seconds


def _has_a_line(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _flags(config: Config) -> list[str]:
    """The flags of every setting that differs from its preset's own."""
    from cyclegan_tf.presets import make_config

    usual, settings = make_config(config.preset).flat(), config.flat()
    changed = [name for _, name, _ in all_settings() if settings[name] != usual[name]]
    return ["--preset", config.preset, *(f"{flag(name)}={settings[name]}" for name in changed)]
