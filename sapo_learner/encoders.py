"""From a normalised `NetworkInput` to features: as it is for flat tasks, through a small PointNet for clouds.

The point encoder follows "3D Diffusion Policy" (Ze et al. 2024), with SiLU or ELU instead of ReLU, an
activation after the projection, and a choice of the pooling: SAPO's published runs take the mean, DP3 the maximum.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor, nn

from sapo_learner.network_input import ObsLayout
from sapo_learner.networks import SILU, Style, trunk

Pool = Literal["mean", "max"]
POOLS: tuple[Pool, ...] = ("mean", "max")

POINT_SIZES = (64, 128, 256)
POINT_FEATURES = 64
STATE_FEATURES = 128


class FlatEncoder(nn.Module):
    """The state itself, for tasks without a cloud."""

    def __init__(self, state_size: int) -> None:
        super().__init__()
        self.size = state_size

    def forward(self, state: Tensor, cloud: Tensor | None = None) -> Tensor:
        """Return `state`, (B, state_size), unchanged."""
        return state


class PointEncoder(nn.Module):
    """192 features: 64 of the cloud, in which the order of its points plays no part, and 128 of the state."""

    size = POINT_FEATURES + STATE_FEATURES

    def __init__(
        self,
        state_size: int,
        pool: Pool,
        generator: Generator,
        style: Style = SILU,
    ) -> None:
        super().__init__()
        self.pool = pool
        self.points = trunk([3, *POINT_SIZES], generator, style)
        self.projection = trunk([POINT_SIZES[-1], POINT_FEATURES], generator, style)
        self.state = trunk([state_size, STATE_FEATURES], generator, style)

    def forward(self, state: Tensor, cloud: Tensor) -> Tensor:
        """Return (B, 192). state: (B, state_size) normalised, cloud: (B, P, 3) raw [m]."""
        points = self.points(cloud)
        pooled = points.mean(dim=-2) if self.pool == "mean" else points.amax(dim=-2)
        return torch.cat([self.projection(pooled), self.state(state)], dim=-1)


def make_encoder(
    layout: ObsLayout,
    pool: Pool,
    generator: Generator,
    style: Style = SILU,
) -> FlatEncoder | PointEncoder:
    """Make the encoder that the observations call for."""
    if layout.cloud_term is None:
        return FlatEncoder(layout.state_size)
    return PointEncoder(layout.state_size, pool, generator, style)
