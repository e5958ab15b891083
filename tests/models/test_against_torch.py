"""Layers, networks and one whole training step of `paper` beside PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from cyclegan_tf.models import layers
from cyclegan_tf.models.networks import build_networks
from cyclegan_tf.presets import make_config
from cyclegan_tf.training.state import TrainingState
from cyclegan_tf.training.step import TrainingStep

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from tests.models import torch_reference as reference  # noqa: E402

FILTERS, BLOCKS, SIZE = 4, 2, 32


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread():
    """Keeps torch from fighting TensorFlow over the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def config():
    return make_config(
        "paper",
        image_size=SIZE,
        generator_filters=FILTERS,
        generator_blocks=BLOCKS,
        discriminator_filters=FILTERS,
        history_size=0,
    )


def torch_twins(networks):
    """PyTorch networks with the weights of ours."""
    twins = [reference.generator(FILTERS, BLOCKS) for _ in range(2)]
    twins += [reference.discriminator(FILTERS) for _ in range(2)]
    for twin, model in zip(twins, networks):
        reference.take_weights(twin, model)
    return twins


def widened(networks) -> None:
    """Larger weights than at the start, so that no gradient drowns in the epsilon of a norm."""
    for model in networks:
        model.set_weights([10 * weight + 0.01 for weight in model.get_weights()])


@pytest.mark.parametrize("size", [15, 16])
@pytest.mark.parametrize(
    ("kernel", "pad", "stride"),
    [(3, 1, 1), (3, 1, 2), (4, 1, 1), (4, 1, 2), (7, 0, 1), (7, 3, 1), (2, 0, 2)],
)
@pytest.mark.parametrize("bias", [True, False])
def test_convolution(kernel, pad, stride, bias, size, pictures):
    layer = layers.Conv2D(
        5, kernel, pad=pad, strides=stride, use_bias=bias, bias_initializer="ones"
    )
    images = pictures(2, size)
    mine = layer(images)
    weight = torch.from_numpy(layer.get_weights()[0]).permute(3, 2, 0, 1)
    right = functional.conv2d(
        reference.to_torch(images), weight, torch.ones(5) if bias else None, stride, pad
    )
    np.testing.assert_allclose(mine, reference.to_numpy(right), atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_transposed_convolution(bias, pictures):
    layer = layers.Conv2DTranspose(5, use_bias=bias, bias_initializer="ones")
    images = pictures(2)
    mine = layer(images)
    weight = torch.from_numpy(layer.get_weights()[0]).permute(3, 2, 0, 1)
    right = functional.conv_transpose2d(
        reference.to_torch(images), weight, torch.ones(5) if bias else None, 2, 1, 1
    )
    np.testing.assert_allclose(mine, reference.to_numpy(right), atol=1e-5)


def test_the_reference_has_the_authors_parameters():
    def count(model):
        return sum(weight.numel() for weight in model.parameters())

    assert count(reference.generator(64, 9)) == 11_378_179
    assert count(reference.discriminator(64)) == 2_764_737


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("training", [True, False])
def test_equal_weights_give_equal_outputs(config, batch, training, pictures):
    networks = build_networks(config, SIZE)
    widened(networks)
    images = pictures(batch, SIZE)
    for model, twin in zip(networks, torch_twins(networks)):
        right = reference.to_numpy(twin(reference.to_torch(images)))
        assert right.std() > 0.01
        np.testing.assert_allclose(model(images, training=training), right, atol=1e-4)


@pytest.mark.parametrize("start", ["as built", "widened"])
def test_one_training_step_is_pytorchs(config, mirrored, pictures, start):
    strategy = mirrored()
    state = TrainingState(config, strategy, "float32")
    if start == "widened":
        widened(state.networks)
    step = TrainingStep(config, state, strategy, 100)
    real_a, real_b = pictures(1, SIZE), pictures(1, SIZE, seed=1)
    mine = strategy.run(both_gradients, args=(step, real_a, real_b))

    twins = torch_twins(state.networks)
    images = reference.to_torch(real_a), reference.to_torch(real_b)
    terms, loss = reference.generator_losses(twins, *images)
    loss.backward(inputs=[weight for twin in twins[:2] for weight in twin.parameters()])
    judged = reference.discriminator_losses(twins, *images)
    sum(judged.values()).backward()

    terms = {name: float(term.detach()) for name, term in {**terms, **judged}.items()}
    assert {name: float(term) for name, term in mine[1].items()} == pytest.approx(terms, rel=1e-3)
    right = [
        gradient
        for twin, model in zip(twins, state.networks)
        for gradient in reference.gradients(twin, model)
    ]
    assert len(mine[0]) == len(right)
    for one, other in zip(mine[0], right):
        assert np.linalg.norm(one - other) <= 1e-3 * np.linalg.norm(other)


def both_gradients(step: TrainingStep, real_a: tf.Tensor, real_b: tf.Tensor):
    """The gradients of all four networks, and every loss term."""
    first, fake_a, fake_b, metrics = step.generator_gradients(real_a, real_b, 1.0)
    second, more = step.discriminator_gradients(real_a, real_b, fake_a, fake_b, 1.0)
    return [*first, *second], {**metrics, **more}
