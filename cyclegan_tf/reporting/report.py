"""The page that shows how a run goes: ``report.html``, one file that needs nothing else."""

from __future__ import annotations

import base64
import contextlib
import datetime
import functools
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from cyclegan_tf.config import Config, all_settings, flag
from cyclegan_tf.errors import UserError
from cyclegan_tf.files import write_atomically
from cyclegan_tf.reporting import charts
from cyclegan_tf.reporting.metrics import HEALTH_MEASURE, list_protocols, read_metrics
from cyclegan_tf.reporting.samples import DIRECTIONS, captions, list_strips, read_strip

FILE = "report.html"

# What bounds the size of the page.
MAX_MOMENTS = 12  # columns of the samples over time
MAX_WARNINGS = 20
LATEST_CELL, MOMENT_CELL = 256, 128  # sides of the embedded pictures, in pixels
_QUALITY = 82

# Read once: a training must not meet those of another version that comes in its time.
_TEMPLATES = {
    path.name: path.read_text(encoding="utf-8")
    for path in Path(__file__).with_name("templates").iterdir()
    if path.is_file()
}


@dataclass(frozen=True)
class Direction:
    """The samples of one direction; pictures are data URIs.

    Attributes:
        title: "A → B" or "B → A".
        captions: of the three columns of pictures.
        step: of the latest samples.
        latest: (real, translated, reconstructed) of each test image.
        steps: of the columns over time, oldest first.
        rows: of each test image: its real picture, and (translated, reconstructed) per column.
    """

    title: str
    captions: tuple[str, str, str]
    step: int
    latest: list[tuple[str, ...]]
    steps: list[int]
    rows: list[tuple[str, list[tuple[str, str]]]]


def write_report(run_dir: Path) -> Path:
    """Writes ``run_dir/report.html`` anew from config.json, metrics.jsonl and samples/.

    The page is one file without scripts or links, of bounded size however long the run is.

    Returns:
        The path of the page.

    Raises:
        UserError: if config.json or metrics.jsonl cannot be read, or the page not be written.
    """
    run_dir = Path(run_dir)
    config, records = Config.load(run_dir, flag=""), read_metrics(run_dir)
    series, broken = charts.collect(records)
    warnings = list_warnings(records, broken)
    directions = [_direction(run_dir, key, config.one_sided()) for key in DIRECTIONS]
    html = load_template("report.html.j2").render(
        name=run_dir.resolve().name,
        config=config,
        updated=_updated(records),
        progress=_progress(config, series),
        facts=list_facts(config, records, series),
        warnings=warnings[-MAX_WARNINGS:],
        older_warnings=max(0, len(warnings) - MAX_WARNINGS),
        directions=[one for one in directions if one],
        groups=charts.draw_charts(series),
        protocols=list_protocols(records),
        settings=_settings(config),
        chart=charts,
    )
    path = run_dir / FILE
    try:
        write_atomically(path, html.encode(errors="xmlcharrefreplace"))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    return path


@functools.cache
def load_template(name: str) -> jinja2.Template:
    """A page's template."""
    environment = jinja2.Environment(
        loader=jinja2.DictLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["compact"] = charts.compact
    return environment.get_template(name)


def list_warnings(records: list[dict[str, Any]], broken: dict[str, int]) -> list[str]:
    """What was logged as a warning, and the metrics that were not finite.

    Of a check that warned again and again the newest text stands, with the steps it spans.
    """
    first: dict[str, int] = {}
    newest: dict[str, dict[str, Any]] = {}
    for number, record in enumerate(r for r in records if "warning" in r):
        check = str(record.get("check") or number)
        first.setdefault(check, record["step"])
        newest.pop(check, None)  # so that the order is that of the newest
        newest[check] = record
    looked = max((r["step"] for r in records if HEALTH_MEASURE in r), default=0)
    logged = [_warning(record, first[check], looked) for check, record in newest.items()]
    return logged + [f"Step {step:,}: {name} was not finite." for name, step in broken.items()]


def _warning(record: dict[str, Any], first: int, looked: int) -> str:
    step, text = record["step"], str(record["warning"])[:500]
    when = f"Step {step:,}" if step == first else f"Steps {first:,} to {step:,}"
    over = " (Not seen any more since.)" if record.get("check") and looked > step else ""
    return f"{when}: {text}{over}"


def _direction(run_dir: Path, key: str, one_sided: bool) -> Direction | None:
    """The samples of direction "ab" or "ba"; None if there are none yet."""
    moments = []
    strips = list_strips(run_dir, key)
    for step, path in spread(strips, MAX_MOMENTS):
        is_latest = step == strips[-1][0]  # It is shown large, too.
        # A picture that someone broke is no reason to have no report.
        with contextlib.suppress(OSError):
            moments.append((step, read_strip(path, LATEST_CELL if is_latest else MOMENT_CELL)))
    if not moments:
        return None
    step, latest = moments[-1]
    small = [(step, [[_shrunk(cell) for cell in row] for row in rows]) for step, rows in moments]
    # A run could have been continued with another number of pictures: what all have is shown.
    count = min(len(rows) for _, rows in moments)
    source, target = key.upper()
    return Direction(
        title=f"{source} → {target}",
        captions=captions(key, one_sided),
        step=step,
        latest=[tuple(data_uri(cell) for cell in row) for row in latest],
        steps=[step for step, _ in moments],
        rows=[_row(index, [rows for _, rows in small]) for index in range(count)],
    )


def _row(index: int, moments: list[list[list[Image.Image]]]) -> tuple[str, list[tuple[str, str]]]:
    """A test image over time: its real picture, and (translated, reconstructed) of each moment."""
    pairs = [(data_uri(rows[index][1]), data_uri(rows[index][2])) for rows in moments]
    return data_uri(moments[-1][index][0]), pairs


def spread(items: list[Any], count: int) -> list[Any]:
    """At most ``count`` items, evenly spaced, with the first and the last."""
    chosen = np.linspace(0, len(items) - 1, min(len(items), count)).round().astype(int)
    return [items[index] for index in chosen]


def _shrunk(picture: Image.Image) -> Image.Image:
    if picture.width <= MOMENT_CELL:
        return picture
    return picture.resize((MOMENT_CELL, MOMENT_CELL), Image.Resampling.LANCZOS)


def data_uri(picture: Image.Image) -> str:
    """The picture as a JPEG inside an address, so that a page needs no other file."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _updated(records: list[dict[str, Any]]) -> str:
    if not records or "time" not in records[-1]:
        return ""
    moment = datetime.datetime.fromtimestamp(records[-1]["time"], datetime.timezone.utc)
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _progress(config: Config, series: dict[str, charts.Series]) -> float:
    """The share of the training that is done, from 0 to 1."""
    if "epoch" not in series:
        return 0.0
    epoch = series["epoch"]
    if config.run.steps:
        return min(1.0, epoch.steps[-1] / config.run.steps)
    return min(1.0, epoch.values[-1] / config.run.epochs)


def list_facts(
    config: Config, records: list[dict[str, Any]], series: dict[str, charts.Series]
) -> list[tuple[str, str]]:
    """(name, value) of what one wants to know first."""
    step, done = (records[-1]["step"] if records else 0), _progress(config, series)
    facts = [("Step", f"{step:,}" + (f" of {config.run.steps:,}" if config.run.steps else ""))]
    if "epoch" in series:
        total = "" if config.run.steps else f" of {config.run.epochs}"
        facts.append(("Epoch", f"{series['epoch'].values[-1]:.1f}{total}"))
    if "images_per_second" in series:
        throughput = series["images_per_second"]
        facts.append(("Images per second", charts.number(throughput.values[-1])))
        spent = _seconds(throughput, config.run.batch_size)
        facts.append(("Trained for", _duration(spent)))
        if 0.0 < done < 1.0:
            facts.append(("Left, about", _duration(spent * (1.0 - done) / done)))
    if "learning_rate" in series:
        facts.append(("Learning rate", charts.number(series["learning_rate"].values[-1])))
    return facts


def _seconds(throughput: charts.Series, batch_size: int) -> float:
    """The time that the steps took, at the throughput that was measured for them."""
    steps = np.diff([0, *throughput.steps])
    return float(np.sum(steps * batch_size / np.maximum(throughput.values, 1e-9)))


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"


def _settings(config: Config) -> dict[str, list[tuple[str, Any, bool]]]:
    """(flag, value, whether it is the default) of each setting, by section."""
    values, defaults = config.flat(), Config().flat()
    sections: dict[str, list[tuple[str, Any, bool]]] = {}
    for section, name, _ in all_settings():
        row = (flag(name), values[name], values[name] == defaults[name])
        sections.setdefault(section, []).append(row)
    return sections
