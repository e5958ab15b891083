"""Compares recipes at equal wall time: trains each for so many minutes and seeds, and scores it.

    python benchmarks/recipes.py --data SHARDS --image-size 64 --minutes 30 --seeds 0 1 2 \\
        --output RESULTS [--recipes paper fast …] [--features efficientnet-lite0]

A short pilot of each recipe tells how many steps fit into the minutes, so that the learning rate
falls to its end in each. Nothing else may run on the machine meanwhile; with ``--pairs N`` instead,
which trains each on so many pairs of pictures, anything may. What was trained already, on the same
pictures, size and steps, is not trained again. The table goes to RESULTS/DATA-SIZE/table.md, in the
form of docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from cyclegan_tf.flags import Parser, add_setting_flags, config_from_flags

# Most trials that led to `fast` were made before it had its gradient penalty and bilinear filter.
_TRIAL = "--preset fast --gradient-penalty 0 --generator-upsampling resize"
# What is compared: flags beside --preset. Each switch stands alone, so that it can be judged alone.
RECIPES: dict[str, str] = {
    "paper": "--preset paper",
    "paper-32": "--preset paper --generator-filters 32 --discriminator-filters 32",
    "fast": "--preset fast",
    "fast-no-penalty": "--preset fast --gradient-penalty 0",
    "fast-penalty-0.01": "--preset fast --gradient-penalty 0.01",
    "fast-penalty-0.03": "--preset fast --gradient-penalty 0.03",  # which it had up to 64 pixels
    "fast-affine": "--preset fast --generator-affine true",
    "fast-history": f"{_TRIAL} --history-size 50",
    "fast-20": f"{_TRIAL} --generator-filters 20",
    "fast-20-history": f"{_TRIAL} --generator-filters 20 --history-size 50",
    "fast-vanilla": f"{_TRIAL} --gan-loss vanilla",
    "fast-no-average": "--preset fast --average 0",
    "fast-resize": "--preset fast --generator-upsampling resize",
    "fast-transpose": "--preset fast --generator-upsampling transpose",
    "fast-no-skip": "--preset fast --generator-skip false",
    "fast-mask": "--preset fast --generator-skip false --generator-mask",
    "fast-augment": "--preset fast --discriminator-augment color,translation,cutout",
    "fast-spectral": "--preset fast --discriminator-spectral-norm",
    "fast-identity": "--preset fast --lambda-identity 2.5",
    "fast-identity-every-4": "--preset fast --lambda-identity 2.5 --identity-every 4",
    "fast-identity-decay": "--preset fast --lambda-identity 2.5 --identity-decay 0.3",
    "fast-batch-4": "--preset fast --batch-size 4 --rate-scaling sqrt",
    "fast-batch-4-linear": "--preset fast --batch-size 4 --rate-scaling linear",
    "fast-batch-4-unscaled": "--preset fast --batch-size 4",
    "fast-rate-2e-4": "--preset fast --learning-rate 2e-4",
    "fast-discriminator-rate-half": "--preset fast --discriminator-rate 0.5",
    "fast-discriminator-rate-2": "--preset fast --discriminator-rate 2",
    "fast-two-downsamplings": "--preset fast --generator-downsamplings 2",
    "fast-larger-patches": "--preset fast --discriminator-strided 3",
    "fast-larger-discriminators": "--preset fast --discriminator-filters 48 "
    "--discriminator-strided 3",
    "fast-cycle-2": "--preset fast --lambda-cycle 2",
    "fast-cycle-10": "--preset fast --lambda-cycle 10",
    "fast-cut": "--preset fast --contrast-weight 1 --lambda-cycle 0",
}
_PILOT_STEPS = 60
# With each sample the health is looked at.
_QUIET = ["--sample-every", "1000", "--checkpoint-every", "100000"]


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="demo")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--pairs", type=int, help="to train on, instead of minutes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipes", nargs="+", choices=sorted(RECIPES), default=["paper", "fast"])
    parser.add_argument("--features", default="efficientnet-lite0")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    rows = [["recipe", "steps", "seeds", *_columns(arguments.features)]]
    for recipe in arguments.recipes:
        steps = _steps(recipe, arguments)
        results = [_train_and_score(recipe, steps, seed, arguments) for seed in arguments.seeds]
        rows.append([recipe, str(steps), str(len(results))])
        rows[-1] += _cells(results, arguments.features)
        _write_table(rows, results[0]["protocol"], _folder(arguments) / "table.md")


def _run(module: str, *arguments: object) -> None:
    command = [sys.executable, "-m", f"cyclegan_tf.{module}", *map(str, arguments)]
    print("$", *command[1:], flush=True)
    subprocess.run(command, check=True)


def _folder(arguments: argparse.Namespace) -> Path:
    """Where all that was trained on these pictures, at this size, is kept."""
    name, place = arguments.data, Path(arguments.data).resolve()
    if name != "demo":  # folders of one name, in different places
        name = f"{place.name}-{zlib.crc32(str(place).encode()):08x}"
    return arguments.output / f"{name}-{arguments.image_size}"


def _flags(recipe: str, arguments: argparse.Namespace) -> list[object]:
    return [
        *shlex.split(RECIPES[recipe]),
        "--data",
        arguments.data,
        "--image-size",
        arguments.image_size,
        *_QUIET,
    ]


def _steps(recipe: str, arguments: argparse.Namespace) -> int:
    """How many make the pairs asked for, or fit into the minutes."""
    if arguments.pairs:
        return max(1, arguments.pairs // _batch_size(recipe))
    folder = _folder(arguments) / "pilots" / recipe
    if not (folder / "metrics.jsonl").exists():
        flags = [*_flags(recipe, arguments), "--steps", _PILOT_STEPS, "--log-every", "20"]
        _run("train", *flags, "--run-dir", folder, "--export-dir", folder / "export")
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    speeds = [record["images_per_second"] for record in records if "images_per_second" in record]
    # The first record holds the tracing.
    images = 60 * arguments.minutes * statistics.mean(speeds[1:])
    return max(_PILOT_STEPS, round(images / _batch_size(recipe)))


def _batch_size(recipe: str) -> int:
    parser = Parser()
    add_setting_flags(parser, "paper")
    return config_from_flags(parser.parse_args(shlex.split(RECIPES[recipe]))).run.batch_size


def _train_and_score(recipe: str, steps: int, seed: int, arguments: argparse.Namespace) -> dict:
    folder = _folder(arguments) / f"{recipe}-{steps}-steps-seed-{seed}"
    scores = folder / f"scores-{arguments.features}.json"
    if not scores.exists():
        flags = [*_flags(recipe, arguments), "--steps", steps, "--seed", seed]
        _run("train", *flags, "--run-dir", folder, "--export-dir", folder / "export")
        evaluation = ["--run-dir", folder, "--features", arguments.features, "--output", scores]
        _run("evaluate", *evaluation)
    return json.loads(scores.read_text())


def _columns(features: str) -> list[str]:
    names = [f"KID × 1000 ({features})", "MAE", "SSIM"]
    return [f"{name} {way}" for way in ("A to B", "B to A") for name in names]


def _cells(results: list[dict], features: str) -> list[str]:
    kid = f"kid_{features.replace('-', '_')}"
    cells = []
    for direction in ("ab", "ba"):
        scores = [result["scores"].get(direction) for result in results]
        for name, factor, digits in ((kid, 1000, 1), ("mae", 1, 1), ("ssim", 1, 3)):
            # No way back in a one-sided training, and no truth without pairs.
            values = [factor * one[name] for one in scores if one and name in one]
            cells.append(_mean(values, digits) if values else "")
    return cells


def _mean(values: list[float], digits: int) -> str:
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def _write_table(rows: list[list[str]], protocol: dict, path: Path) -> None:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    lines += ["", "; ".join(f"{name}: {value}" for name, value in protocol.items())]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
