"""Writes the page of a run anew, or compares runs: ``python -m cyclegan_tf.report RUN [RUN …]``.

With one run: its report.html. With several: one page with the settings that differ, the newest
samples side by side, and the curves over each other.
"""

from __future__ import annotations

from pathlib import Path

from cyclegan_tf.errors import UserError, run_command
from cyclegan_tf.flags import Parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command."""
    parser = Parser(prog="python -m cyclegan_tf.report", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run directory")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="where the comparison goes (default: comparison.html)",
    )
    arguments = parser.parse_args(argv)
    print(f"Written: {_write(arguments.runs, arguments.output)}")
    return 0


def _write(runs: list[Path], output: Path | None) -> Path:
    from cyclegan_tf.reporting.comparison import write_comparison
    from cyclegan_tf.reporting.report import write_report
    from cyclegan_tf.training.run_directory import check_output

    if len(runs) > 1:
        path = output or Path("comparison.html")
        check_output(path)
        return write_comparison(runs, path)
    if output:
        raise UserError(f"--output {output}: is for comparisons; the report of one run is in it")
    return write_report(runs[0])


if __name__ == "__main__":
    run_command(main)
