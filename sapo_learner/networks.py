"""The perceptrons of SAPO: Linear, LayerNorm and SiLU, with orthogonal weights of gain 1 and zero biases.

The gain matters: with sqrt(2) the first policies are more saturated and start with a much lower entropy.
Weights are drawn on the CPU from the generator given, so that a seed means the same network on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn

LOG_STD_MIN = -5.0
LOG_STD_MAX = 2.0


def linear(size_in: int, size_out: int, generator: Generator, *, gain: float = 1.0) -> nn.Linear:
    """Make a linear layer with an orthogonal weight and a zero bias."""
    layer = nn.Linear(size_in, size_out, device="meta").to_empty(device="cpu")  # draws nothing
    nn.init.orthogonal_(layer.weight, gain=gain, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def trunk(sizes: Sequence[int], generator: Generator) -> nn.Sequential:
    """Make blocks of Linear, LayerNorm and SiLU from sizes[0] inputs to sizes[-1] outputs."""
    blocks: list[nn.Module] = []
    for size_in, size_out in pairwise(sizes):
        blocks += [linear(size_in, size_out, generator), nn.LayerNorm(size_out), nn.SiLU()]
    return nn.Sequential(*blocks)


class ActorHead(nn.Module):
    """From features to the mean and the logarithm of the standard deviation of an unsquashed Normal.

    gain: of both last layers. A small one makes a first policy of mean 0 and standard deviation 1, whatever it sees.
    """

    def __init__(
        self, size_in: int, hidden: Sequence[int], action_dim: int, generator: Generator, *, gain: float = 1.0
    ) -> None:
        super().__init__()
        sizes = [size_in, *hidden]
        self.trunk = trunk(sizes, generator)
        self.mean = linear(sizes[-1], action_dim, generator, gain=gain)
        self.log_std = linear(sizes[-1], action_dim, generator, gain=gain)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log std, (B, action_dim) each; outside of [-5, 2] the log std has no gradient."""
        hidden = self.trunk(features)
        return self.mean(hidden), self.log_std(hidden).clamp(LOG_STD_MIN, LOG_STD_MAX)


class StackedLinear(nn.Module):
    """Independent linear layers, computed as one batched product. weight: (C, in, out), bias: (C, 1, out)."""

    def __init__(self, count: int, size_in: int, size_out: int, generator: Generator) -> None:
        super().__init__()
        layers = [linear(size_in, size_out, generator) for _ in range(count)]
        self.weight = nn.Parameter(torch.stack([layer.weight.detach().T for layer in layers]))
        self.bias = nn.Parameter(torch.zeros(count, 1, size_out))

    def forward(self, x: Tensor) -> Tensor:
        """Return (C, B, out). x: (C, B, in)."""
        return torch.baddbmm(self.bias, x, self.weight)


class StackedLayerNorm(nn.Module):
    """LayerNorm over the last dimension, with scale and offset for each member of the stack."""

    def __init__(self, count: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(count, 1, size))
        self.bias = nn.Parameter(torch.zeros(count, 1, size))

    def forward(self, x: Tensor) -> Tensor:
        """Return the same shape. x: (C, B, size)."""
        return nn.functional.layer_norm(x, x.shape[-1:]) * self.weight + self.bias


class StackedCritics(nn.Module):
    """Independent value networks on the same features, as one network with stacked weights."""

    def __init__(self, count: int, size_in: int, hidden: Sequence[int], generator: Generator) -> None:
        super().__init__()
        self.count = count
        sizes = [size_in, *hidden]
        blocks: list[nn.Module] = []
        for block_in, block_out in pairwise(sizes):
            blocks += [
                StackedLinear(count, block_in, block_out, generator),
                StackedLayerNorm(count, block_out),
                nn.SiLU(),
            ]
        self.layers = nn.Sequential(*blocks, StackedLinear(count, sizes[-1], 1, generator))

    def forward(self, features: Tensor) -> Tensor:
        """Return the values, (C, B). features: (B, size_in)."""
        return self.layers(features.expand(self.count, -1, -1)).squeeze(-1)
