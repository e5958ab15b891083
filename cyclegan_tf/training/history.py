"""The image history buffer: discriminators also learn from earlier generated pictures.

Shrivastava et al. 2017; Zhu et al. 2017, section 4: "we update the discriminators using a history
of generated images rather than the ones produced by the latest generators".
"""

from __future__ import annotations

import tensorflow as tf

from cyclegan_tf.config import HistoryConfig


class ImageHistory(tf.Module):
    """Keeps generated pictures of one domain on one replica, in variables, inside the graph.

    Args:
        config: which pictures are kept and which are handed out.
        image_size: side of the pictures.
    """

    def __init__(self, config: HistoryConfig, image_size: int, name: str | None = None) -> None:
        super().__init__(name=name)
        self.config = config
        shape = [config.size, image_size, image_size, 3]
        self.images = tf.Variable(tf.zeros(shape), trainable=False, name="images")
        self.seen = tf.Variable(0, dtype=tf.int64, trainable=False, name="seen")
        self.queries = tf.Variable(0, dtype=tf.int64, trainable=False, name="queries")

    def query(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Takes new pictures in and returns as many for the discriminator to see.

        Args:
            images: float32 [batch, size, size, 3], the newest generated pictures.
            seed: int64 [2]; every choice is a function of it and of what is kept.

        Returns:
            float32 of the same shape, some or all of them from earlier steps. A number that is not
            finite is kept and returned as 0, so that a bad step leaves nothing that would spoil
            later ones.
        """
        if not self.config.size:
            return images
        images = tf.where(tf.math.is_finite(images), images, 0.0)
        if self.config.kind == "swap":
            return self._swap(images, seed)
        return self._replace_a_run(images, seed)

    def _swap(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Each picture in turn: kept until it is full, then swapped with probability 0.5."""
        chosen = []
        for i, image in enumerate(tf.unstack(images)):
            place, coin = self._place_and_coin(seed + [i, 0])
            old = tf.gather(self.images, place)
            full = self.seen >= self.config.size
            swapped = tf.logical_and(full, coin < 0.5)
            kept = tf.where(tf.logical_or(swapped, tf.logical_not(full)), image, old)
            self.images.scatter_update(tf.IndexedSlices(kept[None], place[None]))
            self.seen.assign_add(1)
            chosen.append(tf.where(swapped, old, image))
        return tf.stack(chosen)

    def _place_and_coin(self, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        drawn = tf.random.stateless_uniform([2], seed)
        anywhere = tf.cast(drawn[0] * self.config.size, tf.int64)
        # A float32 below 1 times the size may round up to the size itself.
        anywhere = tf.minimum(anywhere, self.config.size - 1)
        return tf.where(self.seen < self.config.size, self.seen, anywhere), drawn[1]

    def _replace_a_run(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The reports' buffer: the newest replace a run of it, some steps see older ones."""
        batch, size = images.shape[0], self.config.size
        filled = tf.minimum(self.seen, size)
        older = tf.gather(self.images, self._chosen_places(batch, filled, seed))
        use_older = tf.logical_and(
            tf.equal((self.queries + 1) % self.config.every, 0), filled >= batch
        )
        chosen = tf.where(use_older, older, images)
        start = tf.random.stateless_uniform([], seed + [1, 0], 0, size - batch + 1, tf.int64)
        # While it fills, runs follow each other, the last one ending at the buffer's end.
        start = tf.where(self.seen < size, tf.minimum(self.seen, size - batch), start)
        run = start + tf.range(batch, dtype=tf.int64)
        with tf.control_dependencies([chosen]):
            self.images.scatter_update(tf.IndexedSlices(images, run))
        self.seen.assign_add(batch)
        self.queries.assign_add(1)
        return chosen

    def _chosen_places(self, batch: int, filled: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        last_start = tf.maximum(filled - batch, 0)
        if self.config.kind == "contiguous":
            start = tf.random.stateless_uniform([], seed, 0, last_start + 1, tf.int64)
            return start + tf.range(batch, dtype=tf.int64)
        places = tf.range(tf.maximum(filled, batch), dtype=tf.int64)
        return tf.random.experimental.stateless_shuffle(places, seed)[:batch]
