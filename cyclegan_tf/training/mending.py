"""What a training does when its shards turn out to be damaged, or are no longer there."""

from __future__ import annotations

import itertools
from pathlib import Path

import tensorflow as tf

from cyclegan_tf.cluster import Cluster
from cyclegan_tf.config import Config
from cyclegan_tf.data.damage import mend
from cyclegan_tf.data.shards import MENDED, Shards
from cyclegan_tf.data.sources import check_files, open_data
from cyclegan_tf.errors import UserError, first_line
from cyclegan_tf.training.checkpoints import warn
from cyclegan_tf.training.run_directory import check_data

# What TensorFlow may raise for a damaged shard.
DAMAGE = (tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.NotFoundError)


def mended(
    config: Config, run_dir: Path, error: Exception, was_sound: bool = False
) -> tuple[Shards, bool]:
    """The shards as they are after ``error``: mended, or packed again if the cache has lost them.

    Args:
        config: the settings.
        run_dir: where damaged shards are mended; each record that is left out is named.
        error: what reading raised.
        was_sound: whether no record was broken after the error before, either.

    Returns:
        What to go on with, and whether no record of it was broken.

    Raises:
        UserError: if more is broken than allowed, something else is wrong with the shards, or there
            are several workers, which cannot begin again by themselves.
        error: if it does not come from the shards.
    """
    shards = open_data(config.data.data, run_dir / MENDED)
    check_data(run_dir, config, shards)
    found = mend(shards, config.data.max_damaged)
    for damage in found:
        warn(f"{config.data.data}: {damage} is left out")
    check_files(shards)
    of_shards = found or _is_of_shards(error, shards)
    reason = f"--data {config.data.data}: could not be read ({first_line(error)})"
    # Another worker may have mended it meanwhile, so that nothing is left to be found.
    if Cluster.from_environment().workers > 1 and (of_shards or any(shards.mended.glob("*"))):
        raise UserError(
            f"{reason}; what was broken is mended; start all workers again with the same command"
        )
    if not of_shards:
        raise error
    if not found and was_sound:
        raise UserError(f"{reason}, though every record is sound; look at the disk")
    if not found:
        warn(f"{reason}, and is whole by now; going on from the last checkpoint")
    return shards, not found


def _is_of_shards(error: Exception, shards: Shards) -> bool:
    """Whether TensorFlow says so: of what else it misses or refuses, it names no shard."""
    files = map(shards.path, itertools.chain(*shards.manifest.splits.values()))
    return isinstance(error, tf.errors.DataLossError) or any(str(p) in str(error) for p in files)
