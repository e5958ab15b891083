"""Times 3×3 convolutions with their gradients, as the library's and by Winograd's algorithm.

    python benchmarks/winograd.py [--rounds 5] [--threads 1]

Both take turns. ``--threads`` is how many cores one operation may use; ``train`` gives it half.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Callable

sys.path.insert(0, str(Path(__file__).parent.parent))

SHAPES = [  # batch, side, channels
    (1, 16, 128),
    (1, 16, 256),
    (1, 32, 64),
    (1, 32, 128),
    (1, 32, 256),
    (2, 32, 256),
    (1, 64, 64),
    (1, 64, 128),
    (1, 64, 256),
    (2, 64, 256),
]
_MULTIPLICATIONS_PER_ROUND = 4e9


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(arguments.threads)
    from cyclegan_tf.environment import start_tensorflow

    start_tensorflow()
    import tensorflow as tf

    from cyclegan_tf.models import winograd

    def library(padded: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.nn.conv2d(padded, kernel, 1, "VALID")

    print("| batch, map, channels | library's, ms | Winograd's, ms | times as fast | taken |")
    print("|---|---|---|---|---|")
    for batch, side, channels in SHAPES:
        padded = tf.random.normal([batch, side + 2, side + 2, channels])
        kernel = tf.random.normal([3, 3, channels, channels], stddev=0.02)
        steps = max(1, round(_MULTIPLICATIONS_PER_ROUND / (9 * batch * (side * channels) ** 2)))
        runs = [_with_gradients(each, padded, kernel) for each in (library, winograd.convolve)]
        rounds = [[_milliseconds(run, steps) for run in runs] for _ in range(arguments.rounds)]
        theirs, ours = (statistics.median(times) for times in zip(*rounds))
        ratio = statistics.median(one / other for one, other in rounds)
        taken = "yes" if winograd.pays(padded, kernel, (1, 1)) else "no"
        print(
            f"| {batch}, {side}×{side}, {channels} | {theirs:.1f} | {ours:.1f} | {ratio:.2f} "
            f"| {taken} |",
            flush=True,
        )


def _with_gradients(convolution: Callable, padded, kernel) -> Callable[[], None]:
    """A function that runs a convolution, the gradient of its input and that of its kernel."""
    import tensorflow as tf

    @tf.function(autograph=False)
    def run(padded: tf.Tensor, kernel: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch([padded, kernel])
            outputs = convolution(padded, kernel)
        return tape.gradient(outputs, [padded, kernel], output_gradients=outputs)

    run(padded, kernel)  # traces
    return lambda: run(padded, kernel)[1].numpy()


def _milliseconds(run: Callable[[], None], steps: int) -> float:
    start = time.perf_counter()
    for _ in range(steps):
        run()
    return 1000 * (time.perf_counter() - start) / steps


if __name__ == "__main__":
    main()
