"""The last part of an actor: from features to a distribution of actions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from sapo_learner.distributions import BoundedNormal, SquashedNormal
from sapo_learner.networks import SILU, Style, linear, trunk

LOG_STD_MIN = -5.0
LOG_STD_MAX = 2.0
FREE_LOG_STD = -1.0
"""Where a standard deviation that does not depend on the state begins: 0.37."""


class SquashedHead(nn.Module):
    """A squashed Normal whose mean and standard deviation depend on the features.

    gain: of both last layers. A small one makes a first policy of mean 0 and standard deviation 1, whatever it sees.
    """

    def __init__(
        self,
        size_in: int,
        hidden: Sequence[int],
        action_dim: int,
        generator: Generator,
        *,
        style: Style = SILU,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        sizes = [size_in, *hidden]
        self.trunk = trunk(sizes, generator, style)
        self.mean = linear(sizes[-1], action_dim, generator, gain=gain)
        self.log_std = linear(sizes[-1], action_dim, generator, gain=gain)

    def forward(self, features: Tensor) -> SquashedNormal:
        """Return the distribution for features (B, size); outside of [-5, 2] the log std has no gradient."""
        hidden = self.trunk(features)
        return SquashedNormal(self.mean(hidden), self.log_std(hidden).clamp(LOG_STD_MIN, LOG_STD_MAX))


class FreeStdHead(nn.Module):
    """A squashed Normal whose mean depends on the features and whose standard deviation is learned as it is.

    This is what "Accelerated Policy Learning with Parallel Differentiable Simulation" (Xu et al. 2022) takes.
    """

    def __init__(
        self,
        size_in: int,
        hidden: Sequence[int],
        action_dim: int,
        generator: Generator,
        *,
        style: Style = SILU,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        sizes = [size_in, *hidden]
        self.trunk = trunk(sizes, generator, style)
        self.mean = linear(sizes[-1], action_dim, generator, gain=gain)
        self.log_std = nn.Parameter(torch.full((action_dim,), FREE_LOG_STD))

    def forward(self, features: Tensor) -> SquashedNormal:
        """Return the distribution for features (B, size)."""
        mean = self.mean(self.trunk(features))
        return SquashedNormal(mean, self.log_std.expand_as(mean))


class BoundedHead(nn.Module):
    """A Normal with its mean in (-1, 1) and its standard deviation in (0.1, 1), for policies that are not squashed."""

    def __init__(
        self,
        size_in: int,
        hidden: Sequence[int],
        action_dim: int,
        generator: Generator,
        *,
        style: Style = SILU,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        sizes = [size_in, *hidden]
        self.trunk = trunk(sizes, generator, style)
        self.mean = linear(sizes[-1], action_dim, generator, gain=gain)
        self.std = linear(sizes[-1], action_dim, generator, gain=gain)

    def forward(self, features: Tensor) -> BoundedNormal:
        """Return the distribution for features (B, size)."""
        hidden = self.trunk(features)
        return BoundedNormal(self.mean(hidden).tanh(), 0.1 + 0.9 * (self.std(hidden) + 2.0).sigmoid())


Head = SquashedHead | FreeStdHead | BoundedHead
