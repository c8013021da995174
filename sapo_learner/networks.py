"""Perceptrons of Linear, LayerNorm and an activation, with orthogonal weights and zero biases.

Weights are drawn on the CPU from the generator given, so that a seed means the same network on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Generator, Tensor, nn

Activation = Literal["silu", "elu"]
ACTIVATIONS: tuple[Activation, ...] = ("silu", "elu")


@dataclass(frozen=True)
class Style:
    """How the layers of a network are made."""

    activation: Activation = "silu"
    """After each norm."""
    gain: float = 1.0
    """Of the orthogonal weights. With sqrt(2) the first policies are more saturated and of much lower entropy."""

    def layers(self, size_in: int, size_out: int, generator: Generator) -> list[nn.Module]:
        """Return one block: Linear, LayerNorm, activation."""
        return [
            linear(size_in, size_out, generator, gain=self.gain),
            nn.LayerNorm(size_out),
            self.activation_layer(),
        ]

    def activation_layer(self) -> nn.Module:
        """Return a new layer of the activation."""
        return nn.SiLU() if self.activation == "silu" else nn.ELU()


SILU = Style()


def linear(size_in: int, size_out: int, generator: Generator, *, gain: float = 1.0) -> nn.Linear:
    """Make a linear layer with an orthogonal weight and a zero bias."""
    layer = nn.Linear(size_in, size_out, device="meta").to_empty(device="cpu")  # draws nothing
    nn.init.orthogonal_(layer.weight, gain=gain, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def trunk(sizes: Sequence[int], generator: Generator, style: Style = SILU) -> nn.Sequential:
    """Make blocks of Linear, LayerNorm and activation from sizes[0] inputs to sizes[-1] outputs."""
    blocks = [style.layers(size_in, size_out, generator) for size_in, size_out in pairwise(sizes)]
    return nn.Sequential(*(layer for block in blocks for layer in block))


class StackedLinear(nn.Module):
    """Independent linear layers, computed as one batched product. weight: (C, in, out), bias: (C, 1, out)."""

    def __init__(
        self, count: int, size_in: int, size_out: int, generator: Generator, *, gain: float = 1.0
    ) -> None:
        super().__init__()
        layers = [linear(size_in, size_out, generator, gain=gain) for _ in range(count)]
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

    def __init__(
        self,
        count: int,
        size_in: int,
        hidden: Sequence[int],
        generator: Generator,
        style: Style = SILU,
        *,
        output_gain: float | None = None,
    ) -> None:
        """output_gain: of the last layer, where it is not the style's."""
        super().__init__()
        self.count = count
        self.activation: Activation = style.activation
        sizes = [size_in, *hidden]
        blocks: list[nn.Module] = []
        for block_in, block_out in pairwise(sizes):
            blocks += [
                StackedLinear(count, block_in, block_out, generator, gain=style.gain),
                StackedLayerNorm(count, block_out),
                style.activation_layer(),
            ]
        gain = style.gain if output_gain is None else output_gain
        self.layers = nn.Sequential(*blocks, StackedLinear(count, sizes[-1], 1, generator, gain=gain))

    @property
    def last(self) -> StackedLinear:
        """The layer that makes the values."""
        layer = self.layers[-1]
        assert isinstance(layer, StackedLinear)
        return layer

    def forward(self, features: Tensor) -> Tensor:
        """Return the values, (C, B). features: (B, size_in)."""
        return self.layers(features.expand(self.count, -1, -1)).squeeze(-1)
