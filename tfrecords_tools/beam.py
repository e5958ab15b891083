"""The same build on Apache Beam: one shard is one element, on any machine that sees the folders.

Beam is imported only here, and only when --runner is given.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cyclegan_tf.errors import UserError
from tfrecords_tools import manifest
from tfrecords_tools.journal import PackedShard
from tfrecords_tools.sources import Item
from tfrecords_tools.writer import write_shard

_RECEIPT = "packed-"


class PipelineFailed(UserError):
    """The pipeline ended early; the shards that it has finished count when it is run again."""


def receipt_name(shard: str) -> str:
    """The file in which a worker leaves word of a shard that it has finished."""
    return f"{_RECEIPT}{shard}.json"


def is_receipt_name(name: str) -> bool:
    """Tells whether ``name`` is one of ``receipt_name``'s."""
    return (
        name.startswith(_RECEIPT)
        and name.endswith(".json")
        and manifest.is_shard_name(name[len(_RECEIPT) : -len(".json")])
    )


def check_runner(runner: str, options: str) -> list[str]:
    """The pipeline's flags, from a runner's name and further flags as one would type them.

    Raises:
        UserError: If Beam is not installed, or ``options`` has an open quote.
    """
    try:
        import apache_beam  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--runner {runner}: needs Apache Beam ({error}); pip install '.[beam]'"
        ) from None
    try:
        return [f"--runner={runner}", *shlex.split(options)]
    except ValueError as error:
        raise UserError(f"--runner-args {options}: cannot be taken apart ({error})") from None


def write_shards(
    plan: dict[str, list[Item]], output: Path, settings: dict[str, Any], runner: str, options: str
) -> Iterator[PackedShard]:
    """Writes the shards of ``plan`` with Apache Beam; yields them when all are done.

    Args:
        plan: The items of each shard by its file name.
        output: The folder to write to; every machine must see it under this name.
        settings: What the bytes of the shards depend on, as JSON values; among them "max_side", as
            in ``writer.write_shard``. A shard of an earlier attempt counts only if they were equal.
        runner: A runner's name, such as "DirectRunner" or "DataflowRunner".
        options: Further flags for the pipeline, as one would type them.

    Raises:
        UserError: As ``check_runner``.
        PipelineFailed: If the pipeline fails.
    """
    flags = check_runner(runner, options)
    import apache_beam
    from apache_beam.options.pipeline_options import PipelineOptions

    work = [(str(output / file), items, settings) for file, items in plan.items()]
    try:
        with apache_beam.Pipeline(options=PipelineOptions(flags)) as pipeline:
            shards = pipeline | "shards" >> apache_beam.Create(work)
            spread = shards | "spread" >> apache_beam.Reshuffle()
            _ = spread | "write" >> apache_beam.Map(_write)
    except Exception as error:  # Each runner has errors of its own.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise PipelineFailed(
            f"--runner {runner}: the pipeline failed ({lines[-1][:300]}); mend that and run the "
            "same command to go on"
        ) from error
    for file in plan:
        receipt = output / receipt_name(file)
        yield PackedShard.from_json(_read_receipt(receipt)["packed"])
        receipt.unlink()


def _write(work: tuple[str, list[Item], dict[str, Any]]) -> None:
    """Writes one shard, unless an earlier attempt has; runs on a worker."""
    path, items, settings = Path(work[0]), work[1], work[2]
    receipt = path.with_name(receipt_name(path.name))
    if receipt.exists() and _is_done(path, _read_receipt(receipt), settings):
        return
    packed = write_shard(path, items, settings["max_side"])
    content = {"settings": settings, "packed": asdict(packed)}
    manifest.write_text(receipt, json.dumps(content))


def _is_done(path: Path, receipt: dict[str, Any], settings: dict[str, Any]) -> bool:
    if receipt.get("settings") != settings:
        return False
    return PackedShard.from_json(receipt["packed"]).shard.is_intact(path.parent)


def _read_receipt(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
