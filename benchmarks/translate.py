"""How many pictures a second ``cyclegan_tf.translate`` makes of a folder, from each kind of model.

    python benchmarks/translate.py --run-dir runs/demo

Reading and writing the files count, loading the model does not. The three kinds take turns.
"""

# ruff: noqa: E402 - the environment must stand before TensorFlow is imported
from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from cyclegan_tf.environment import start_tensorflow
from cyclegan_tf.errors import run_command
from cyclegan_tf.flags import Parser

start_tensorflow()

import numpy as np
from PIL import Image

from cyclegan_tf import translate
from cyclegan_tf.benchmarking.table import Table
from cyclegan_tf.config import Config
from cyclegan_tf.data.portraits import draw, sample_portrait
from cyclegan_tf.exporting.saved_model import export_saved_models
from cyclegan_tf.exporting.tflite import convert
from cyclegan_tf.exporting.translator import Translator, load
from cyclegan_tf.training.checkpoints import load_generators

_BATCHES = (1, 8)


def main(argv: list[str] | None = None) -> int:
    """Measures and prints; the exit status is 0."""
    parser = Parser(prog="python benchmarks/translate.py", description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True, help="the training run")
    parser.add_argument("--pictures", type=int, default=48, help="in the folder (default: 48)")
    parser.add_argument("--size", type=int, help="side of the pictures (default: the run's)")
    parser.add_argument("--rounds", type=int, default=3, help="of each (default: 3)")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args(argv)
    size = arguments.size or Config.load(arguments.run_dir).data.image_size
    table = Table(f"translate, JPEG pictures of {size} px, {arguments.run_dir}", "images/s")
    with tempfile.TemporaryDirectory() as folder:
        pictures = _draw_pictures(Path(folder) / "in", arguments.pictures, size)
        models = _models(arguments.run_dir, Path(folder), size)
        for number in range(arguments.rounds + 1):
            for name, model in models.items():
                for batch in _BATCHES:
                    rate = _rate(model, pictures, Path(folder) / "out", batch)
                    if number:  # The first round traces the graphs.
                        table.add(f"{name}, batch {batch}", rate)
    print(table.text())
    if arguments.output:
        table.save(arguments.output)
    return 0


def _draw_pictures(folder: Path, count: int, size: int) -> Path:
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        portrait = draw(sample_portrait(random), "A", size)
        Image.fromarray(portrait).save(folder / f"{number}.jpg", quality=95)
    return folder


def _models(run_dir: Path, folder: Path, size: int) -> dict[str, Translator]:
    """The same generator as run, SavedModel and .tflite file."""
    export_saved_models(run_dir, folder / "served", ["ab"])
    generator = load_generators(run_dir, Config.load(run_dir), ["ab"], size).ab
    (folder / "ab.tflite").write_bytes(convert(generator, size, "none", is_uint8=True))
    return {
        "run directory": load(run_dir, "ab"),
        "SavedModel": load(folder / "served" / "ab"),
        ".tflite, float32": load(folder / "ab.tflite"),
    }


def _rate(model: Translator, pictures: Path, output: Path, batch: int) -> float:
    """Pictures per second through the command, but for loading the model."""
    flags = ["--run-dir", "-", str(pictures), "--output", str(output), "--overwrite"]
    arguments = translate.parser().parse_args([*flags, "--batch-size", str(batch)])
    outcome = translate.Outcome()
    start = time.perf_counter()
    jobs = translate.plan(arguments.inputs, output, outcome)
    translate.translate_jobs(model, jobs, arguments, outcome)
    seconds = time.perf_counter() - start
    assert outcome.done == len(jobs), outcome.failed
    return len(jobs) / seconds


if __name__ == "__main__":
    run_command(main)
