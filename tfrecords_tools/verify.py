"""Checks a folder of TFRecord shards: ``python -m tfrecords_tools.verify DIR``.

Compares every shard with the manifest and decodes every image; names what is broken.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cyclegan_tf.environment import start_tensorflow
from cyclegan_tf.errors import check_local, fail, first_line, run_command
from tfrecords_tools.manifest import Manifest, Shard, file_sha256, is_shard_name
from tfrecords_tools.schema import DOMAIN, FILENAME, HEIGHT, IMAGE, WIDTH, domain_of, parse_example


def verify(folder: Path, *, quiet: bool = False) -> list[str]:
    """Returns what is wrong with the shards in ``folder``, one line each; empty if all is well.

    Each line names a shard and, where one is broken, its first broken record (counted from 0).

    Args:
        folder: A folder that ``build`` has written.
        quiet: Whether to do without a progress bar.

    Raises:
        UserError: If there is no manifest or it is damaged, or ``folder`` is a URL.
    """
    from tqdm import tqdm

    check_local(folder, advice=", for verify; copy the shards to one")
    folder = Path(folder)
    found = Manifest.load(folder)
    start_tensorflow()
    shards = [(split, shard) for split, entries in found.splits.items() for shard in entries]
    known = {shard.file for _, shard in shards}
    stray = sorted(p.name for p in folder.iterdir() if is_shard_name(p.name))
    problems = [f"{name}: is not in the manifest" for name in stray if name not in known]
    total = sum(shard.examples for _, shard in shards)
    with tqdm(desc="verifying", total=total, leave=False, disable=quiet, unit=" images") as bar:
        for split, shard in shards:
            problems += _problems_of(folder, split, shard)
            bar.update(shard.examples)
    return problems


def _problems_of(folder: Path, split: str, shard: Shard) -> Iterator[str]:
    path = folder / shard.file
    try:
        size, digest = path.stat().st_size, file_sha256(path)
    except OSError as error:
        yield f"{shard.file}: cannot be read ({error.strerror})"
        return
    if size != shard.bytes:
        yield f"{shard.file}: has {size:,} bytes, {shard.bytes:,} in the manifest"
    elif digest != shard.sha256:
        yield f"{shard.file}: its SHA-256 is not that of the manifest"
    yield from _broken_record(path, split, shard)


def _broken_record(path: Path, split: str, shard: Shard) -> Iterator[str]:
    """Yields the first thing wrong with the records of a shard."""
    import tensorflow as tf

    records = tf.data.TFRecordDataset(str(path))
    # The order is kept, so the number of good records before an error is the broken one's number.
    examples = records.map(_decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    number, names = 0, set()
    try:
        for example in examples.as_numpy_iterator():
            problem = _wrong_field(example, split, names)
            if problem:
                yield f"{path.name}: record {number} {problem}"
                return
            number += 1
    except tf.errors.OpError as error:
        yield f"{path.name}: record {number} is broken ({first_line(error)})"
        return
    if number != shard.examples:
        yield f"{path.name}: has {number:,} records, {shard.examples:,} in the manifest"


def _decode(serialized: Any) -> dict[str, Any]:
    """Parses a record and puts the shape of the decoded image in place of the image."""
    import tensorflow as tf

    example = parse_example(serialized)
    image = tf.io.decode_image(example[IMAGE], channels=3, expand_animations=False)
    return {**example, IMAGE: tf.shape(image)}


def _wrong_field(example: dict[str, Any], split: str, names: set[bytes]) -> str | None:
    name, domain = example[FILENAME], example[DOMAIN]
    shown = name.decode(errors="replace")
    stated = [int(example[HEIGHT]), int(example[WIDTH]), 3]
    if list(example[IMAGE]) != stated:
        return f"({shown}) decodes to {list(map(int, example[IMAGE]))}, not {stated} as it says"
    if domain != domain_of(split).encode():
        return f"({shown}) is of domain {domain.decode(errors='replace')!r}, in {split}"
    if not name or name in names:
        return f"has the file name {shown!r}, which is empty or in the shard already"
    names.add(name)
    return None


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status: 0 if all is well, 1 if not."""
    parser = argparse.ArgumentParser(
        prog="python -m tfrecords_tools.verify",
        description="Checks TFRecord shards against their manifest, decodes every image, and names"
        " what is broken. Exit status: 0 all is well, 1 something is broken, 2 wrong use.",
    )
    parser.error = fail  # one line instead of the whole usage
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder of shards")
    folder = parser.parse_args(argv).folder
    problems = verify(folder)
    if problems:
        print("\n".join(problems))
        print(f"{folder}: {len(problems)} problem{'s' * (len(problems) > 1)}; build it again")
        return 1
    found = Manifest.load(folder)
    counts = ", ".join(f"{split} {found.count(split):,}" for split in found.splits)
    print(f"{folder}: all is well: {counts}")
    return 0


if __name__ == "__main__":
    run_command(main)
