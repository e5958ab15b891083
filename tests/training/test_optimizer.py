"""Adam with one kernel per variable against Keras's, and against the paper's formula."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from cyclegan_tf.config import OptimizerConfig
from cyclegan_tf.training.optimizer import EPSILON, Adam

SHAPES = [(3, 3, 2, 4), (4,), ()]
STEPS, RATE = 5, 0.1


def gradients_of(step: int) -> list[np.ndarray]:
    """Neither tiny nor equal, so that where epsilon stands does not matter."""
    random = np.random.default_rng(step)
    return [np.asarray(random.uniform(0.5, 2.0, shape), np.float32) for shape in SHAPES]


def starts() -> list[np.ndarray]:
    random = np.random.default_rng(99)
    return [np.asarray(random.normal(size=shape), np.float32) for shape in SHAPES]


def trained(strategy: tf.distribute.Strategy, config: OptimizerConfig) -> tuple[list, Adam]:
    """The variables after some steps under the strategy; each replica gives its share."""
    with strategy.scope():
        variables = [tf.Variable(start) for start in starts()]
        adam = Adam(config, variables)

    def replica_step(gradients, step):
        context = tf.distribute.get_replica_context()
        shares = [gradient / strategy.num_replicas_in_sync for gradient in gradients]
        total = context.all_reduce(tf.distribute.ReduceOp.SUM, shares)
        context.merge_call(lambda _, summed: adam.apply(summed, RATE, step), args=(total,))

    @tf.function
    def run(gradients, step):
        strategy.run(replica_step, args=(gradients, step))

    for step in range(STEPS):
        run(gradients_of(step), tf.constant(step, tf.int64))
    assert run.experimental_get_tracing_count() == 1
    return variables, adam


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("betas", [(0.5, 0.999), (0.9, 0.99), (0.0, 0.9)])
def test_adam_is_kerass(betas, replicas, mirrored):
    mine, _ = trained(mirrored(replicas), OptimizerConfig(beta_1=betas[0], beta_2=betas[1]))
    theirs = [tf.Variable(start) for start in starts()]
    keras_adam = keras.optimizers.Adam(RATE, *betas, epsilon=EPSILON)
    for step in range(STEPS):
        keras_adam.apply_gradients(zip(map(tf.constant, gradients_of(step)), theirs))
    for one, other, start in zip(mine, theirs, starts()):
        assert np.abs(other - start).min() > 0.1 * RATE
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("replicas", [1, 2])
def test_adam_is_the_papers_formula(replicas, mirrored):
    config = OptimizerConfig()
    mine, adam = trained(mirrored(replicas), config)
    for i, weight in enumerate(starts()):
        first = second = 0.0
        for step in range(STEPS):
            gradient = gradients_of(step)[i].astype(np.float64)
            first = config.beta_1 * first + (1 - config.beta_1) * gradient
            second = config.beta_2 * second + (1 - config.beta_2) * gradient**2
            unbiased_first = first / (1 - config.beta_1 ** (step + 1))
            unbiased_second = second / (1 - config.beta_2 ** (step + 1))
            weight = weight - RATE * unbiased_first / (np.sqrt(unbiased_second) + EPSILON)
        np.testing.assert_allclose(mine[i].numpy(), weight, atol=5e-5)
        np.testing.assert_allclose(adam.first_moments[i].numpy(), first, rtol=1e-5)
        np.testing.assert_allclose(adam.second_moments[i].numpy(), second, rtol=1e-4)


def test_every_replica_has_the_same_weights_and_moments(mirrored):
    strategy = mirrored(2)
    variables, adam = trained(strategy, OptimizerConfig())
    for variable in [*variables, *adam.first_moments, *adam.second_moments]:
        first, second = strategy.experimental_local_results(variable)
        np.testing.assert_array_equal(first.numpy(), second.numpy())


def test_a_gradient_of_zero_moves_nothing(mirrored):
    strategy = mirrored()
    with strategy.scope():
        variable = tf.Variable([1.0, 2.0])
        adam = Adam(OptimizerConfig(), [variable])
    adam.apply([tf.zeros([2])], RATE, tf.constant(0, tf.int64))
    np.testing.assert_array_equal(variable, [1.0, 2.0])


def test_moments_exist_and_are_zero_from_the_start():
    adam = Adam(OptimizerConfig(), [tf.Variable(tf.ones([2, 3])), tf.Variable(1.0)])
    assert [moment.shape for moment in adam.first_moments] == [(2, 3), ()]
    assert [moment.shape for moment in adam.second_moments] == [(2, 3), ()]
    assert not any(np.any(moment) for moment in [*adam.first_moments, *adam.second_moments])
