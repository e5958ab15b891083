"""Makes a run of a CycleGAN trained elsewhere: ``python -m cyclegan_tf.import_pytorch``.

Takes the state dict of a generator from the CycleGAN authors' PyTorch code, such as their published
models (latest_net_G.pth). The run can be exported and used for translation; it cannot go on, but a
new training can start from it (--init-from). Neither is PyTorch needed, nor is anything run that
the file has pickled in it.
"""

from __future__ import annotations

from pathlib import Path

from cyclegan_tf.environment import start_tensorflow
from cyclegan_tf.errors import UserError, run_command
from cyclegan_tf.flags import Parser

_DIRECTIONS = ("ab", "ba")


def main(argv: list[str] | None = None) -> int:
    """Runs the command; the exit status is 0."""
    parser = Parser(prog="python -m cyclegan_tf.import_pytorch", description=__doc__)
    parser.add_argument("file", type=Path, help="the generator's state dict, a .pth file")
    parser.add_argument("--output", type=Path, required=True, help="the run directory to make")
    parser.add_argument(
        "--direction",
        default="ab",
        metavar="|".join(_DIRECTIONS),
        help="what it does; run the command again to add the other one (default: ab)",
    )
    parser.add_argument(
        "--image-size", type=int, default=256, help="what it was trained at (default: 256)"
    )
    parser.add_argument(
        "--data",
        help="pictures like those it was trained on, to test and calibrate exports with: anything "
        "that --data of the training takes (default: what the run has already, or none: .tflite "
        "files are then compared on the built-in portraits, and evaluate and int8 ask for --data)",
    )
    arguments = parser.parse_args(argv)
    if arguments.direction not in _DIRECTIONS:
        raise UserError(f"--direction {arguments.direction}: must be one of ab, ba")
    start_tensorflow()
    from cyclegan_tf.exporting.pytorch import import_pytorch

    config = import_pytorch(
        arguments.file,
        arguments.output,
        arguments.direction,
        arguments.image_size,
        arguments.data,
    )
    settings = config.generator
    print(
        f"{arguments.output}: generator {arguments.direction} with {settings.filters} channels and "
        f"{settings.blocks} residual blocks"
    )
    print(
        f"Use it with --run-dir {arguments.output} in cyclegan_tf.export and cyclegan_tf.translate"
    )
    return 0


if __name__ == "__main__":
    run_command(main)
