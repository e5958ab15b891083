"""Everything that a training changes: what a checkpoint holds."""

from __future__ import annotations

from functools import cached_property

import tensorflow as tf

from cyclegan_tf.config import Config
from cyclegan_tf.models.layers import precision_scope, trainable_variables, winograd_scope
from cyclegan_tf.models.networks import Generators, build_generators, build_networks, present
from cyclegan_tf.models.projector import build_projector
from cyclegan_tf.training.devices import resolve_winograd
from cyclegan_tf.training.history import ImageHistory
from cyclegan_tf.training.optimizer import Adam


class TrainingState(tf.Module):
    """Networks, averages, optimizers, history buffers and the step counter.

    Args:
        config: the settings.
        strategy: where it all lives.
        precision: "float32" or "bfloat16"; every variable is float32 either way.
    """

    def __init__(self, config: Config, strategy: tf.distribute.Strategy, precision: str) -> None:
        super().__init__(name="training_state")
        self._config, self._precision = config, precision
        size = config.data.image_size
        by_winograd = winograd_scope(resolve_winograd(config.run))
        with strategy.scope(), precision_scope(precision), by_winograd:
            self.networks = build_networks(config, size)
            self.generators = Generators(*self.networks[:2])
            self.projector = (
                build_projector(config, self.networks.generator_ab) if config.one_sided() else None
            )
            self.averages = build_generators(config, size) if config.run.average else None
            self.generator_optimizer = Adam(config.optimizer, self.generator_variables())
            self.discriminator_optimizer = Adam(config.optimizer, self.discriminator_variables())
            self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
            # What roll-backs have left of the learning rate.
            rolls_back = config.run.on_nonfinite == "rollback"
            self.rate_factor = tf.Variable(1.0, trainable=False) if rolls_back else None
        # Not in the strategy's scope: each replica has its own pictures, so nothing is mirrored.
        self.histories_a = self._histories(config, strategy, "history_a")
        self.histories_b = self._histories(config, strategy, "history_b")

    @staticmethod
    def _histories(
        config: Config, strategy: tf.distribute.Strategy, name: str
    ) -> list[ImageHistory]:
        histories = []
        for device in strategy.extended.worker_devices:
            with tf.device(device):
                histories.append(ImageHistory(config.history, config.data.image_size, name=name))
        return histories

    def replica_histories(self) -> tuple[ImageHistory, ImageHistory]:
        """The history of A and that of B of the current replica (replica context)."""
        replica = replica_number() % len(self.histories_a)  # Other workers have the others'.
        return self.histories_a[replica], self.histories_b[replica]

    def steps_done(self) -> int:
        """Optimizer steps taken so far."""
        return int(self.step.read_value())

    def generator_variables(self) -> list[tf.Variable]:
        """The trained weights of the generators, A to B first, and of the projector, if any."""
        models = [*present(self.generators).values(), *filter(None, [self.projector])]
        return [weight for model in models for weight in trainable_variables(model)]

    def discriminator_variables(self) -> list[tf.Variable]:
        """The trained weights of the discriminators, A's first."""
        models = filter(None, self.networks[2:])
        return [weight for model in models for weight in trainable_variables(model)]

    def average_variables(self) -> list[tf.Variable]:
        """The averages of ``generator_variables``, in the same order; empty without averaging.

        The projector, whose weights come last there, has none.
        """
        models = present(self.averages).values() if self.averages else ()
        return [weight for model in models for weight in trainable_variables(model)]

    def shown_generators(self) -> Generators:
        """The generators to look at and to export: the averages where there are any."""
        return self.averages or self.generators

    def exported_generators(self) -> Generators:
        """Those in float32, as they are scored and exported, whatever they are trained in."""
        shown = self.shown_generators()
        if self._precision == "float32":
            return shown
        for copy, model in zip(present(self._copies).values(), present(shown).values()):
            for variable, value in zip(trainable_variables(copy), trainable_variables(model)):
                variable.assign(value.read_value())
        return self._copies

    @cached_property
    def _copies(self) -> Generators:
        """Made once, so that they are traced once."""
        return build_generators(self._config, self._config.data.image_size)


def replica_number() -> int:
    """The number of the current replica among those of all workers, known when it is traced."""
    return int(tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group))
