"""The one-sided training step: A to B alone, patch-wise contrast instead of cycle consistency.

Park et al. 2020, "Contrastive Learning for Unpaired Image-to-Image Translation" (CUT): a patch of
the translated picture should be told, by the generator's own encoder, from all but the patch of the
source picture at the same place.
"""

from __future__ import annotations

from functools import cached_property

import tensorflow as tf
from tensorflow import keras

from cyclegan_tf.config import Config
from cyclegan_tf.models.projector import encoder_layers
from cyclegan_tf.training import losses
from cyclegan_tf.training.distillation import Teacher
from cyclegan_tf.training.state import TrainingState
from cyclegan_tf.training.step import SEED_HISTORY_B, Metrics, TrainingStep

_SEED_PLACES = {"a": 1 << 28, "b": 1 << 29}  # of the first layer; far from the others' numbers
_APART = 1 << 16  # between layers


def make_step(
    config: Config,
    state: TrainingState,
    strategy: tf.distribute.Strategy,
    total_steps: int,
    teacher: Teacher | None = None,
) -> TrainingStep:
    """The step that the settings ask for; arguments as those of ``TrainingStep``."""
    if config.one_sided():
        return ContrastiveStep(config, state, strategy, total_steps)
    return TrainingStep(config, state, strategy, total_steps, teacher)


class ContrastiveStep(TrainingStep):
    """One update of the generator A to B, of its projector and of B's discriminator."""

    @cached_property
    def _encoder(self) -> keras.Model:
        generator = self.state.generators.ab
        return keras.Model(generator.input, encoder_layers(generator))

    @cached_property
    def _translator(self) -> keras.Model:
        """The encoder's features, and then the translation, in one pass."""
        generator = self.state.generators.ab
        return keras.Model(generator.input, [*encoder_layers(generator), generator.output])

    def metric_names(self) -> list[str]:
        """The names of the loss terms, in the order of ``nonfinite.terms``."""
        names = ["generator_ab", "contrast_a", "discriminator_b"]
        names += ["contrast_b"] if self.config.contrast.identity else []
        return names + (["penalty_b"] if self.config.losses.gradient_penalty else [])

    def generator_gradients(
        self, real_a: tf.Tensor, real_b: tf.Tensor, share: float
    ) -> tuple[list[tf.Tensor], None, tf.Tensor, Metrics]:
        """As ``TrainingStep.generator_gradients``; no A is generated.

        The gradients are those of the generator's weights and then of the projector's.
        """
        settings, variables = self.config.contrast, self.state.generator_variables()
        metrics, loss, made = {}, 0.0, {}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            # Not one batch of both: they are independent, so each has a half of the cores.
            for domain, real, weight in (("a", real_a, 1.0), ("b", real_b, settings.identity)):
                if weight:
                    *features, made[domain] = self._translator(real, training=True)
                    results = [made[domain], *self._encoder(made[domain], training=True)]
                    contrast = self._contrast([real, *features], results, domain)
                    metrics[f"contrast_{domain}"] = contrast
                    loss += settings.weight * weight * contrast
            fake_b = made["a"]
            seen = self._augmented(fake_b, 1)
            decision = self.state.networks.discriminator_b(seen, training=True)
            metrics["generator_ab"] = losses.generator_loss(self.config.losses.gan_loss, decision)
            loss += metrics["generator_ab"]
            loss *= share
        return tape.gradient(loss, variables), None, fake_b, metrics

    def discriminator_gradients(
        self,
        real_a: tf.Tensor,
        real_b: tf.Tensor,
        fake_a: None,
        fake_b: tf.Tensor,
        share: float,
    ) -> tuple[list[tf.Tensor], Metrics]:
        """The gradient of the weights of B's discriminator, learnt from the history, and terms."""
        _, history = self.state.replica_histories()
        seen = history.query(fake_b, self._seed(SEED_HISTORY_B))
        return self._judge({"b": (real_b, seen, fake_b)}, share)

    def _contrast(
        self, sources: list[tf.Tensor], results: list[tf.Tensor], domain: str
    ) -> tf.Tensor:
        """The mean over layers of the patch-contrastive loss of the results' features."""
        keys, queries = [], []
        for layer, (source, result) in enumerate(zip(sources, results)):
            batch, height, width, channels = source.shape
            seed = self._seed(_SEED_PLACES[domain] + layer * _APART)
            chances = tf.random.stateless_uniform([height * width], seed)
            patches = min(self.config.contrast.patches, height * width)
            places = tf.math.top_k(chances, patches, sorted=False).indices
            for picked, features in ((keys, source), (queries, result)):
                flat = tf.reshape(features, [batch, height * width, channels])
                picked.append(tf.gather(flat, places, axis=1))
        project, temperature = self.state.projector, self.config.contrast.temperature
        compared = zip(project(queries, training=True), project(keys, training=True))
        return tf.add_n(
            [losses.patch_contrast(query, key, temperature) for query, key in compared]
        ) / len(sources)
