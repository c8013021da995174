"""Distributions of actions: a Normal squashed into (-1, 1) by tanh, and one that is merely clipped."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


class SquashedNormal(NamedTuple):
    """The distribution of tanh(u), u ~ N(mean, exp(log_std)^2), independent in each of the d dimensions."""

    mean: Tensor
    """(..., d) of u, before tanh."""
    log_std: Tensor
    """(..., d) of u, before tanh."""

    def pre_tanh(self, noise: Tensor) -> Tensor:
        """Turn standard normal `noise` (..., d) into samples u; gradients flow to mean and log_std."""
        return self.mean + self.log_std.exp() * noise

    def sample(self, noise: Tensor) -> Tensor:
        """Turn standard normal `noise` (..., d) into actions; gradients flow to mean and log_std."""
        return self.pre_tanh(noise).tanh()

    def mode(self) -> Tensor:
        """Return the deterministic action tanh(mean), (..., d)."""
        return self.mean.tanh()

    def log_prob(self, pre_tanh: Tensor) -> Tensor:
        """Return the log density of the action tanh(u) at the stored sample u (..., d), summed over d.

        The action itself is not enough: inverting a tanh near 1 loses all digits.
        """
        noise = (pre_tanh - self.mean) * (-self.log_std).exp()
        normal = -0.5 * noise.square() - self.log_std - _HALF_LOG_2PI
        return (normal - log_tanh_slope(pre_tanh)).sum(dim=-1)

    def entropy(self, noise: Tensor) -> Tensor:
        """Estimate the entropy as the mean of -log_prob over reparameterised samples.

        noise: (samples, ..., d) standard normal, independent of the noise of the action taken.
        Returns (...,) [nat]; gradients flow through the samples to mean and log_std. Per dimension the
        entropy is at most ln 2, that of the uniform distribution.
        """
        return -self.log_prob(self.pre_tanh(noise)).mean(dim=0)


class BoundedNormal(NamedTuple):
    """The distribution N(mean, std^2), independent in each of the d dimensions; the env clips what is beyond +-1."""

    mean: Tensor
    """(..., d), within (-1, 1)."""
    std: Tensor
    """(..., d)."""

    def sample(self, noise: Tensor) -> Tensor:
        """Turn standard normal `noise` (..., d) into unclipped actions; gradients flow to mean and std."""
        return self.mean + self.std * noise

    def mode(self) -> Tensor:
        """Return the deterministic action, (..., d)."""
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the log density of an unclipped action (..., d), summed over d."""
        noise = (action - self.mean) / self.std
        return (-0.5 * noise.square() - self.std.log() - _HALF_LOG_2PI).sum(dim=-1)

    def entropy(self) -> Tensor:
        """Return the entropy [nat] of the unclipped distribution, (...,)."""
        return (self.std.log() + _HALF_LOG_2PI + 0.5).sum(dim=-1)

    def kl_from(self, old: BoundedNormal) -> Tensor:
        """Return the divergence KL(old | self) [nat], (...,)."""
        squares = old.std.square() + (old.mean - self.mean).square()
        return ((self.std / old.std).log() + squares / (2.0 * self.std.square()) - 0.5).sum(dim=-1)


Distribution = SquashedNormal | BoundedNormal


def log_tanh_slope(u: Tensor) -> Tensor:
    """Return log(d tanh(u) / du) without overflow or cancellation, elementwise."""
    return 2.0 * (math.log(2.0) - u - softplus(-2.0 * u))


def normalized_entropy(entropy: Tensor, target: float) -> Tensor:
    """Shift and scale an entropy so that the target, which is negative, becomes 0 and -target becomes 1."""
    return (entropy - target) / (-2.0 * target)


def standard_normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw standard normal numbers on the generator's device."""
    return torch.randn(shape, generator=generator, device=generator.device)
