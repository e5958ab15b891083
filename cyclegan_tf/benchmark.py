"""Measures this machine: ``python -m cyclegan_tf.benchmark --what data|step``.

Prints a table and, with --output, writes the same figures as JSON with the versions and the CPU.
"""

from __future__ import annotations

from pathlib import Path

from cyclegan_tf.environment import prepare_environment
from cyclegan_tf.errors import UserError, run_command
from cyclegan_tf.flags import Parser, add_setting_flags, config_from_flags

_SUBJECTS = ("data", "step")


def main(argv: list[str] | None = None) -> int:
    """Runs the command; the exit status is 0."""
    parser = Parser(prog="python -m cyclegan_tf.benchmark", description=__doc__)
    parser.add_argument(
        "--what", metavar="|".join(_SUBJECTS), required=True, help="what to measure"
    )
    parser.add_argument("--rounds", type=int, default=5, help="measurements to take (default: 5)")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    add_setting_flags(parser, "paper")
    arguments = parser.parse_args(argv)
    if arguments.what not in _SUBJECTS:
        raise UserError(f"--what {arguments.what}: must be one of {', '.join(_SUBJECTS)}")
    if arguments.rounds < 1:
        raise UserError(f"--rounds {arguments.rounds}: must be at least 1")
    config = config_from_flags(arguments)
    prepare_environment(training=True)
    from cyclegan_tf import benchmarking

    measure = getattr(benchmarking, f"measure_{arguments.what}")
    table = measure(config, arguments.rounds)
    print(table.text())
    if arguments.output:
        table.save(arguments.output)
    return 0


if __name__ == "__main__":
    run_command(main)
