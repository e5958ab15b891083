"""A folder of shards, as training, evaluation and exports see it; needs no TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cyclegan_tf.config import Config
from tfrecords_tools.manifest import Manifest, Shard
from tfrecords_tools.paths import AnyPath, as_path

MENDED = "mended_shards"  # where a run keeps copies of damaged shards


@dataclass(frozen=True)
class Shards:
    """A folder of shards and its manifest.

    Attributes:
        folder: where the shards are; it may be remote.
        manifest: what they hold.
        mended: a folder whose shards stand in for the damaged ones of the same name.
        part: (number, of how many) of the training pictures that this worker reads.
    """

    folder: AnyPath
    manifest: Manifest
    mended: Path | None = None
    part: tuple[int, int] = (0, 1)

    @classmethod
    def open(cls, folder: str | AnyPath) -> Shards:
        """Reads the manifest of ``folder``; UserError if there is none or it is damaged."""
        return cls(as_path(folder), Manifest.load(folder))

    def is_parted_by_file(self, split: str) -> bool:
        """Whether workers share out whole shards of a split, rather than its records.

        Every worker needs as many, so that no picture is seen more often than another, and one that
        is not empty.
        """
        shards, parts = self.manifest.splits.get(split, ()), self.part[1]
        return len(shards) % parts == 0 and all(
            any(one.examples for one in shards[i::parts]) for i in range(parts)
        )

    def part_count(self, split: str) -> int:
        """The number of pictures of a split that this worker trains on."""
        number, parts = self.part
        if self.is_parted_by_file(split):
            return sum(one.examples for one in self.manifest.splits[split][number::parts])
        return len(range(number, self.manifest.count(split), parts))

    def path(self, shard: Shard) -> AnyPath:
        """The file of a shard."""
        mended = self.mended / shard.file if self.mended else None
        return mended if mended is not None and mended.exists() else self.folder / shard.file

    def paths(self, split: str) -> list[AnyPath]:
        """The files of a split, in order; empty if it is not there."""
        return [self.path(shard) for shard in self.manifest.splits.get(split, ())]

    def has_truth(self, config: Config) -> bool:
        """Whether test pictures of equal names show the same, by nature or as a run was told."""
        return self.manifest.paired or config.evaluate.paired

    def pairs_per_epoch(self) -> int:
        """max(|A|, |B|) of the training splits."""
        return max(self.manifest.count("trainA"), self.manifest.count("trainB"))
