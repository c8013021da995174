"""APG: Analytic Policy Gradient, back-propagation through short windows of a simulator and nothing beyond them.

The plain use of a differentiable simulator (for example Freeman et al., "Brax", 2021). One epoch: act for a window of H
steps, and step up the gradient of the reward in it. No critic says what comes after, so a policy learns what pays
within H steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sapo_learner.encoders import POOLS, Pool
from sapo_learner.heads import FreeStdHead
from sapo_learner.learner import Epoch, Learner
from sapo_learner.networks import Style
from sapo_learner.optimization import ascend, linear, make_adamw, set_learning_rate
from sapo_learner.parallel import SINGLE, Ranks
from sapo_learner.policy import make_policy
from sapo_learner.returns import actor_objective
from sapo_learner.rollout import Window, roll_out
from sapo_learner.settings import (
    require_betas,
    require_fraction,
    require_one_of,
    require_positive,
    require_sizes,
)
from sapo_learner.vec_env import VecEnv

STYLE = Style("elu", math.sqrt(2.0))


@dataclass(frozen=True, kw_only=True)
class ApgConfig:
    """Settings of APG; the defaults are those of the published comparison."""

    horizon: int = 32
    """H, control steps in a window."""
    gamma: float = 0.99
    """Discount per control step, from the start of the window or of the episode."""
    reward_scale: float = 1.0
    """Multiplies the reward."""
    actor_hidden: tuple[int, ...] = (512, 256)
    """Widths of the actor's hidden layers."""
    pool: Pool = "mean"
    """How the point encoder pools over points: mean or max."""
    head_gain: float = 1.0
    """Gain of the actor's last layers at first; a small one begins without a preference for any action."""
    actor_learning_rate: float = 2e-3
    """At the first epoch; falls linearly to `final_learning_rate` after the last planned one."""
    final_learning_rate: float = 1e-5
    """After the last planned epoch."""
    betas: tuple[float, float] = (0.7, 0.95)
    """Decay rates of Adam's two moments."""
    max_grad_norm: float = 1.0
    """Clip of the gradient norm over all parameters."""
    max_skipped_updates: int = 10
    """Epochs in a row that may meet a non-finite gradient before `TrainingDiverged`."""

    def __post_init__(self) -> None:
        require_sizes(self, "actor_hidden")
        require_betas(self)
        require_positive(
            self,
            "horizon",
            "reward_scale",
            "head_gain",
            "actor_learning_rate",
            "final_learning_rate",
            "max_grad_norm",
            "max_skipped_updates",
        )
        require_fraction(self, "gamma")
        require_one_of(self, "pool", POOLS)


class Apg(Learner):
    """The learner: a policy and its optimiser."""

    def __init__(
        self, env: VecEnv, config: ApgConfig, *, seed: int, planned_epochs: int, ranks: Ranks = SINGLE
    ) -> None:
        super().__init__(
            env,
            seed=seed,
            planned_epochs=planned_epochs,
            max_skipped_updates=config.max_skipped_updates,
            ranks=ranks,
        )
        self.config = config
        self.policy = make_policy(
            env.obs_spec,
            env.action_dim,
            head=FreeStdHead,
            hidden=config.actor_hidden,
            pool=config.pool,
            style=STYLE,
            head_gain=config.head_gain * STYLE.gain,
            weights=self._weights,
            samples=self._samples,
        ).to(env.device)
        self._optimizer = make_adamw(
            [self.policy.encoder, self.policy.head],
            learning_rate=config.actor_learning_rate,
            betas=config.betas,
            weight_decay=0.0,
        )

    def _epoch(self, should_stop: Callable[[], bool]) -> Epoch:
        config = self.config
        rate = linear(config.actor_learning_rate, config.final_learning_rate, self.progress)
        set_learning_rate(self._optimizer, rate)
        window = self._roll_out(should_stop)
        objective = self._objective(window)
        metrics = ascend(self._optimizer, objective, max_norm=config.max_grad_norm, ranks=self.ranks)
        self.policy.normalizer.update(self.ranks.gather(window.states, dim=1))
        return Epoch(window.reward, window.done, window.info, {**metrics, "actor/learning_rate": rate})

    def look(self) -> Tensor:
        """Return what the actor would climb in the next window, a scalar. Nothing changes."""
        with self._back_again():
            return self._objective(self._roll_out(lambda: False))

    def _roll_out(self, should_stop: Callable[[], bool]) -> Window:
        noise = self._noise(self.config.horizon)
        return roll_out(self.env, self.policy, action_noise=noise, should_stop=should_stop)

    def _objective(self, window: Window) -> Tensor:
        reward, nothing_after = window.reward * self.config.reward_scale, torch.zeros_like(window.reward)
        return actor_objective(reward, nothing_after, window.done, gamma=self.config.gamma)

    def _parts(self) -> dict[str, Any]:
        return {"policy": self.policy, "optimizer": self._optimizer}
