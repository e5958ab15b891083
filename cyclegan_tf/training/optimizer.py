"""Adam with one kernel per variable.

Keras's Adam makes about ten small operations per variable, which is a tenth of the whole step for
small pictures (docs/performance.md). The arithmetic is the same; the tests compare the two.
"""

from __future__ import annotations

import tensorflow as tf

from cyclegan_tf.config import OptimizerConfig

EPSILON = 1e-8


class Adam(tf.Module):
    """Adam (Kingma and Ba 2015) over a fixed list of float32 variables.

    Make it inside the strategy's scope. Its moments are variables from the start, so a checkpoint
    can be restored at once.

    Args:
        config: the betas.
        variables: the tf.Variables that are trained.
    """

    def __init__(
        self, config: OptimizerConfig, variables: list[tf.Variable], name: str | None = None
    ) -> None:
        super().__init__(name=name)
        self.config = config
        self.trained = list(variables)
        self.first_moments = [self._moment(variable, "first") for variable in self.trained]
        self.second_moments = [self._moment(variable, "second") for variable in self.trained]

    @staticmethod
    def _moment(variable: tf.Variable, name: str) -> tf.Variable:
        return tf.Variable(tf.zeros(variable.shape), trainable=False, name=name)

    def apply(self, gradients: list[tf.Tensor], rate: tf.Tensor, step: tf.Tensor) -> None:
        """Updates the variables; called in cross-replica context with gradients already summed.

        Args:
            gradients: one per variable, per replica and equal on all.
            rate: float32 scalar, the learning rate.
            step: int64 scalar, steps taken before this one; those that were not finite count.
        """
        strategy = tf.distribute.get_strategy()
        count = tf.cast(step + 1, tf.float32)
        powers = (tf.pow(self.config.beta_1, count), tf.pow(self.config.beta_2, count))
        for variable, first, second, gradient in zip(
            self.trained, self.first_moments, self.second_moments, gradients
        ):
            strategy.extended.update(
                variable, self._update, args=(first, second, gradient, rate, *powers), group=False
            )

    def _update(self, variable, first, second, gradient, rate, power_1, power_2) -> None:
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=first.handle,
            v=second.handle,
            beta1_power=power_1,
            beta2_power=power_2,
            lr=rate,
            beta1=self.config.beta_1,
            beta2=self.config.beta_2,
            epsilon=EPSILON,
            grad=gradient,
        )
