"""Errors of runs on the built-in portraits, background and person apart.

    python benchmarks/background.py RUN [RUN …]

Translates the test portraits, and prints the mean absolute error to the truth, in levels of 255,
where nothing but the backdrop is drawn and where the person is. The attention mask should lower the
first (``--generator-mask``).
"""

# ruff: noqa: E402 - the environment must stand before TensorFlow is imported
from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from cyclegan_tf.environment import start_tensorflow
from cyclegan_tf.errors import run_command
from cyclegan_tf.flags import Parser

start_tensorflow()

import numpy as np
from PIL import Image

from cyclegan_tf.config import Config
from cyclegan_tf.data.portraits import Portrait, demo_items, draw
from cyclegan_tf.exporting.translator import load


def main(argv: list[str] | None = None) -> int:
    """Measures and prints; the exit status is 0."""
    parser = Parser(prog="python benchmarks/background.py", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a training run")
    parser.add_argument("--people", type=int, default=64, help="test portraits (default: 64)")
    arguments = parser.parse_args(argv)
    items = demo_items(train=0, test=arguments.people)
    people = [item.portrait for item in items if item.domain == "A"]  # B shows the same
    for run in arguments.runs:
        size = Config.load(run).data.image_size
        behind = np.stack([background(person, size) for person in people])
        pictures = {domain: _pictures(people, domain, size) for domain in "AB"}
        for source, target in ("AB", "BA"):
            made = load(run, f"{source}{target}".lower()).translate_batch(pictures[source])
            for name, shown in (("translated", made), ("untranslated", pictures[source])):
                errors = np.abs(shown.astype(float) - pictures[target]).mean(-1)
                print(
                    f"{run}, {source} to {target}, {name}: background {errors[behind].mean():.1f}, "
                    f"person {errors[~behind].mean():.1f}"
                )
    return 0


def background(person: Portrait, size: int) -> np.ndarray:
    """Which pixels show nothing but the backdrop, bool [size, size].

    Those are the ones that another colour of the backdrop changes, in both styles.
    """
    changed = np.logical_and(*(_changed(person, domain) for domain in "AB"))
    whole = Image.fromarray(changed.astype(np.float32)).resize((size, size), Image.Resampling.BOX)
    return np.asarray(whole) == 1.0


def _changed(person: Portrait, domain: str) -> np.ndarray:
    one, other = (
        draw(dataclasses.replace(person, backdrop_colour=colour), domain).astype(int)
        for colour in (0.0, 1.0)
    )
    return np.abs(one - other).max(-1) > 8


def _pictures(people: list[Portrait], domain: str, size: int) -> np.ndarray:
    drawn = [Image.fromarray(draw(person, domain)) for person in people]
    resized = [picture.resize((size, size), Image.Resampling.BICUBIC) for picture in drawn]
    return np.stack([np.asarray(picture) for picture in resized])


if __name__ == "__main__":
    run_command(main)
