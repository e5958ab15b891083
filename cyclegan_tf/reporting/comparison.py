"""One page that lays runs beside each other: settings that differ, samples and curves."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from cyclegan_tf.config import Config, flag
from cyclegan_tf.errors import UserError
from cyclegan_tf.files import write_atomically
from cyclegan_tf.reporting import charts
from cyclegan_tf.reporting.metrics import content_of, list_protocols, read_metrics
from cyclegan_tf.reporting.report import data_uri, list_facts, list_warnings, load_template
from cyclegan_tf.reporting.samples import DIRECTIONS, list_strips, read_strip

MAX_RUNS = 8  # as many as there are colours that one can tell apart
_CELL = 180
# The parts of a protocol that only scores by a feature network depend on.
_FILES = {"data", "feature weights"}
_OF_NETWORK = {"features", "feature weights", "resize for features", "kid"}


@dataclass(frozen=True)
class Run:
    """What is shown of one run."""

    name: str
    folder: Path
    config: Config
    records: list[dict[str, Any]]
    series: dict[str, charts.Series]
    facts: dict[str, str]
    warnings: int

    @property
    def preset(self) -> str:
        """The name of its preset."""
        return self.config.preset


@dataclass(frozen=True)
class SideBySide:
    """Samples of one direction; pictures are data URIs.

    Attributes:
        title: "A → B" or "B → A".
        columns: (heading, step, number of the run, what its pictures are) of each column after the
            first.
        rows: of each test image: the real picture, and each run's translation.
    """

    title: str
    columns: list[tuple[str, int, int, str]]
    rows: list[list[str]]


def write_comparison(run_dirs: list[Path], path: Path) -> Path:
    """Writes a page that compares runs; it needs nothing else, like the report of one run.

    Args:
        run_dirs: two to ``MAX_RUNS`` runs.
        path: the page.

    Raises:
        UserError: if there are too many runs, one cannot be read, or the page cannot be written.
    """
    if not 2 <= len(run_dirs) <= MAX_RUNS:
        raise UserError(f"{len(run_dirs)} runs: 2 to {MAX_RUNS} can be compared on a page")
    runs = _load(run_dirs)
    protocols, differing = _protocols(runs)
    incomparable = "Scores" if set(differing) - _OF_NETWORK else "FID, KID and feature distances"
    sides = [_side_by_side(runs, direction) for direction in DIRECTIONS]
    html = load_template("comparison.html.j2").render(
        runs=runs,
        facts=list(dict.fromkeys(fact for run in runs for fact in run.facts)),
        settings=_differing_settings(runs),
        protocols=protocols,
        differing_protocols=differing,
        incomparable=incomparable,
        directions=[side for side in sides if side],
        groups=charts.draw_comparison({run.name: run.series for run in runs}),
        chart=charts,
    )
    try:
        write_atomically(path, html.encode(errors="xmlcharrefreplace"))
    except OSError as error:
        raise UserError(f"--output {path}: cannot be written ({error.strerror})") from None
    return path


def _load(run_dirs: list[Path]) -> list[Run]:
    names = [run_dir.resolve().name for run_dir in run_dirs]
    if len(set(names)) < len(names):  # runs of one name in different folders
        names = [str(run_dir) for run_dir in run_dirs]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{name}: a run is named twice")
    return [_load_run(name, run_dir) for name, run_dir in zip(names, run_dirs)]


def _load_run(name: str, run_dir: Path) -> Run:
    config, records = Config.load(run_dir, flag=""), read_metrics(run_dir)
    series, broken = charts.collect(records)
    return Run(
        name=name,
        folder=run_dir,
        config=config,
        records=records,
        series=series,
        facts=dict(list_facts(config, records, series)),
        warnings=len(list_warnings(records, broken)),
    )


def _differing_settings(runs: list[Run]) -> list[tuple[str, list[Any]]]:
    """(flag, value of each run) of the settings that are not the same in all."""
    flats = [run.config.flat() for run in runs]
    return [
        (flag(name), [flat[name] for flat in flats])
        for name in flats[0]
        if any(flat[name] != flats[0][name] for flat in flats)
    ]


def _protocols(runs: list[Run]) -> tuple[list[tuple[str, list[Any]]], list[str]]:
    """(name, value of each run) of what the newest scores depend on, and the names that differ.

    A run that has logged no protocol has no values, and differs in none.
    """
    newest = [
        protocol for run in runs for _, protocol in list_protocols(run.records)[-1:] or [(0, {})]
    ]
    names = list(dict.fromkeys(name for protocol in newest for name in protocol))
    rows = [(name, [protocol.get(name, "") for protocol in newest]) for name in names]
    told = [protocol for protocol in newest if protocol]
    differing = [name for name in names if len({_compared(name, p) for p in told}) > 1]
    return rows, differing


def _compared(name: str, protocol: dict[str, Any]) -> str:
    """What of a protocol's entry makes other scores; of files the content, not their names."""
    value = str(protocol.get(name))
    return content_of(value) if name in _FILES else value


def _side_by_side(runs: list[Run], direction: str) -> SideBySide | None:
    """The newest samples of all runs; None if they have none.

    Runs on other pictures have other test images: a column of real pictures then stands before the
    translations of each.
    """
    newest = []
    for number, run in enumerate(runs):
        strips = list_strips(run.folder, direction)
        # A picture that someone broke is no reason to have no page.
        with contextlib.suppress(OSError, IndexError):
            step, path = strips[-1]
            newest.append((number, run.name, step, read_strip(path, _CELL)))
    if not newest:
        return None
    count = min(len(rows) for *_, rows in newest)
    columns, rows = [], [[data_uri(newest[0][3][index][0])] for index in range(count)]
    for number, name, step, strip in newest:
        if not all(_alike(strip[i][0], newest[0][3][i][0]) for i in range(count)):
            columns.append((f"real of {name}", step, number, f"real of {name}"))
            for index, row in enumerate(rows):
                row.append(data_uri(strip[index][0]))
        columns.append((name, step, number, f"translated by {name}"))
        for index, row in enumerate(rows):
            row.append(data_uri(strip[index][1]))
    source, target = direction.upper()
    return SideBySide(f"{source} → {target}", columns, rows)


def _alike(one: Image.Image, other: Image.Image) -> bool:
    """Whether two pictures show the same, whatever their sizes."""
    small = [
        picture.convert("L").resize((16, 16), Image.Resampling.BOX) for picture in (one, other)
    ]
    differences = [abs(a - b) for a, b in zip(small[0].tobytes(), small[1].tobytes())]
    return sum(differences) / len(differences) < 8
