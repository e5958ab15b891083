"""Memory and open files of a training over 10,000 steps: ``python benchmarks/memory.py``.

Runs the real command on the built-in portraits, with the demo's own networks and pictures or with
``--tiny`` ones (16 px, 2 channels), looks at its process from outside after every 500 steps, and
says how far both moved from their mean once everything has been made once, samples at step 2,000
last. Memory is what the process itself allocated, in main memory or swapped out; pages of its
program files come and go as the system pleases.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean

_ROOT = Path(__file__).parent.parent
_LOG_EVERY = 500
_SETTLED = 2500
_FLAGS = {"--log-every": _LOG_EVERY, "--sample-every": 2000, "--checkpoint-every": 1000}
_TINY_FLAGS = {
    "--image-size": 16,
    "--generator-filters": 2,
    "--generator-blocks": 1,
    "--discriminator-filters": 2,
    "--steps-per-call": 100,
}


def main() -> int:
    """Runs the command; the exit status is 1 if memory moved by more than 2 %."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--data", default="demo")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    flags = {**_FLAGS, **(_TINY_FLAGS if arguments.tiny else {})}
    flags.update({"--steps": arguments.steps, "--data": arguments.data})
    with tempfile.TemporaryDirectory() as folder:
        rows = watch(Path(folder), flags)
    print("| step | memory, MB | open files |\n|---|---|---|")
    for step, megabytes, files in rows:
        print(f"| {step:,} | {megabytes:.1f} | {files} |")
    if not rows or rows[-1][0] < arguments.steps:
        sys.exit(f"the training ended before step {arguments.steps:,}")
    settled = [row for row in rows if row[0] >= _SETTLED]
    average = mean(megabytes for _, megabytes, _ in settled)
    moved = max(abs(megabytes / average - 1) for _, megabytes, _ in settled)
    counts = sorted({files for _, _, files in settled})
    print(f"From step {_SETTLED:,} on: {average:.1f} MB ± {100 * moved:.2f} %, open files {counts}")
    return int(moved > 0.02)


def watch(folder: Path, flags: dict[str, object]) -> list[tuple[int, float, int]]:
    """(step, megabytes, open files) at each line of metrics.jsonl of a run with these flags."""
    flags = {**flags, "--run-dir": folder / "run", "--export-dir": folder / "models"}
    words = [str(word) for pair in flags.items() for word in pair]
    command = [sys.executable, "-m", "cyclegan_tf.train", *words]
    rows: list[tuple[int, float, int]] = []
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and (not rows or rows[-1][0] < flags["--steps"]):
            time.sleep(0.05)
            step = _last_step(folder / "run" / "metrics.jsonl")
            if step and (not rows or step > rows[-1][0]):
                rows.append((step, *_usage(process.pid)))
        process.terminate()
    return rows


def _last_step(path: Path) -> int:
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def _usage(pid: int) -> tuple[float, int]:
    folder = Path(f"/proc/{pid}")
    lines = (folder / "status").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    kilobytes = sum(int(fields[name].split()[0]) for name in ("RssAnon", "VmSwap"))
    return kilobytes * 1024 / 1e6, len(list((folder / "fd").iterdir()))


if __name__ == "__main__":
    sys.exit(main())
