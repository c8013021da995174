"""All that the learner knows about a simulator: a batched environment whose step can be differentiated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from policy_runner.contract import ObsTerm

Obs = dict[str, Tensor]
"""Observation terms by name, each (num_envs, *term.shape) float32."""


@dataclass(frozen=True)
class StepResult:
    """What one control step returns. Tensors stay on the env's device; nothing here waits for it."""

    obs: Obs
    """Observation to act on next; of the new episode where an env was reset."""
    reward: Tensor
    """(num_envs,) float32, differentiable with respect to this action and all before it in the window."""
    terminated: Tensor
    """(num_envs,) bool: the episode ended by failure; the value after it is zero."""
    truncated: Tensor
    """(num_envs,) bool: the episode ended by its time limit; the value after it is V(terminal_obs)."""
    terminal_obs: Obs
    """Observation after the step and before any reset; `obs` where there was none. Keeps its gradient."""
    info: dict[str, Tensor]
    """Reward terms `reward/<name>` and event masks such as `nonfinite` (bool), (num_envs,) each, detached."""


class VecEnv(Protocol):
    """Batched environments. Gradients flow through `step` until `detach` cuts them."""

    num_envs: int
    action_dim: int
    obs_spec: tuple[ObsTerm, ...]
    max_episode_steps: int
    device: torch.device

    def reset(self) -> Obs:
        """Start a new episode in every env and return its first observation, without gradient history."""
        ...

    def step(self, action: Tensor) -> StepResult:
        """Advance every env by one control step; envs whose episode ends are reset.

        action: (num_envs, action_dim), clipped to [-1, 1].
        """
        ...

    def detach(self) -> Obs:
        """Cut the gradient history, keep the physical state, and return the observation of it."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of physical state, clocks and random state: all that a bit-exact resume needs."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave, from any device; cuts the gradient history."""
        ...
