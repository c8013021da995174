"""Value functions: one encoder, several independent heads on top of it; and slow copies of them."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from sapo_learner.encoders import FlatEncoder, PointEncoder
from sapo_learner.network_input import NetworkInput
from sapo_learner.networks import SILU, StackedCritics, Style


class Critics(nn.Module):
    """V_1..V_C of normalised inputs. The heads differ only by their first weights; all see the same data."""

    def __init__(
        self,
        encoder: FlatEncoder | PointEncoder,
        *,
        count: int,
        hidden: Sequence[int],
        weights: Generator,
        style: Style = SILU,
        head_gain: float = 1.0,
    ) -> None:
        """Take over `encoder`, and draw the heads' weights from `weights`, on the CPU.

        head_gain: multiplies the style's gain in the heads' last layers.
        """
        super().__init__()
        self.encoder = encoder
        self.heads = StackedCritics(
            count, encoder.size, hidden, weights, style, output_gain=head_gain * style.gain
        )

    def forward(self, inputs: NetworkInput) -> Tensor:
        """Return the values, (C, B). inputs: (B, ...)."""
        return self.heads(self.encoder(*inputs))

    @torch.no_grad()
    def raise_by(self, constant: Tensor) -> None:
        """Add a constant to each critic's values. constant: (C,)."""
        self.heads.last.bias.add_(constant.view(-1, 1, 1))


def target_of(critics: nn.Module) -> nn.Module:
    """Return a copy that no optimiser steps; `follow` makes it trail behind."""
    return copy.deepcopy(critics).requires_grad_(False)


@torch.no_grad()
def follow(target: nn.Module, online: nn.Module, *, keep: float) -> None:
    """Set each parameter of `target` to keep times itself plus (1 - keep) times that of `online`."""
    for slow, fast in zip(target.parameters(), online.parameters(), strict=True):
        slow.lerp_(fast, 1.0 - keep)
