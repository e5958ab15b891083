"""Memory of the input alone, over ten epochs: ``python benchmarks/epochs.py --data SHARDS``.

Reads every training pair as a training does (256 px, batch 1), and prints after each epoch how much
memory the process itself has allocated.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="demo")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    from cyclegan_tf.environment import start_tensorflow

    start_tensorflow(in_halves=True)
    from cyclegan_tf.config import DataConfig
    from cyclegan_tf.data.pipeline import training_pairs
    from cyclegan_tf.data.sources import open_data

    shards = open_data(arguments.data)
    config = DataConfig(data=arguments.data, image_size=arguments.image_size)
    pairs = iter(training_pairs(shards, config, batch_size=1, seed=0))
    print("| epoch | pairs | memory, MB |\n|---|---|---|", flush=True)
    for epoch in range(1, arguments.epochs + 1):
        for _ in range(shards.pairs_per_epoch()):
            next(pairs)
        print(f"| {epoch} | {shards.pairs_per_epoch():,} | {_megabytes():.1f} |", flush=True)


def _megabytes() -> float:
    """What this process has allocated, in main memory or swapped out; Linux only."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return sum(int(fields[name].split()[0]) for name in ("RssAnon", "VmSwap")) * 1024 / 1e6


if __name__ == "__main__":
    main()
