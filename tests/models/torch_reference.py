"""The networks and the training step of `paper` in PyTorch, to be compared with ours.

Written from the paper (Zhu et al. 2017, 4 and 7.2) and the measures of the authors' PyTorch code.
The convolutions before a norm have the biases that theirs have and ours leave out.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


def generator(filters: int, blocks: int, dropout: bool = False) -> nn.Sequential:
    """c7s1-f, d2f, d4f, R4f × blocks, u2f, uf, c7s1-3."""
    modules = [nn.ReflectionPad2d(3), *_layer(nn.Conv2d(3, filters, 7))]
    for wide in (filters, 2 * filters):
        modules += _layer(nn.Conv2d(wide, 2 * wide, 3, stride=2, padding=1))
    modules += [Residual(4 * filters, dropout) for _ in range(blocks)]
    for wide in (4 * filters, 2 * filters):
        modules += _layer(
            nn.ConvTranspose2d(wide, wide // 2, 3, stride=2, padding=1, output_padding=1)
        )
    return nn.Sequential(*modules, nn.ReflectionPad2d(3), nn.Conv2d(filters, 3, 7), nn.Tanh())


def discriminator(filters: int, strided: int = 3) -> nn.Sequential:
    """C64-C128-C256-C512 and a decision, every 4×4 convolution padded by one pixel."""
    modules = [nn.Conv2d(3, filters, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    for i in range(1, strided + 1):
        stride = 2 if i < strided else 1
        convolution = nn.Conv2d(filters, 2 * filters, 4, stride=stride, padding=1)
        modules += [convolution, nn.InstanceNorm2d(2 * filters), nn.LeakyReLU(0.2)]
        filters *= 2
    return nn.Sequential(*modules, nn.Conv2d(filters, 1, 4, padding=1))


class Residual(nn.Module):
    """x + f(x), two 3×3 convolutions with reflection."""

    def __init__(self, filters: int, dropout: bool = False) -> None:
        super().__init__()
        first, second = nn.Conv2d(filters, filters, 3), nn.Conv2d(filters, filters, 3)
        pad, between = nn.ReflectionPad2d(1), [nn.Dropout(0.5)] if dropout else []
        self.conv_block = nn.Sequential(pad, *_layer(first), *between, pad, *_layer(second)[:2])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv_block(x)


def _layer(convolution: nn.Module) -> list[nn.Module]:
    return [convolution, nn.InstanceNorm2d(convolution.out_channels), nn.ReLU()]


def generator_losses(networks, real_a, real_b) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The terms, their one sum (LSGAN + 10 cycle + 5 identity), by our names."""
    to_b, to_a, judge_a, judge_b = networks
    fake_b, fake_a = to_b(real_a), to_a(real_b)
    terms = {
        "generator_ab": ((judge_b(fake_b) - 1) ** 2).mean(),
        "generator_ba": ((judge_a(fake_a) - 1) ** 2).mean(),
        "cycle_a": (to_a(fake_b) - real_a).abs().mean(),
        "cycle_b": (to_b(fake_a) - real_b).abs().mean(),
        "identity_a": (to_a(real_a) - real_a).abs().mean(),
        "identity_b": (to_b(real_b) - real_b).abs().mean(),
    }
    weights = {"generator": 1, "cycle": 10, "identity": 5}
    return terms, sum(weights[name.split("_")[0]] * term for name, term in terms.items())


def discriminator_losses(networks, real_a, real_b) -> dict[str, torch.Tensor]:
    """Half the least squares of each discriminator, on the newest pictures."""
    to_b, to_a, judge_a, judge_b = networks
    with torch.no_grad():
        fake_b, fake_a = to_b(real_a), to_a(real_b)

    def half(judge, real, fake):
        return 0.5 * (((judge(real) - 1) ** 2).mean() + (judge(fake) ** 2).mean())

    return {
        "discriminator_a": half(judge_a, real_a, fake_a),
        "discriminator_b": half(judge_b, real_b, fake_b),
    }


def pairs_of_layers(model: nn.Module, keras_model) -> list[tuple]:
    """(ours in PyTorch, Keras's) for every convolution, from input to output."""
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    convolutions = [module for module in model.modules() if isinstance(module, kinds)]
    layers = [layer for layer in keras_model.layers if hasattr(layer, "kernel")]
    assert len(convolutions) == len(layers)
    return list(zip(convolutions, layers))


@torch.no_grad()
def take_weights(model: nn.Module, keras_model) -> None:
    """Copies a Keras model's weights; biases that it lacks, cancelled by a norm, become noise."""
    for convolution, layer in pairs_of_layers(model, keras_model):
        kernel, *bias = (torch.from_numpy(weight) for weight in layer.get_weights())
        convolution.weight.copy_(kernel.permute(3, 2, 0, 1))
        convolution.bias.copy_(bias[0] if bias else torch.randn(convolution.bias.shape))


def gradients(model: nn.Module, keras_model) -> list[np.ndarray]:
    """The gradients of the weights that the Keras model has, in its order and layout."""
    found = []
    for convolution, layer in pairs_of_layers(model, keras_model):
        found.append(convolution.weight.grad.permute(2, 3, 1, 0).numpy())
        if layer.use_bias:
            found.append(convolution.bias.grad.numpy())
    return found


def to_torch(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(images).transpose(0, 3, 1, 2).copy())


def to_numpy(images: torch.Tensor) -> np.ndarray:
    return images.detach().numpy().transpose(0, 2, 3, 1)
