"""Makes a table of docs/performance.md: ``python benchmarks/tables.py NAME``.

Each row is one run of ``python -m cyclegan_tf.benchmark`` in a process of its own; what is compared
within a row takes turns in that process. Further flags are passed on, for example ``--rounds 3``.
The steps are computed in float32, or with ``--precision bfloat16`` in that; the step as tutorials
write it always in float32.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

_ROOT = Path(__file__).parent.parent
_SMALL = "--image-size=128 --generator-filters=32 --discriminator-filters=32"
_TINY = "--image-size=64 --generator-filters=32 --discriminator-filters=32"

# The rows of each table, as flags of the benchmark.
TABLES = {
    "tutorial": [
        f"--what=step --against=tutorial {_TINY}",
        f"--what=step --against=tutorial {_SMALL}",
        "--what=step --against=tutorial --image-size=128",
        "--what=step --against=tutorial --image-size=256",
    ],
    "batch": [
        f"--what=step {_SMALL} --batch-size={batch} --replicas={replicas}"
        for replicas in (1, 2)
        for batch in (1, 2, 4, 8)
        if batch >= replicas
    ],
    "jit": [f"--what=step {_TINY} --jit={jit}" for jit in ("off", "on")],
    "winograd": [
        f"--what=step {size} --winograd={winograd}"
        for size in (_SMALL, "--image-size=128")
        for winograd in ("off", "on")
    ],
    "memory": [
        "--what=memory --image-size=256",
        "--what=memory --image-size=256 --recompute=true",
        "--what=memory --preset=selfie2anime-v2 --image-size=256 --recompute=true",
    ],
    "recompute": [
        f"--what=step {_SMALL} --recompute={recompute}" for recompute in ("false", "true")
    ],
    "start": ["--what=start --preset=demo"],
    "export": ["--what=export --preset=demo", "--what=export --preset=paper"],
}


def main() -> int:
    """Prints the table as Markdown; the exit status is 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=TABLES)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    arguments, passed_on = parser.parse_known_args()
    passed_on.append(f"--precision={arguments.precision}")
    print("| flags | row | median | unit |\n|---|---|---|---|", flush=True)
    for row in TABLES[arguments.name]:
        table = _measured([*row.split(), *passed_on])
        for name, values in table["rows"].items():
            print(f"| {row} | {name} | {statistics.median(values):.3f} | {table['unit']} |")
        for remark in (table["title"], *table["remarks"]):
            print(f"| | {remark} | | |", flush=True)
    return 0


def _measured(flags: list[str]) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "table.json"
        command = [sys.executable, "-m", "cyclegan_tf.benchmark", *flags, f"--output={output}"]
        subprocess.run(command, cwd=_ROOT, stdout=subprocess.DEVNULL, check=True)
        return json.loads(output.read_text(encoding="utf-8"))


if __name__ == "__main__":
    raise SystemExit(main())
