"""The training step: one update of both generators and of both discriminators, in one graph."""

from __future__ import annotations

from collections.abc import Iterator

import tensorflow as tf

from cyclegan_tf.config import Config
from cyclegan_tf.models.ordering import after
from cyclegan_tf.models.recompute import Recomputed
from cyclegan_tf.training import losses
from cyclegan_tf.training.augmentation import augment
from cyclegan_tf.training.devices import resolve_jit
from cyclegan_tf.training.distillation import Imitation, Teacher
from cyclegan_tf.training.schedule import identity_weight, learning_rate
from cyclegan_tf.training.state import TrainingState, replica_number

Metrics = dict  # name → float32 scalar

# One number per random choice of a step, so that no two share a seed.
_SEED_HISTORY_A, SEED_HISTORY_B = range(2)
_SEED_PENALTY = {"a": 2, "b": 3}
_SEED_AUGMENT = 1 << 30  # of the first of six augmentations; far from the others' numbers


class TrainingStep:
    """Runs optimizer steps on a ``TrainingState`` under its distribution strategy.

    Args:
        config: the settings.
        state: what is trained.
        strategy: the strategy that ``state`` was made under.
        total_steps: the length of the training, for the learning rate.
        teacher: whose generators are imitated, if any.
    """

    def __init__(
        self,
        config: Config,
        state: TrainingState,
        strategy: tf.distribute.Strategy,
        total_steps: int,
        teacher: Teacher | None = None,
    ) -> None:
        self.config = config
        self.state = state
        self.strategy = strategy
        self.total_steps = total_steps
        self.imitation = Imitation(config, teacher, state.networks) if teacher else None
        self.nonfinite = NonFinite(len(self.metric_names()))
        generators = state.generators
        if config.run.recompute:
            generators = [Recomputed(generator) for generator in generators]
        self._generator_ab, self._generator_ba = generators
        if resolve_jit(config.run):
            self.generator_gradients = tf.function(self.generator_gradients, jit_compile=True)
            self._judge = tf.function(self._judge, jit_compile=True)

    @tf.function(autograph=False)
    def run(self, pairs: Iterator[tuple[tf.Tensor, tf.Tensor]], steps: tf.Tensor) -> Metrics:
        """Takes ``steps`` steps without returning to Python.

        A step whose loss or gradient is not finite changes no weight, no average and no moment of
        the optimizers; ``nonfinite`` remembers it.

        Args:
            pairs: batches of (A, B), float32 [batch, size, size, 3] in [-1, 1] each, for all
                replicas of this worker.
            steps: int32 scalar of at least 1.

        Returns:
            The mean of every loss term over the finite ones of these steps and all replicas; NaN if
            there is none.
        """
        names = self.metric_names()

        def one_more(done: tf.Tensor, totals: tf.Tensor, finite_steps: tf.Tensor) -> tuple:
            terms, finite = self._step(next(pairs))
            totals += tf.where(finite, terms, 0.0)
            return done + 1, totals, finite_steps + tf.cast(finite, tf.float32)

        # One body: the step is traced and optimized once. Written out, as nothing else here needs
        # AutoGraph, which would look through all code for such loops.
        _, totals, finite_steps = tf.while_loop(
            lambda done, _totals, _finite_steps: done < steps,
            one_more,
            (0, tf.zeros([len(names)]), 0.0),
        )
        return dict(zip(names, tf.unstack(totals / finite_steps)))

    def metric_names(self) -> list[str]:
        """The names of the loss terms, in the order of ``nonfinite.terms``."""
        weights = self.config.losses
        kinds = ["cycle"] if weights.lambda_cycle else []
        kinds += ["discriminator"]
        kinds += ["identity"] if weights.lambda_identity else []
        kinds += ["penalty"] if weights.gradient_penalty else []
        names = ["generator_ab", "generator_ba", *(f"{kind}_{at}" for kind in kinds for at in "ab")]
        return names + (self.imitation.names() if self.imitation else [])

    def _step(self, pair: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """One step of all replicas: loss terms [n], and whether all of it was finite."""
        results = self.strategy.run(self._replica_step, args=pair)
        # They were summed over the replicas, so that every replica has the same.
        terms, finite = (self.strategy.experimental_local_results(each)[0] for each in results)
        self.nonfinite.note(self.state.step.read_value(), terms, finite)
        self.state.step.assign_add(1)
        return terms, finite

    def _replica_step(self, real_a: tf.Tensor, real_b: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """One step of one replica: its pictures' share of the losses, and the common update."""
        share = 1.0 / self.strategy.num_replicas_in_sync
        real_a, real_b = self._own(real_a), self._own(real_b)
        generator_gradients, fake_a, fake_b, metrics = self.generator_gradients(
            real_a, real_b, share
        )
        discriminator_gradients, discriminator_metrics = self.discriminator_gradients(
            real_a, real_b, fake_a, fake_b, share
        )
        metrics.update(discriminator_metrics)
        terms = share * tf.stack([metrics[name] for name in self.metric_names()])
        context = tf.distribute.get_replica_context()
        *gradients, terms = context.all_reduce(
            tf.distribute.ReduceOp.SUM, [*generator_gradients, *discriminator_gradients, terms]
        )
        finite = _all_finite([*gradients, terms])
        context.merge_call(self._update_if, args=(finite, gradients))
        return terms, finite

    def _own(self, batch: tf.Tensor) -> tf.Tensor:
        """This replica's pictures among those of all replicas of this worker.

        A plain iterator and this slice do what a distributed iterator does, which is why there is
        none: the end of one waits for up to a minute for tf.data's autotuning thread.
        """
        each = self.config.run.batch_size // self.strategy.num_replicas_in_sync
        first = replica_number() * each % batch.shape[0]
        return batch[first : first + each]

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
        variables = self.state.generator_variables()
        if self.config.run.recompute:
            return self._gradients_one_by_one(variables, real_a, real_b, share)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            loss_ab, fake_b, metrics = self._direction_loss("ab", real_a, real_b)
            loss_ba, fake_a, other_metrics = self._direction_loss("ba", real_b, real_a)
            loss = share * (loss_ab + loss_ba)
        return tape.gradient(loss, variables), fake_a, fake_b, {**metrics, **other_metrics}

    def _gradients_one_by_one(
        self, variables: list[tf.Variable], real_a: tf.Tensor, real_b: tf.Tensor, share: float
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor, Metrics]:
        """The same, the identity loss and each direction with passes and gradients of its own.

        What one keeps for its backward pass is then not kept beside what the others keep.
        """
        gradients, metrics, fakes = [], {}, []
        if self.config.losses.lambda_identity:
            gradients, metrics = self._identity_gradients(real_a, real_b, share)
        for direction, source, target in (("ab", real_a, real_b), ("ba", real_b, real_a)):
            source, target = after(gradients, source, target)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(variables)
                loss, fake, terms = self._direction_loss(direction, source, target)
                loss *= share
            # Without the way back, a direction does not touch the other generator.
            added = tape.gradient(loss, variables, unconnected_gradients="zero")
            gradients = [one + new for one, new in zip(gradients, added)] if gradients else added
            metrics.update(terms)
            fakes.append(fake)
        fake_b, fake_a = after(gradients, *fakes)
        return gradients, fake_a, fake_b, metrics

    def _direction_loss(
        self, direction: str, source: tf.Tensor, target: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, Metrics]:
        """What the generators pay for a direction and back, the translated source, and the terms.

        Args:
            direction: "ab" or "ba".
            source: pictures to translate, float32 [batch, size, size, 3] in [-1, 1].
            target: the same of the other domain, which the generator should leave as they are.
        """
        weights = self.config.losses
        here, there = direction
        forward, back = self._generator_ab, self._generator_ba
        if direction == "ba":
            forward, back = back, forward
        fake, same = self._translate_and_keep(forward, source, target)
        discriminator = getattr(self.state.networks, f"discriminator_{there}")
        decision = discriminator(self._augmented(fake, "ab".index(there)), training=True)
        loss = losses.generator_loss(weights.gan_loss, decision)
        metrics = {f"generator_{direction}": loss}
        if weights.lambda_cycle:
            cycle = losses.absolute_difference(back(fake, training=True), source)
            metrics[f"cycle_{here}"] = cycle
            loss += weights.lambda_cycle * cycle
        if same is not None:
            identity = losses.absolute_difference(same, target)
            metrics[f"identity_{there}"] = identity
            loss += self._identity_weight() * identity
        if self.imitation:
            terms = self.imitation.terms(direction, source, fake)
            metrics.update(terms)
            loss += self.imitation.loss(terms)
        return loss, fake, metrics

    def _identity_gradients(
        self, real_a: tf.Tensor, real_b: tf.Tensor, share: float
    ) -> tuple[list[tf.Tensor], Metrics]:
        """The gradients of the identity loss alone, and its terms."""
        variables, weight = self.state.generator_variables(), self._identity_weight()

        def taken() -> list[tf.Tensor]:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(variables)
                of_a = losses.absolute_difference(self._generator_ba(real_a, training=True), real_a)
                of_b = losses.absolute_difference(self._generator_ab(real_b, training=True), real_b)
                loss = share * weight * (of_a + of_b)
            return [*tape.gradient(loss, variables), of_a, of_b]

        def left_out() -> list[tf.Tensor]:
            return [*map(tf.zeros_like, variables), tf.constant(0.0), tf.constant(0.0)]

        skips = self._skips_identity()
        *gradients, of_a, of_b = tf.cond(weight > 0.0, taken, left_out) if skips else taken()
        return gradients, {"identity_a": of_a, "identity_b": of_b}

    def _identity_weight(self) -> tf.Tensor:
        return identity_weight(self.config, self.state.step.read_value(), self.total_steps)

    def _translate_and_keep(
        self, generator, source: tf.Tensor, target: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """The translated source and, for the identity loss, the target put through as it is."""
        if not self.config.losses.lambda_identity or self.config.run.recompute:
            return generator(source, training=True), None
        if not self._skips_identity():
            return self._both(generator, source, target)
        return tf.cond(
            self._identity_weight() > 0.0,
            lambda: self._both(generator, source, target),
            # An identity loss of zero, without its pass.
            lambda: (generator(source, training=True), target),
        )

    def _skips_identity(self) -> bool:
        return self.config.losses.identity_every > 1 or self.config.losses.identity_decay > 0.0

    @staticmethod
    def _both(generator, source: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
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
        history_a, history_b = self.state.replica_histories()
        seen_a = history_a.query(fake_a, self._seed(_SEED_HISTORY_A))
        seen_b = history_b.query(fake_b, self._seed(SEED_HISTORY_B))
        return self._judge({"a": (real_a, seen_a, fake_a), "b": (real_b, seen_b, fake_b)}, share)

    def _judge(
        self, shown: dict[str, tuple[tf.Tensor, tf.Tensor, tf.Tensor]], share: float
    ) -> tuple[list[tf.Tensor], Metrics]:
        """The same from each domain's real, remembered and newest generated pictures."""
        variables, loss, metrics = self.state.discriminator_variables(), 0.0, {}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            for domain, pictures in shown.items():
                discriminator = getattr(self.state.networks, f"discriminator_{domain}")
                domain_loss, terms = self._discriminator_loss(
                    discriminator, *pictures, _SEED_PENALTY[domain]
                )
                loss += share * domain_loss
                metrics.update({f"{name}_{domain}": value for name, value in terms.items()})
        return tape.gradient(loss, variables), metrics

    def _augmented(self, images: tf.Tensor, number: int) -> tf.Tensor:
        """What a discriminator sees of pictures; the numbers tell a step's places apart."""
        policy = self.config.discriminator.augmentations()
        if not policy:
            return images
        return augment(images, policy, self._seed(_SEED_AUGMENT + number * (1 << 16)))

    def _discriminator_loss(
        self, discriminator, real: tf.Tensor, seen: tf.Tensor, fake: tf.Tensor, seed_number: int
    ) -> tuple[tf.Tensor, Metrics]:
        weights = self.config.losses
        shown = self._augmented(tf.concat([real, seen], axis=0), seed_number)
        decisions = discriminator(shown, training=True)
        decision_real, decision_seen = tf.split(decisions, 2)
        loss = losses.discriminator_loss(weights.gan_loss, decision_real, decision_seen)
        loss *= weights.discriminator_weight
        metrics = {"discriminator": loss}
        if weights.gradient_penalty:
            shown_real, _ = tf.split(shown, 2)
            penalty = self._penalty(discriminator, shown_real, fake, seed_number)
            loss += weights.gradient_penalty * penalty
            metrics["penalty"] = penalty
        return loss, metrics

    def _penalty(
        self, discriminator, real: tf.Tensor, fake: tf.Tensor, seed_number: int
    ) -> tf.Tensor:
        def judge(images: tf.Tensor) -> tf.Tensor:
            return discriminator(images, training=False)

        if self.config.losses.gradient_penalty_at == "real":
            return losses.real_penalty(judge, real)
        fake = self._augmented(tf.stop_gradient(fake), seed_number + 2)
        return losses.interpolates_penalty(judge, real, fake, self._seed(seed_number))

    def _seed(self, number: int) -> tf.Tensor:
        """int64 [2], different for every run seed, replica, choice and step."""
        choice = (self.config.run.seed << 32) + ((4 * replica_number() + number) << 16)
        return tf.stack([tf.constant(choice, tf.int64), self.state.step.read_value()])

    def _update_if(
        self, strategy: tf.distribute.Strategy, finite: tf.Tensor, gradients: list[tf.Tensor]
    ) -> None:
        """Applies the gradients, unless something is not finite (cross-replica context)."""

        def update() -> tf.Tensor:
            self._update(strategy, gradients)
            return tf.constant(True)

        here = strategy.experimental_local_results(finite)[0]  # They are equal everywhere.
        tf.cond(here, update, lambda: tf.constant(False))

    def _update(self, strategy: tf.distribute.Strategy, gradients: list[tf.Tensor]) -> None:
        """Applies the summed gradients (cross-replica context)."""
        state, step = self.state, self.state.step
        rate = learning_rate(self.config, step.read_value(), self.total_steps)
        if state.rate_factor is not None:
            rate *= state.rate_factor.read_value()
        generators = len(state.generator_variables())
        state.generator_optimizer.apply(gradients[:generators], rate, step.read_value())
        rate *= self.config.optimizer.discriminator_rate
        state.discriminator_optimizer.apply(gradients[generators:], rate, step.read_value())
        if self.config.run.average:
            self._update_averages(strategy)

    def _update_averages(self, strategy: tf.distribute.Strategy) -> None:
        """Moves the averages toward the weights, faster at the start from random ones."""
        step, decay = tf.cast(self.state.step.read_value(), tf.float32), self.config.run.average
        if not self.config.run.init_from:
            decay = tf.minimum(decay, (1.0 + step) / (10.0 + step))
        for average, weight in zip(
            self.state.average_variables(), self.state.generator_variables()
        ):
            strategy.extended.update(
                average,
                lambda mean, new: mean.assign_sub((1.0 - decay) * (mean - new)),
                args=(weight,),
                group=False,
            )


class NonFinite(tf.Module):
    """What the graph remembers of steps whose loss or gradient was not finite.

    Attributes:
        total: how many there have been.
        in_row: how many there have been in a row, up to now.
        longest: the most there have been in a row.
        step: the one that made the longest row, counted from 0.
        terms: its loss terms.
    """

    def __init__(self, terms: int) -> None:
        super().__init__(name="nonfinite")
        self.total, self.in_row, self.longest, self.step = (
            tf.Variable(0, dtype=tf.int64, trainable=False) for _ in range(4)
        )
        self.terms = tf.Variable(tf.zeros([terms]), trainable=False)

    def note(self, step: tf.Tensor, terms: tf.Tensor, finite: tf.Tensor) -> None:
        """Counts one step."""
        in_row = tf.where(finite, tf.constant(0, tf.int64), self.in_row + 1)
        longer = in_row > self.longest
        self.total.assign_add(tf.cast(in_row > 0, tf.int64))
        self.in_row.assign(in_row)
        self.longest.assign(tf.maximum(self.longest, in_row))
        self.step.assign(tf.where(longer, step, self.step))
        self.terms.assign(tf.where(longer, terms, self.terms))

    def forget(self) -> None:
        """Starts counting anew."""
        for variable in (self.total, self.in_row, self.longest, self.step):
            variable.assign(0)


def _all_finite(tensors: list[tf.Tensor]) -> tf.Tensor:
    """Whether every number is finite; the sum of all squares beyond float32's range counts as not.

    One kernel per tensor and no copy, unlike tf.math.is_finite.
    """
    return tf.math.is_finite(tf.add_n([tf.nn.l2_loss(tensor) for tensor in tensors]))
