"""Value functions: one encoder, several independent heads on top of it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator, Tensor, nn

from sapo_learner.encoders import FlatEncoder, PointEncoder
from sapo_learner.network_input import NetworkInput
from sapo_learner.networks import StackedCritics


class Critics(nn.Module):
    """V_1..V_C of normalised inputs. The heads differ only by their first weights; all see the same data."""

    def __init__(
        self, encoder: FlatEncoder | PointEncoder, *, count: int, hidden: Sequence[int], weights: Generator
    ) -> None:
        """Take over `encoder`, and draw the heads' weights from `weights`, on the CPU."""
        super().__init__()
        self.encoder = encoder
        self.heads = StackedCritics(count, encoder.size, hidden, weights)

    def forward(self, inputs: NetworkInput) -> Tensor:
        """Return the values, (C, B). inputs: (B, ...)."""
        return self.heads(self.encoder(*inputs))
