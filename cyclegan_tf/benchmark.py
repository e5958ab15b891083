"""Measures this machine: ``python -m cyclegan_tf.benchmark --what step``.

step: seconds per optimizer step. data: input in images/s, beside a plain Pillow loader. start: from
the command to the first step. memory: peak of two steps. export: the generator as a SavedModel.
Prints a table and, with --output, writes the same figures as JSON with the versions and the CPU.
"""

from __future__ import annotations

from pathlib import Path

from cyclegan_tf.benchmarking import SUBJECTS, measurement
from cyclegan_tf.environment import enough_memory, start_tensorflow
from cyclegan_tf.errors import UserError, run_command
from cyclegan_tf.flags import Parser, add_setting_flags, config_from_flags, given_settings
from cyclegan_tf.presets import refuse_idle
from cyclegan_tf.training.run_directory import check_output

_AGAINST = ("tutorial",)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; the exit status is 0."""
    parser = Parser(prog="python -m cyclegan_tf.benchmark", description=__doc__)
    parser.add_argument("--what", metavar="|".join(SUBJECTS), required=True, help="what to measure")
    parser.add_argument("--rounds", type=int, default=5, help="measurements to take (default: 5)")
    parser.add_argument(
        "--against",
        metavar="|".join(_AGAINST),
        default="",
        help="with --what step: take turns with the step as tutorials write it",
    )
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    add_setting_flags(parser, "paper")
    arguments = parser.parse_args(argv)
    if arguments.what not in SUBJECTS:
        raise UserError(f"--what {arguments.what}: must be one of {', '.join(SUBJECTS)}")
    if arguments.rounds < 1:
        raise UserError(f"--rounds {arguments.rounds}: must be at least 1")
    if arguments.against and (arguments.against not in _AGAINST or arguments.what != "step"):
        raise UserError(
            f"--against {arguments.against}: must be {' or '.join(_AGAINST)}, with --what step"
        )
    if arguments.output:
        check_output(arguments.output)
    config = config_from_flags(arguments)
    refuse_idle(config, given_settings(arguments))
    steps = arguments.what in ("step", "memory")
    if config.preset == "auto" and arguments.what != "start":
        raise UserError(
            f"--preset auto: not with --what {arguments.what}, which picks nothing; name another "
            "and the sizes"
        )
    if config.distillation.teacher and steps:
        raise UserError(
            f"--teacher {config.distillation.teacher}: not with --what {arguments.what}, whose "
            "step has none; leave it out"
        )
    start_tensorflow(in_halves=steps and config.has_halves())
    extra = {"against": arguments.against} if arguments.against else {}
    short = f"--what {arguments.what}: too little memory"
    with enough_memory(short, "a smaller --image-size or --batch-size takes less"):
        table = measurement(arguments.what)(config, arguments.rounds, **extra)
    print(table.text())
    if arguments.output:
        table.save(arguments.output)
    return 0


if __name__ == "__main__":
    run_command(main)
