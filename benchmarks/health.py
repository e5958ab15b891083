"""Trains runs that are broken on purpose, and a good one, and lists what the health checks say.

    python benchmarks/health.py --output FOLDER [--steps 400] [--runs high-rate good …]

Small networks on the built-in portraits at 32 pixels: about two minutes a run on one core.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

_SMALL = (
    "--preset demo --image-size 32 --generator-filters 12 --generator-blocks 2 "
    "--discriminator-filters 12 --log-every 20 --sample-every 100 --checkpoint-every 1000"
)
RUNS: dict[str, str] = {
    "good": "",
    "high-rate": "--learning-rate 2e-3 --generator-skip false",
    "very-high-rate": "--learning-rate 2e-2 --generator-skip false",
    "no-identity-bad-seed": "--generator-skip false --lambda-cycle 1 --seed 3",
    "tiny-discriminator": "--discriminator-filters 1 --discriminator-strided 1",
    "strong-discriminator": "--discriminator-filters 48 --discriminator-weight 5",
    "no-cycle": "--lambda-cycle 0 --generator-skip false",
}


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--runs", nargs="+", choices=sorted(RUNS), default=list(RUNS))
    arguments = parser.parse_args()
    for name in arguments.runs:
        folder = arguments.output / name
        command = [
            sys.executable,
            "-m",
            "cyclegan_tf.train",
            *shlex.split(f"{_SMALL} {RUNS[name]}"),
        ]
        command += ["--steps", str(arguments.steps), "--run-dir", str(folder)]
        command += ["--export-dir", str(folder / "export")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _say(name, folder)


def _say(name: str, folder: Path) -> None:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    looks = [record for record in records if "diversity_ab" in record]
    print(f"\n{name}: last look at step {looks[-1]['step']}")
    measured = {
        key: value for key, value in looks[-1].items() if key not in ("step", "time", "protocol")
    }
    print("  " + ", ".join(f"{key} {value:.3g}" for key, value in measured.items() if value))
    said: dict[str, list[int]] = {}
    texts = {}
    for record in records:
        if "check" in record:
            said.setdefault(record["check"], []).append(record["step"])
            texts[record["check"]] = record["warning"]
    for check, steps in said.items():
        print(f"  {check} at steps {steps}: {texts[check]}", flush=True)
    if not said:
        print("  nothing to say", flush=True)


if __name__ == "__main__":
    main()
