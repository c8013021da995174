"""Running mean and variance of the state terms; clouds stay as they are."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

EPSILON = 1e-5


class StateNormalizer(nn.Module):
    """Normalise states with statistics that stand still between calls of `update`.

    SAPO normalises all of an epoch with the statistics of its start, while it gathers those of the next.
    Merging moments is associative, so merging all of the epoch's at its end comes to the same, and no frozen
    copy is needed. Statistics are kept in float64; `forward` reads their float32 copies.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor
    shift: Tensor
    scale: Tensor

    def __init__(self, size: int, *, clip: float = math.inf) -> None:
        """clip: what is beyond +-clip after normalisation is cut off, without gradient."""
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(size, dtype=torch.float64))
        self.register_buffer("count", torch.ones((), dtype=torch.float64))
        self.register_buffer("shift", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    def forward(self, state: Tensor) -> Tensor:
        """Return (state - mean) / sqrt(variance + 1e-5); at first, the state as it is."""
        normalized = (state - self.shift) * self.scale
        return normalized if self.clip == math.inf else normalized.clamp(-self.clip, self.clip)

    @torch.no_grad()
    def update(self, batches: Tensor) -> None:
        """Merge the moments of B batches, each with its unbiased variance (Chan, Golub and LeVeque 1979).

        batches: (B, N, size), N states in each. The result is that of merging one batch after the other. A number
        that is not finite would spoil the statistics for good: such batches change nothing.
        """
        num_batches, size, _ = batches.shape
        means = batches.double().mean(dim=1)
        # a single state has no unbiased variance: all spread is then between the batches
        variances = batches.double().var(dim=1) if size > 1 else torch.zeros_like(means)
        count = self.count + num_batches * size
        mean = (self.count * self.mean + size * means.sum(dim=0)) / count
        spread = self.count * (self.variance + (self.mean - mean).square())
        spread += size * (variances + (means - mean).square()).sum(dim=0)
        sound = spread.isfinite().all()
        for statistic, new in ((self.mean, mean), (self.variance, spread / count), (self.count, count)):
            statistic.copy_(torch.where(sound, new, statistic))
        self.shift.copy_(self.mean)
        self.scale.copy_((self.variance + EPSILON).rsqrt())
