"""What SAPO maximises and what its critics learn: pure functions of one window of H steps in N envs.

Time runs along the first dimension. A segment ends where an episode did, or the window. `next_values` holds,
for each step, the value of the observation after it and before any reset; zero after a failure.
"""

from __future__ import annotations

import torch
from torch import Tensor


def segment_ends(done: Tensor) -> Tensor:
    """Mark where a segment ends: with an episode, or with the last step of the window. done: (H, N) bool."""
    ends = done.clone()
    ends[-1] = True
    return ends


def discounts(done: Tensor, gamma: float, dtype: torch.dtype) -> Tensor:
    """Return gamma^k, k steps after the start of the segment, (H, N). done: (H, N) bool."""
    current = torch.ones_like(done[0], dtype=dtype)
    result = []
    for done_t in done:
        result.append(current)
        current = torch.where(done_t, 1.0, gamma * current)
    return torch.stack(result)


def actor_objective(reward: Tensor, next_values: Tensor, done: Tensor, *, gamma: float) -> Tensor:
    """Return J = 1/(N H) sum_n sum_t c_t [r_t + 1{segment ends} gamma V_{t+1}], to be maximised.

    reward: (H, N), entropy bonus included; next_values: (H, N); done: (H, N) bool. c_t are the `discounts`.
    """
    ending = reward + gamma * next_values
    return (discounts(done, gamma, reward.dtype) * torch.where(segment_ends(done), ending, reward)).mean()


@torch.no_grad()
def td_lambda_targets(
    reward: Tensor, next_values: Tensor, done: Tensor, *, gamma: float, td_lambda: float
) -> Tensor:
    """Return G_t = r_t + gamma [(1 - l_t) V_{t+1} + l_t G_{t+1}]; l_t is lambda, or 0 at a segment's end.

    reward: (H, N), entropy bonus included; next_values: (H, N); done: (H, N) bool. Returns (H, N).
    """
    lambdas = td_lambda * (~segment_ends(done)).to(reward.dtype)
    target = torch.zeros_like(reward[0])
    targets = []
    for t in reversed(range(len(reward))):
        target = reward[t] + gamma * ((1.0 - lambdas[t]) * next_values[t] + lambdas[t] * target)
        targets.append(target)
    return torch.stack(targets[::-1])
