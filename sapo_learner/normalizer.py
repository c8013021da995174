"""Running mean and variance of the state terms; clouds stay as they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EPSILON = 1e-5


class StateNormalizer(nn.Module):
    """Normalise states with statistics that stand still between calls of `update`.

    SAPO normalises a whole epoch with the statistics of its start, while it already gathers new ones. Merging moments
    is associative, so gathering them all at the end of the epoch gives the same numbers, and one set of statistics,
    constant in the graph, is enough. Sums are kept in float64; what `forward` reads is cached in float32.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor
    shift: Tensor
    scale: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(size, dtype=torch.float64))
        self.register_buffer("count", torch.ones((), dtype=torch.float64))
        self.register_buffer("shift", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    def forward(self, state: Tensor) -> Tensor:
        """Return (state - mean) / sqrt(variance + 1e-5), unclipped; before the first update, the state itself."""
        return (state - self.shift) * self.scale

    @torch.no_grad()
    def update(self, batches: Tensor) -> None:
        """Merge the moments of several batches, each with its unbiased variance, as Welford and Chan et al. do.

        batches: (B, N, size), the N states of each of B batches. The result is that of B merges one after the other.
        """
        batches = batches.double()
        num_batches, size, _ = batches.shape
        means = batches.mean(dim=1)
        # the unbiased variance of a single state does not exist; its spread then comes from the means alone
        variances = batches.var(dim=1) if size > 1 else torch.zeros_like(means)
        count = self.count + num_batches * size
        mean = (self.count * self.mean + size * means.sum(dim=0)) / count
        spread = (variances + (means - mean).square()).sum(dim=0) * size
        self.variance.copy_((self.count * (self.variance + (self.mean - mean).square()) + spread) / count)
        self.mean.copy_(mean)
        self.count.copy_(count)
        self.shift.copy_(self.mean)
        self.scale.copy_((self.variance + EPSILON).rsqrt())
