"""The history buffers of several machines in one checkpoint, which one of them writes."""

from __future__ import annotations

import tensorflow as tf

from cyclegan_tf.cluster import Cluster
from cyclegan_tf.config import Config
from cyclegan_tf.training.history import ImageHistory
from cyclegan_tf.training.state import TrainingState


class Histories(tf.Module):
    """The histories of A and B of every replica of every worker, for a checkpoint.

    With one worker they are the state's own. With several, each worker holds copies of all in its
    main memory: its checkpoints look the same as those of one machine with as many replicas.

    Args:
        state: the training, which has this worker's own histories.
        config: its settings.
        strategy: its strategy.
    """

    def __init__(
        self, state: TrainingState, config: Config, strategy: tf.distribute.Strategy
    ) -> None:
        super().__init__(name="histories")
        self.state, self.strategy = state, strategy
        self.size = config.history.size  # Of 0, TensorFlow would crash gathering nothing.
        own, everyone = len(state.histories_a), strategy.num_replicas_in_sync
        self.is_spread = everyone > own
        self.a, self.b = state.histories_a, state.histories_b
        if self.is_spread:
            size = config.data.image_size
            with tf.device("/cpu:0"):
                self.a, self.b = (
                    [ImageHistory(config.history, size) for _ in range(everyone)] for _ in "ab"
                )

    def gather(self) -> None:
        """Brings the copies up to date; every worker has to call it at the same step."""
        if self.is_spread and self.size:
            for copies, values in zip((self.a, self.b), self._everyone()):
                for number, copy in enumerate(copies):
                    for variable, value in zip(_variables(copy), values):
                        variable.assign(value[number])

    def scatter(self) -> None:
        """Gives the state's own histories what was restored into the copies."""
        if not self.is_spread:
            return
        own = len(self.state.histories_a)
        first = Cluster.from_environment().index * own
        for live, copies in ((self.state.histories_a, self.a), (self.state.histories_b, self.b)):
            for history, copy in zip(live, copies[first : first + own]):
                for variable, value in zip(_variables(history), _variables(copy)):
                    variable.assign(value)

    @tf.function
    def _everyone(self) -> tuple[tuple[tf.Tensor, ...], ...]:
        """For A and B, the variables of a history, each with one more axis for the replicas."""

        def own() -> tuple[tuple[tf.Tensor, ...], ...]:
            histories = self.state.replica_histories()
            return tuple(tuple(v.read_value()[None] for v in _variables(h)) for h in histories)

        return tuple(
            tuple(self.strategy.gather(value, axis=0) for value in values)
            for values in self.strategy.run(own)
        )


def _variables(history: ImageHistory) -> tuple[tf.Variable, ...]:
    return history.images, history.seen, history.queries
