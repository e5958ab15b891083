"""How far a single place of a generator's maps stands out.

    python benchmarks/spikes.py RUN [RUN …]

For each direction, after the last residual block and after the last enlargement: the root mean
square over the channels at the strongest place of the map, beside its median over all places; the
median over the first test pictures. Instance norm rewards one place that towers over all others, as
it makes the rest of the map small, and the picture has a coloured spot there (Karras et al. 2020,
"Analyzing and Improving the Image Quality of StyleGAN", section 2: droplets).
"""

# ruff: noqa: E402 - the environment must stand before TensorFlow is imported
from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from cyclegan_tf.environment import start_tensorflow
from cyclegan_tf.errors import run_command
from cyclegan_tf.flags import Parser

start_tensorflow()

import numpy as np
from tensorflow import keras

from cyclegan_tf.config import Config
from cyclegan_tf.data.sources import open_data_of
from cyclegan_tf.models.generator import BLOCK_END, outputs_of
from cyclegan_tf.models.networks import present
from cyclegan_tf.training.checkpoints import load_generators
from cyclegan_tf.training.sampler import fixed_pictures

# What ends the parts that are measured.
_PARTS = {"last block": BLOCK_END, "last enlargement": re.compile(r"up_\d+_relu")}


def main(argv: list[str] | None = None) -> int:
    """Measures and prints; the exit status is 0."""
    parser = Parser(prog="python benchmarks/spikes.py", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a training run")
    parser.add_argument("--pictures", type=int, default=32, help="test pictures (default: 32)")
    arguments = parser.parse_args(argv)
    for run in arguments.runs:
        config = Config.load(run)
        shards = open_data_of(run, config.data.data, "")
        generators = load_generators(run, config, image_size=config.data.image_size)
        for direction, generator in present(generators).items():
            split = f"test{direction[0].upper()}"
            pictures = fixed_pictures(shards, split, config.data, arguments.pictures)
            for name, ratio in spikes(generator, pictures).items():
                print(f"{run}, {direction}, {name}: {ratio:.1f}")
    return 0


def spikes(generator: keras.Model, pictures: np.ndarray) -> dict[str, float]:
    """The strongest place beside the median one, by part: the median over the pictures."""
    ends = [outputs_of(generator, name)[-1] for name in _PARTS.values()]
    maps = keras.Model(generator.input, ends)(pictures, training=False)
    return {part: _ratio(np.asarray(one, np.float32)) for part, one in zip(_PARTS, maps)}


def _ratio(maps: np.ndarray) -> float:
    strength = np.sqrt(np.square(maps).mean(-1)).reshape(len(maps), -1)
    return float(np.median(strength.max(1) / np.median(strength, 1)))


if __name__ == "__main__":
    run_command(main)
