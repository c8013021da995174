"""The last part of an actor: from features to a distribution of actions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor, nn

from sapo_learner.distributions import BoundedNormal, Distribution, SquashedNormal
from sapo_learner.networks import SILU, Style, linear, trunk

LOG_STD_MIN = -5.0
LOG_STD_MAX = 2.0
FREE_LOG_STD = -1.0
"""Where a standard deviation that does not depend on the state begins: 0.37."""


class Head(nn.Module, ABC):
    """A trunk, a last layer for the mean, and for the standard deviation what the kind of distribution needs."""

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
        """gain: of the last layers. A small one makes a first policy of mean 0, whatever it sees."""
        super().__init__()
        sizes = [size_in, *hidden]
        self.trunk = trunk(sizes, generator, style)
        self.mean = linear(sizes[-1], action_dim, generator, gain=gain)
        self._make_std(lambda: linear(sizes[-1], action_dim, generator, gain=gain))

    @abstractmethod
    def _make_std(self, last_layer: Callable[[], nn.Linear]) -> None:
        """Add what the standard deviation needs; `last_layer` makes a layer like that of the mean."""

    @abstractmethod
    def forward(self, features: Tensor) -> Distribution:
        """Return the distribution of actions for features (B, size_in)."""


class SquashedHead(Head):
    """A squashed Normal whose mean and standard deviation depend on the features."""

    def _make_std(self, last_layer: Callable[[], nn.Linear]) -> None:
        self.log_std = last_layer()

    def forward(self, features: Tensor) -> SquashedNormal:
        """Return the distribution; outside of [-5, 2] the log std has no gradient."""
        hidden = self.trunk(features)
        return SquashedNormal(self.mean(hidden), self.log_std(hidden).clamp(LOG_STD_MIN, LOG_STD_MAX))


class FreeStdHead(Head):
    """A squashed Normal whose mean depends on the features and whose standard deviation is learned as it is.

    This is what "Accelerated Policy Learning with Parallel Differentiable Simulation" (Xu et al. 2022) takes.
    """

    def _make_std(self, last_layer: Callable[[], nn.Linear]) -> None:
        self.log_std = nn.Parameter(torch.full((self.mean.out_features,), FREE_LOG_STD))

    def forward(self, features: Tensor) -> SquashedNormal:
        """Return the distribution."""
        mean = self.mean(self.trunk(features))
        return SquashedNormal(mean, self.log_std.expand_as(mean))


class BoundedHead(Head):
    """A Normal with its mean in (-1, 1) and its standard deviation in (0.1, 1), for policies that are not squashed."""

    def _make_std(self, last_layer: Callable[[], nn.Linear]) -> None:
        self.std = last_layer()

    def forward(self, features: Tensor) -> BoundedNormal:
        """Return the distribution."""
        hidden = self.trunk(features)
        return BoundedNormal(self.mean(hidden).tanh(), 0.1 + 0.9 * (self.std(hidden) + 2.0).sigmoid())
