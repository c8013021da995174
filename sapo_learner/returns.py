"""What SAPO maximises and what its critics learn: pure functions of one window of H steps in N envs.

Times run along the first dimension. An episode segment ends (`ends`) where an episode ended or the window did; the
value after step t (`next_values`) belongs to the observation after the step and before any reset, and is zero after a
failure. Xing et al., "Stabilizing Reinforcement Learning in Differentiable Multiphysics Simulation", ICLR 2025.
"""

from __future__ import annotations

import torch
from torch import Tensor


def segment_ends(done: Tensor) -> Tensor:
    """Mark where a segment ends: at the end of an episode, and in the last step of the window. done: (H, N) bool."""
    ends = done.clone()
    ends[-1] = True
    return ends


def discounts(done: Tensor, gamma: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return gamma^k, k steps after the start of the segment: 1 in the first step and after each done. (H, N)."""
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
    """Return G_t = r_t + gamma [(1 - l_t) V_{t+1} + l_t G_{t+1}], l_t = lambda inside a segment and 0 at its end.

    reward: (H, N), entropy bonus included; next_values: (H, N); done: (H, N) bool. Returns (H, N).
    """
    lambdas = torch.where(segment_ends(done), 0.0, td_lambda)
    target = torch.zeros_like(reward[0])
    targets = []
    for t in reversed(range(len(reward))):
        target = reward[t] + gamma * ((1.0 - lambdas[t]) * next_values[t] + lambdas[t] * target)
        targets.append(target)
    return torch.stack(targets[::-1])
