"""Trains runs that are broken on purpose, and a good one, and lists what the health checks say.

    python benchmarks/health.py --output FOLDER [--steps 400] [--runs high-rate good …]

Small networks on the built-in portraits at 32 pixels: about two minutes a run on one core. Some are
trained on pictures made from them: "negatives" has those of anime inverted, "few" eight of each.
"""

from __future__ import annotations

import argparse
import io
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).parent.parent))

from cyclegan_tf.data.portraits import demo_items

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
    "strong-discriminator": "--discriminator-filters 48 --discriminator-rate 5",
    "no-cycle": "--lambda-cycle 0 --generator-skip false",
    "inverting": "--generator-skip false --data {negatives}",
    "still-discriminators": "--discriminator-rate 0",
    "forgetting-cycle": "--init-from {good} --lambda-cycle 0.01",
    "slowly-forgetting": "--init-from {good} --lambda-cycle 0.01 --learning-rate 2e-5",
    "fooled": "--discriminator-rate 0 --lambda-cycle 0.01 --generator-skip false",
    "by-heart": "--data {few} --discriminator-filters 48 --discriminator-rate 1",
    "by-heart-augmented": "--data {few} --discriminator-filters 48 --discriminator-rate 1 "
    "--discriminator-augment color,translation,cutout",
}
_SIZE = 32


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--runs", nargs="+", choices=sorted(RUNS), default=list(RUNS))
    arguments = parser.parse_args()
    places = {"good": arguments.output / "good"}
    for name, change, train in (("negatives", invert, 200), ("few", bytes, 8)):
        places[name] = arguments.output / "pictures" / name
        if any("{" + name + "}" in RUNS[run] for run in arguments.runs):
            _draw(places[name], change, train)
    for name in arguments.runs:
        folder = arguments.output / name
        quoted = {key: shlex.quote(str(place)) for key, place in places.items()}
        flags = f"{_SMALL} {RUNS[name]}".format(**quoted)
        command = [sys.executable, "-m", "cyclegan_tf.train", *shlex.split(flags)]
        command += ["--steps", str(arguments.steps), "--run-dir", str(folder)]
        command += ["--export-dir", str(folder / "export")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _say(name, folder)


def invert(encoded: bytes) -> bytes:
    """A PNG file's negative."""
    file = io.BytesIO()
    ImageOps.invert(Image.open(io.BytesIO(encoded)).convert("RGB")).save(file, "PNG")
    return file.getvalue()


def _draw(folder: Path, change: Callable[[bytes], bytes], train: int) -> None:
    """Portraits as PNG files, those of anime changed."""
    for item in demo_items(size=_SIZE, train=train, test=32):
        path = folder / item.split / item.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        encoded = item.encode()
        path.write_bytes(change(encoded) if item.split.endswith("B") else encoded)


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
