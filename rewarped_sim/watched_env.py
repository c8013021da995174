"""An environment that shows every step to someone, without the one who steps it knowing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from rewarped_sim.env import Env
from sapo_learner.vec_env import Obs, StepResult


class WatchedEnv:
    """A `VecEnv` that passes everything on to `env` and calls `on_step` after each reset and step."""

    def __init__(self, env: Env, on_step: Callable[[Env, StepResult | None], None]) -> None:
        """on_step: gets the env and the step's result, None after a reset."""
        self.env = env
        self.num_envs = env.num_envs
        self.action_dim = env.action_dim
        self.obs_spec = env.obs_spec
        self.max_episode_steps = env.max_episode_steps
        self.device = env.device
        self._on_step = on_step

    def reset(self) -> Obs:
        """Reset, then show."""
        obs = self.env.reset()
        self._on_step(self.env, None)
        return obs

    def step(self, action: Tensor) -> StepResult:
        """Step, then show."""
        result = self.env.step(action)
        self._on_step(self.env, result)
        return result

    def detach(self) -> Obs:
        """Pass on."""
        return self.env.detach()

    def state_dict(self) -> dict[str, Any]:
        """Pass on."""
        return self.env.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Pass on."""
        self.env.load_state_dict(state)
