"""Exports a run's generators: ``python -m cyclegan_tf.export``.

saved_model: for TensorFlow Serving; tflite: for phones; pytorch: for the CycleGAN
authors' PyTorch code. The .tflite files are compared with Keras on test pictures and timed in the
LiteRT runtime; one that is too far from Keras is not written.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cyclegan_tf.config import flag
from cyclegan_tf.environment import start_tensorflow
from cyclegan_tf.errors import UserError, run_command
from cyclegan_tf.flags import Parser, add_weights_flag
from cyclegan_tf.training.run_directory import check_writable

_FORMATS = ("saved_model", "tflite", "pytorch")
_DIRECTIONS = {"all": None, "ab": ("ab",), "ba": ("ba",), "both": ("ab", "ba")}
_QUANTIZATIONS = ("none", "float16", "dynamic", "int8")
_IO = ("uint8", "float32")
# Flags of the format tflite, and what they are called in TfliteOptions.
_OF_TFLITE = {
    "quantize": "quantizations",
    "io": "is_uint8",
    "image_size": "image_size",
    "data": "data",
    "seed": "seed",
    "model_version": "version",
    "license": "license",
}
_THREADS = (1, 2)
_COLUMNS = ("file", "MB", "max diff", "mean diff", "SSIM", "1 thread", "2 threads", "peak memory")


def main(argv: list[str] | None = None) -> int:
    """Runs the command; the exit status is 1 if a file was refused."""
    arguments = _parser().parse_args(argv)
    for name in _OF_TFLITE:
        if arguments.format != "tflite" and name in arguments:
            raise UserError(f"{flag(name)}: is for --format tflite, not {arguments.format}")
    output = arguments.output or Path("saved_models") / arguments.run_dir.resolve().name
    check_writable(output, "--output")
    start_tensorflow()
    export = {
        "saved_model": _export_saved_models,
        "tflite": _export_tflite,
        "pytorch": _export_pytorch,
    }[arguments.format]
    return export(arguments, output)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m cyclegan_tf.export", description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True, help="the training run")
    parser.set_defaults(format="saved_model", direction="all")
    _add_choice(parser, "--format", _FORMATS, "saved_model", "what to write")
    _add_choice(
        parser, "--direction", tuple(_DIRECTIONS), "all", "which generators; all: those it holds"
    )
    add_weights_flag(parser)
    parser.add_argument(
        "--output", type=Path, help="the folder to write to (default: saved_models/NAME OF THE RUN)"
    )
    group = parser.add_argument_group("tflite", argument_default=argparse.SUPPRESS)
    _add_choice(group, "--quantize", _QUANTIZATIONS, "none", "one or several", nargs="+")
    _add_choice(group, "--io", _IO, "uint8", "pixels, or float32 in [-1, 1]")
    group.add_argument("--image-size", type=int, help="side of the pictures (default: the run's)")
    group.add_argument("--data", help="pictures for calibration and test (default: the run's)")
    group.add_argument("--seed", type=int, help="chooses these pictures (default: 0)")
    group.add_argument("--model-version", help="for the metadata (default: 1)")
    group.add_argument("--license", help="of the model, for the metadata")
    return parser


def _add_choice(parser, flag: str, allowed: tuple[str, ...], default: str, text: str, **kwargs):
    """Adds a flag whose value is one of ``allowed``, or some of them if it takes several."""

    def parse(value: str) -> str:
        if value not in allowed:
            raise UserError(f"{flag} {value}: must be one of {', '.join(allowed)}")
        return value

    parser.add_argument(
        flag,
        type=parse,
        metavar="|".join(allowed),
        help=f"{text} (default: {default})",
        **kwargs,
    )


def _export_saved_models(arguments: argparse.Namespace, output: Path) -> int:
    from cyclegan_tf.exporting import serving_files
    from cyclegan_tf.exporting.saved_model import export_saved_models

    directions = _DIRECTIONS[arguments.direction]
    versions = export_saved_models(arguments.run_dir, output, directions, weights=arguments.weights)
    for version in versions:
        print(version)
    if not serving_files.has_warmup(versions[0]):
        # Alone, pip would take the newest, and with it another TensorFlow.
        print(
            "Without warm-up requests: they need "
            "pip install -r requirements.txt tensorflow-serving-api"
        )
    print(f"How to serve them: {output / 'README.md'}")
    return 0


def _export_pytorch(arguments: argparse.Namespace, output: Path) -> int:
    from cyclegan_tf.exporting.pytorch import export_pytorch

    directions = _DIRECTIONS[arguments.direction]
    for path in export_pytorch(arguments.run_dir, output, directions, arguments.weights):
        print(path)
    return 0


def _export_tflite(arguments: argparse.Namespace, output: Path) -> int:
    from cyclegan_tf.exporting.litert import measure_in_new_process
    from cyclegan_tf.exporting.tflite import CALIBRATION_PICTURES, export_tflite

    options = _tflite_options(arguments)
    if "int8" in options.quantizations:
        count = f"{CALIBRATION_PICTURES} training pictures or all if fewer"
        print(f"Calibrating int8 with {count}, chosen by seed {options.seed}")
    rows, warnings = [_COLUMNS], []
    for export in export_tflite(
        arguments.run_dir, output, _DIRECTIONS[arguments.direction], options, arguments.weights
    ):
        speeds = []
        if export.refused:
            earlier = "; what is there is of an earlier export" * export.path.exists()
            warnings.append(f"WARNING: {export.path} was not written: {export.refused}{earlier}")
        else:
            speeds = [measure_in_new_process(export.path, threads) for threads in _THREADS]
        rows.append(_row(export, speeds))
    print("\n".join([*_table(rows), *warnings]))
    return 1 if warnings else 0


def _tflite_options(arguments: argparse.Namespace):
    from cyclegan_tf.exporting.tflite import TfliteOptions

    given = {
        field: getattr(arguments, name) for name, field in _OF_TFLITE.items() if name in arguments
    }
    if "is_uint8" in given:
        given["is_uint8"] = given["is_uint8"] == "uint8"
    return TfliteOptions(**given)


def _row(export, speeds) -> tuple[str, ...]:
    parity = export.parity
    peaks = [speed.peak_megabytes for speed in speeds if speed.peak_megabytes is not None]
    return (
        str(export.path),
        f"{export.size / 1e6:.2f}",
        str(parity.largest),
        f"{parity.mean:.3f}",
        f"{parity.ssim:.4f}",
        *([f"{1000 * speed.seconds:.1f} ms" for speed in speeds] or ["refused", "refused"]),
        f"{max(peaks):.0f} MB" if peaks else "unknown",
    )


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """The rows as lines of aligned columns: names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]


if __name__ == "__main__":
    run_command(main)
