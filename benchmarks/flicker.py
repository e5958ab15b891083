"""Flicker of a translated film with and without smoothing.

    python benchmarks/flicker.py --run-dir RUN [--size 256]

Draws a film of one person who slowly turns the head and speaks, before a backdrop that stands
still, with the grain of a camera, and translates it with every strength of ``--smooth``. Flicker is
the mean change between frames, in levels of 255, where the film itself stands still.
"""

# ruff: noqa: E402 - the environment must stand before TensorFlow is imported
from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from cyclegan_tf.environment import start_tensorflow
from cyclegan_tf.errors import run_command
from cyclegan_tf.flags import Parser

start_tensorflow()

import av
import numpy as np

from cyclegan_tf.config import Config
from cyclegan_tf.data.portraits import draw, sample_portrait
from cyclegan_tf.exporting.translator import load
from cyclegan_tf.exporting.video import FilmOptions, translate_film

_SMOOTH = (0.0, 0.5, 0.8, 0.9)
_FRAMES_PER_SECOND = 25


def main(argv: list[str] | None = None) -> int:
    """Measures and prints; the exit status is 0."""
    parser = Parser(prog="python benchmarks/flicker.py", description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True, help="the training run")
    parser.add_argument("--frames", type=int, default=75, help="of the film (default: 75)")
    parser.add_argument("--size", type=int, help="side of the film (default: the run's)")
    parser.add_argument("--keep", type=Path, help="a folder to leave the films in")
    arguments = parser.parse_args(argv)
    size = arguments.size or Config.load(arguments.run_dir).data.image_size
    model = load(arguments.run_dir, "ab")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        film = draw_film(folder / "film.mp4", arguments.frames, size)
        for smooth in _SMOOTH:
            options = FilmOptions(smooth=smooth)
            report = translate_film(
                film, folder / f"smooth-{smooth}.mp4", model.translate_batch, options
            )
            print(f"--smooth {smooth}: flicker {report.flicker:.2f} levels of 255")
    return 0


def draw_film(path: Path, frames: int, size: int) -> Path:
    """A film in the style of photographs."""
    person = sample_portrait(np.random.default_rng(1))
    grain = np.random.default_rng(2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=_FRAMES_PER_SECOND)
        stream.width = stream.height = size
        stream.options = {"crf": "12"}
        for number in range(frames):
            turn = np.sin(2 * np.pi * number / frames)
            talk = 0.5 + 0.5 * np.sin(2 * np.pi * 6 * number / frames)
            pose = dataclasses.replace(person, yaw=0.8 * turn, gaze=turn, mouth_opening=0.6 * talk)
            noisy = draw(pose, "A", size) + grain.normal(0.0, 2.0, (size, size, 3))
            pixels = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())
    return path


if __name__ == "__main__":
    run_command(main)
