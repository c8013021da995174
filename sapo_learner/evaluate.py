"""Returns of whole episodes under a policy that does not learn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from sapo_learner.policy import Policy
from sapo_learner.statistics import mean_ci95
from sapo_learner.vec_env import Obs, VecEnv


class Zero:
    """Do nothing: the action is always zero."""

    def __init__(self, action_dim: int) -> None:
        self.action_dim = action_dim

    def act(self, obs: Obs, deterministic: bool) -> Tensor:
        """Return zeros, (num_envs, action_dim)."""
        first = next(iter(obs.values()))
        return torch.zeros(len(first), self.action_dim, device=first.device)

    def begin(self, started: Tensor) -> None:
        """Nothing is remembered from one step to the next."""


class Random:
    """Actions drawn uniformly from [-1, 1]."""

    def __init__(self, action_dim: int, *, seed: int) -> None:
        self.action_dim = action_dim
        self._generator = Generator().manual_seed(seed)

    def act(self, obs: Obs, deterministic: bool) -> Tensor:
        """Return random numbers, (num_envs, action_dim), the same on every device; there is no other mode."""
        first = next(iter(obs.values()))
        actions = torch.empty(len(first), self.action_dim)
        actions.uniform_(-1.0, 1.0, generator=self._generator)
        return actions.to(first.device)

    def begin(self, started: Tensor) -> None:
        """Nothing is remembered from one step to the next."""


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    """What `evaluate` measured; tensors are on the CPU."""

    returns: Tensor
    """(episodes_per_env, num_envs) float64, undiscounted sums of rewards."""
    lengths: Tensor
    """(episodes_per_env, num_envs) int64, control steps."""

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    @property
    def ci95(self) -> float:
        """Half width of the 95 % confidence interval of the mean over these episodes; NaN for one episode."""
        return mean_ci95(self.returns.numpy()).half_width

    def text(self, digits: int) -> str:
        """Return the mean with its interval; without one where a single episode has none."""
        interval = f" ± {self.ci95:.{digits}f}" if self.returns.numel() > 1 else ""
        return f"{self.mean:.{digits}f}{interval}"

    def __str__(self) -> str:
        return f"{self.text(2)} ({self.returns.numel()} episodes)"


@torch.no_grad()
def evaluate(
    env: VecEnv, policy: Policy, *, episodes_per_env: int = 1, deterministic: bool = True
) -> EvalResult:
    """Run the same number of episodes in every env, so that short episodes are not counted more often.

    The env is reset at the start, and at the end it is what it was before. Its random state too: two policies
    evaluated one after the other meet the same starts.
    """
    before = env.state_dict()
    try:
        return _run_episodes(env, policy, episodes_per_env, deterministic)
    finally:
        env.load_state_dict(before)


def _run_episodes(env: VecEnv, policy: Policy, episodes_per_env: int, deterministic: bool) -> EvalResult:
    returns = torch.zeros(episodes_per_env, env.num_envs, dtype=torch.float64)
    lengths = torch.zeros(episodes_per_env, env.num_envs, dtype=torch.int64)
    episode = torch.zeros(env.num_envs, dtype=torch.int64)
    obs = env.reset()
    policy.begin(torch.ones(env.num_envs, dtype=torch.bool, device=env.device))
    while (running := episode < episodes_per_env).any():
        step = env.step(policy.act(obs, deterministic))
        obs = step.obs
        envs = running.nonzero().squeeze(-1)
        returns[episode[envs], envs] += step.reward.cpu().double()[envs]
        lengths[episode[envs], envs] += 1
        done = step.terminated | step.truncated
        policy.begin(done)
        episode += done.cpu()
    return EvalResult(returns=returns, lengths=lengths)
