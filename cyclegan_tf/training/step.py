"""The training step: one update of both generators and of both discriminators, in one graph."""

from __future__ import annotations

from collections.abc import Iterator

import tensorflow as tf

from cyclegan_tf.config import Config
from cyclegan_tf.training import losses
from cyclegan_tf.training.schedule import learning_rate
from cyclegan_tf.training.state import TrainingState

Metrics = dict  # name → float32 scalar

# One number per random choice of a step, so that no two share a seed.
_SEED_HISTORY_A, _SEED_HISTORY_B, _SEED_PENALTY_A, _SEED_PENALTY_B = range(4)


class TrainingStep:
    """Runs optimizer steps on a ``TrainingState`` under its distribution strategy.

    Args:
        config: the settings.
        state: what is trained.
        strategy: the strategy that ``state`` was made under.
        total_steps: the length of the training, for the learning rate.
    """

    def __init__(
        self,
        config: Config,
        state: TrainingState,
        strategy: tf.distribute.Strategy,
        total_steps: int,
    ) -> None:
        self.config = config
        self.state = state
        self.strategy = strategy
        self.total_steps = total_steps

    @tf.function
    def run(self, pairs: Iterator[tuple[tf.Tensor, tf.Tensor]], steps: tf.Tensor) -> Metrics:
        """Takes ``steps`` steps without returning to Python.

        Args:
            pairs: distributed batches of (A, B), float32 [batch, size, size, 3] in [-1, 1] each.
            steps: int32 scalar of at least 1.

        Returns:
            The mean of every loss term over these steps and all replicas.
        """
        totals = {name: tf.zeros([]) for name in self._metric_names()}
        for _ in tf.range(steps):  # The one body: the step is traced and optimized once.
            metrics = self._step(next(pairs))
            totals = {name: totals[name] + metrics[name] for name in totals}
        return {name: total / tf.cast(steps, tf.float32) for name, total in totals.items()}

    def _metric_names(self) -> list[str]:
        weights = self.config.losses
        kinds = ["cycle", "discriminator"]
        kinds += ["identity"] if weights.lambda_identity else []
        kinds += ["penalty"] if weights.gradient_penalty else []
        return ["generator_ab", "generator_ba", *(f"{kind}_{at}" for kind in kinds for at in "ab")]

    def _step(self, pair: tuple[tf.Tensor, tf.Tensor]) -> Metrics:
        metrics = self.strategy.run(self._replica_step, args=pair)
        self.state.step.assign_add(1)
        return {
            name: self.strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)
            for name, value in metrics.items()
        }

    def _replica_step(self, real_a: tf.Tensor, real_b: tf.Tensor) -> Metrics:
        """One step of one replica: its share of the losses, and the common update."""
        share = 1.0 / self.strategy.num_replicas_in_sync
        generator_gradients, fake_a, fake_b, metrics = self.generator_gradients(
            real_a, real_b, share
        )
        discriminator_gradients, discriminator_metrics = self.discriminator_gradients(
            real_a, real_b, fake_a, fake_b, share
        )
        context = tf.distribute.get_replica_context()
        gradients = context.all_reduce(
            tf.distribute.ReduceOp.SUM, [*generator_gradients, *discriminator_gradients]
        )
        context.merge_call(self._update, args=(gradients,))
        metrics = {**metrics, **discriminator_metrics}
        return {name: share * value for name, value in metrics.items()}

    def generator_gradients(
        self, real_a: tf.Tensor, real_b: tf.Tensor, share: float
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor, Metrics]:
        """The gradient of one summed loss, so that each generator gets both cycle terms.

        Args:
            real_a: float32 [batch, size, size, 3] in [-1, 1].
            real_b: the same of the other domain.
            share: this replica's share of the global batch.

        Returns:
            The gradients of both generators' weights, the generated A and B, and the loss terms.
        """
        networks, weights = self.state.networks, self.config.losses
        variables = self.state.generator_variables()
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            fake_b, same_b = self._translate_and_keep(networks.generator_ab, real_a, real_b)
            fake_a, same_a = self._translate_and_keep(networks.generator_ba, real_b, real_a)
            cycled_a = networks.generator_ba(fake_b, training=True)
            cycled_b = networks.generator_ab(fake_a, training=True)
            decision_a = networks.discriminator_a(fake_a, training=True)
            decision_b = networks.discriminator_b(fake_b, training=True)
            metrics = {
                "generator_ab": losses.generator_loss(weights.gan_loss, decision_b),
                "generator_ba": losses.generator_loss(weights.gan_loss, decision_a),
                "cycle_a": losses.absolute_difference(cycled_a, real_a),
                "cycle_b": losses.absolute_difference(cycled_b, real_b),
            }
            loss = metrics["generator_ab"] + metrics["generator_ba"]
            loss += weights.lambda_cycle * (metrics["cycle_a"] + metrics["cycle_b"])
            if weights.lambda_identity:
                metrics["identity_a"] = losses.absolute_difference(same_a, real_a)
                metrics["identity_b"] = losses.absolute_difference(same_b, real_b)
                loss += weights.lambda_identity * (metrics["identity_a"] + metrics["identity_b"])
            loss *= share
        return tape.gradient(loss, variables), fake_a, fake_b, metrics

    def _translate_and_keep(
        self, generator, source: tf.Tensor, target: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """The translated source and, for the identity loss, the target put through as it is."""
        if not self.config.losses.lambda_identity:
            return generator(source, training=True), None
        translated, kept = tf.split(
            generator(tf.concat([source, target], axis=0), training=True), 2
        )
        return translated, kept

    def discriminator_gradients(
        self,
        real_a: tf.Tensor,
        real_b: tf.Tensor,
        fake_a: tf.Tensor,
        fake_b: tf.Tensor,
        share: float,
    ) -> tuple[list[tf.Tensor], Metrics]:
        """The gradients of both discriminators' weights, learnt from the history, and the terms."""
        networks, state = self.state.networks, self.state
        replica = _replica_number() % len(state.histories_a)
        seen_a = state.histories_a[replica].query(fake_a, self._seed(_SEED_HISTORY_A))
        seen_b = state.histories_b[replica].query(fake_b, self._seed(_SEED_HISTORY_B))
        variables = state.discriminator_variables()
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            loss_a, metrics_a = self._discriminator_loss(
                networks.discriminator_a, real_a, seen_a, fake_a, _SEED_PENALTY_A
            )
            loss_b, metrics_b = self._discriminator_loss(
                networks.discriminator_b, real_b, seen_b, fake_b, _SEED_PENALTY_B
            )
            loss = share * (loss_a + loss_b)
        metrics = {f"{name}_a": value for name, value in metrics_a.items()}
        metrics.update({f"{name}_b": value for name, value in metrics_b.items()})
        return tape.gradient(loss, variables), metrics

    def _discriminator_loss(
        self, discriminator, real: tf.Tensor, seen: tf.Tensor, fake: tf.Tensor, seed_number: int
    ) -> tuple[tf.Tensor, Metrics]:
        weights = self.config.losses
        decisions = discriminator(tf.concat([real, seen], axis=0), training=True)
        decision_real, decision_seen = tf.split(decisions, 2)
        loss = losses.discriminator_loss(weights.gan_loss, decision_real, decision_seen)
        loss *= weights.discriminator_weight
        metrics = {"discriminator": loss}
        if weights.gradient_penalty:
            penalty = losses.gradient_penalty(
                lambda images: discriminator(images, training=False),
                real,
                tf.stop_gradient(fake),
                self._seed(seed_number),
            )
            loss += weights.gradient_penalty * penalty
            metrics["penalty"] = penalty
        return loss, metrics

    def _seed(self, number: int) -> tf.Tensor:
        """int64 [2], different for every run seed, replica, choice and step."""
        choice = (self.config.run.seed << 32) + ((4 * _replica_number() + number) << 16)
        return tf.stack([tf.constant(choice, tf.int64), self.state.step.read_value()])

    def _update(self, strategy: tf.distribute.Strategy, gradients: list[tf.Tensor]) -> None:
        """Applies the summed gradients (cross-replica context)."""
        state, step = self.state, self.state.step
        rate = learning_rate(self.config, step.read_value(), self.total_steps)
        generators = len(state.generator_variables())
        state.generator_optimizer.apply(gradients[:generators], rate, step.read_value())
        rate *= self.config.optimizer.discriminator_rate
        state.discriminator_optimizer.apply(gradients[generators:], rate, step.read_value())
        if self.config.run.average:
            self._update_averages(strategy)

    def _update_averages(self, strategy: tf.distribute.Strategy) -> None:
        """Moves the averages toward the weights, faster at the start."""
        step = tf.cast(self.state.step.read_value(), tf.float32)
        decay = tf.minimum(self.config.run.average, (1.0 + step) / (10.0 + step))
        for average, weight in zip(
            self.state.average_variables(), self.state.generator_variables()
        ):
            strategy.extended.update(
                average,
                lambda mean, new: mean.assign_sub((1.0 - decay) * (mean - new)),
                args=(weight,),
                group=False,
            )


def _replica_number() -> int:
    """The number of the current replica, known when the graph is traced."""
    return int(tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group))
