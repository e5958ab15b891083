"""A .tflite file in the LiteRT runtime (the package ai-edge-litert), without TensorFlow."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from cyclegan_tf.environment import usable_cores
from cyclegan_tf.errors import UserError

_RUNS = (5, 50)  # at least and at most
_SECONDS = 2.0


class LiteRtModel:
    """A translating .tflite file, run on the CPU with XNNPACK.

    Args:
        model: the file's bytes.
        threads: of the runtime; None for one per core.

    Attributes:
        side: height and width of the pictures it takes.

    Raises:
        ValueError: if it does not take one square picture and give another of the same kind.
    """

    def __init__(self, model: bytes, threads: int | None = None) -> None:
        interpreter = interpreter_class()
        self._interpreter = interpreter(model_content=model, num_threads=threads or usable_cores())
        self._interpreter.allocate_tensors()
        (self._input,) = self._interpreter.get_input_details()
        (self._output,) = self._interpreter.get_output_details()
        kinds = {(*end["shape"], end["dtype"]) for end in (self._input, self._output)}
        self.side = int(max(self._input["shape"], default=0))
        if kinds not in [{(1, self.side, self.side, 3, kind)} for kind in (np.uint8, np.float32)]:
            raise ValueError("not one square picture in and one out, as export writes them")

    @classmethod
    def open(cls, path: Path, threads: int | None = None) -> LiteRtModel:
        """Reads a file; UserError if it is none of ours or ai-edge-litert is missing."""
        try:
            return cls(Path(path).read_bytes(), threads)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"{path}: no .tflite file that can be used ({error})") from error

    def translate(self, images: np.ndarray) -> np.ndarray:
        """uint8 [batch, side, side, 3] to the same, whatever the file itself takes."""
        return np.concatenate([self._translate_one(image[None]) for image in images])

    def run(self, images: np.ndarray) -> np.ndarray:
        """[1, side, side, 3] of the file's own type to the same."""
        self._interpreter.set_tensor(self._input["index"], images)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output["index"])

    def example(self) -> np.ndarray:
        """A picture of the file's own type for ``run``."""
        return np.zeros(self._input["shape"], self._input["dtype"])

    def _translate_one(self, images: np.ndarray) -> np.ndarray:
        if self._input["dtype"] == np.uint8:
            return self.run(images)
        outputs = self.run(images.astype(np.float32) / 127.5 - 1.0)
        return np.clip(np.rint((outputs + 1.0) * 127.5), 0, 255).astype(np.uint8)


def interpreter_class() -> type:
    """The runtime's class; UserError if ai-edge-litert is not installed."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise UserError("a .tflite file needs its runtime: pip install ai-edge-litert") from None
    return Interpreter


# --- Latency and memory, in a process of its own: python -m cyclegan_tf.exporting.litert FILE ----


@dataclass(frozen=True)
class Speed:
    """How fast a file runs.

    Attributes:
        seconds: median per picture.
        peak_megabytes: most memory in use beyond that of the idle runtime; None where the system
            does not tell.
    """

    seconds: float
    peak_megabytes: float | None


def measure_in_new_process(path: Path, threads: int) -> Speed:
    """Measures a file in a process of its own, so that the peak memory is the file's alone."""
    command = [sys.executable, "-m", "cyclegan_tf.exporting.litert", str(path), str(threads)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise UserError(f"{path}: does not run in ai-edge-litert ({result.stderr.strip()[-200:]})")
    return Speed(**json.loads(result.stdout.splitlines()[-1]))


def _measure(path: Path, threads: int) -> Speed:
    interpreter_class()
    before = _peak_megabytes()
    model = LiteRtModel.open(path, threads)
    picture = model.example()
    model.run(picture)  # the first run plans the memory
    times: list[float] = []
    while len(times) < _RUNS[0] or (sum(times) < _SECONDS and len(times) < _RUNS[1]):
        start = time.perf_counter()
        model.run(picture)
        times.append(time.perf_counter() - start)
    after = _peak_megabytes()
    peak = None if before is None or after is None else after - before
    return Speed(statistics.median(times), peak)


def _peak_megabytes() -> float | None:
    """This process's peak memory. Not from getrusage, which starts from the parent's."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return None
    peaks = (line for line in status.splitlines() if line.startswith("VmHWM"))
    line = next(peaks, None)  # None in sandboxes that do not count it
    return int(line.split()[1]) / 1024 if line else None


if __name__ == "__main__":
    print(json.dumps(asdict(_measure(Path(sys.argv[1]), int(sys.argv[2])))))
