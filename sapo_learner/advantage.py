"""What model-free learners make of a window's rewards. Time runs along the first dimension."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


@torch.no_grad()
def gae(
    reward: Tensor, values: Tensor, next_values: Tensor, done: Tensor, *, gamma: float, gae_lambda: float
) -> Tensor:
    """Return generalised advantage estimates, (H, N), (Schulman et al. 2016, equation 16), which no reset passes.

    values: (H, N) before each step; next_values: (H, N) after it and before any reset, zero after a failure;
    done: (H, N) bool.
    """
    errors = reward + gamma * next_values - values
    carry = gamma * gae_lambda * (~done).to(reward.dtype)
    advantage = torch.zeros_like(reward[0])
    advantages = []
    for t in reversed(range(len(reward))):
        advantage = errors[t] + carry[t] * advantage
        advantages.append(advantage)
    return torch.stack(advantages[::-1])


class NStep(NamedTuple):
    """Rewards of up to n steps, and how their continuation is found."""

    reward: Tensor
    """(H, N) sum of gamma^k r_{t+k} over the steps taken together."""
    discount: Tensor
    """(H, N) weight of the value after the last of them; zero after a failure."""
    last: Tensor
    """(H, N) int64: row of the last of them; the value is that of the observation after it, before any reset."""


@torch.no_grad()
def n_step(reward: Tensor, done: Tensor, has_value: Tensor, *, gamma: float, steps: int) -> NStep:
    """Take up to `steps` steps together; fewer where an episode or the window ends before.

    reward: (H, N); done, has_value: (H, N) bool, the latter false after a failure.
    """
    horizon = len(reward)
    rows = torch.arange(horizon, device=reward.device)[:, None].expand(reward.shape)
    total, discount, last = torch.zeros_like(reward), torch.ones_like(reward), rows.clone()
    going = torch.ones_like(done)
    for k in range(min(steps, horizon)):
        inside = slice(0, horizon - k)  # from these rows, the k-th next one is still in the window
        total[inside] += torch.where(going[inside], discount[inside] * reward[k:], 0.0)
        discount[inside] = torch.where(going[inside], gamma * discount[inside], discount[inside])
        last[inside] = torch.where(going[inside], rows[k:], last[inside])
        going[inside] &= ~done[k:]
    ends_well = has_value.gather(0, last)
    return NStep(total, torch.where(ends_well, discount, 0.0), last)
