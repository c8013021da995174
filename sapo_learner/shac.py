"""SHAC: Short-Horizon Actor-Critic, the first-order actor-critic without entropy.

Xu, Makoviychuk, Narang, Ramos, Matusik, Garg and Macklin, "Accelerated Policy Learning with Parallel Differentiable
Simulation", ICLR 2022 (arXiv 2204.07137). One epoch: act for a window of H steps in a differentiable simulator, improve
the actor by the gradient of the window's return, which a slow copy of the critic continues beyond the window, fit the
critic to TD(lambda) targets, and let the slow copy follow it.

The norm comes before the activation, as in the runs that SAPO was compared with.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sapo_learner.critic_fit import fit_critics, meet_mean, require_enough_samples
from sapo_learner.critics import Critics, follow, target_of
from sapo_learner.encoders import POOLS, Pool
from sapo_learner.heads import FreeStdHead
from sapo_learner.learner import Epoch, Learner
from sapo_learner.network_input import NetworkInput
from sapo_learner.networks import Style
from sapo_learner.optimization import ascend, linear, make_adamw, set_learning_rate
from sapo_learner.parallel import SINGLE, Ranks
from sapo_learner.policy import make_policy
from sapo_learner.returns import actor_objective, td_lambda_targets
from sapo_learner.rollout import Window, roll_out
from sapo_learner.settings import (
    require_betas,
    require_fraction,
    require_one_of,
    require_positive,
    require_sizes,
)
from sapo_learner.values import end_values, next_values
from sapo_learner.vec_env import VecEnv

STYLE = Style("elu", math.sqrt(2.0))


@dataclass(frozen=True, kw_only=True)
class ShacConfig:
    """Settings of SHAC; the defaults are those of the published comparison on deformable tasks."""

    horizon: int = 32
    """H, control steps in a window."""
    gamma: float = 0.99
    """Discount per control step."""
    td_lambda: float = 0.95
    """Weight of longer returns in the critic's targets."""
    reward_scale: float = 1.0
    """Multiplies the reward."""
    actor_hidden: tuple[int, ...] = (512, 256)
    """Widths of the actor's hidden layers."""
    critic_hidden: tuple[int, ...] = (256, 256)
    """Widths of the critic's hidden layers."""
    pool: Pool = "mean"
    """How the point encoder pools over points: mean or max."""
    head_gain: float = 1.0
    """Gain of the actor's last layers at first; a small one begins without a preference for any action."""
    critic_head_gain: float = 1.0
    """Gain of the critic's last layer at first; a small one begins without a preference for any state."""
    actor_learning_rate: float = 2e-3
    """At the first epoch; falls linearly to `final_learning_rate` after the last planned one."""
    critic_learning_rate: float = 5e-4
    """At the first epoch; falls linearly to `final_learning_rate` after the last planned one."""
    final_learning_rate: float = 1e-5
    """Of actor and critic after the last planned epoch."""
    betas: tuple[float, float] = (0.7, 0.95)
    """Decay rates of Adam's two moments."""
    max_grad_norm: float = 1.0
    """Clip of the gradient norm over all parameters of an optimiser."""
    critic_passes: int = 16
    """Passes of the critic over the window's data in each epoch."""
    num_minibatches: int = 4
    """Critic steps in each pass."""
    meet_mean: bool = False
    """Before the passes, set the critic's constant to what makes its mean that of the targets."""
    shuffle_minibatches: bool = True
    """Draw minibatches at random; False takes them in the order of time, as the published runs did."""
    target_keep: float = 0.995
    """What the slow copy of the critic keeps of itself in each epoch."""
    max_skipped_updates: int = 10
    """Epochs in a row that may meet a non-finite gradient, of actor or critics, before `TrainingDiverged`."""

    def __post_init__(self) -> None:
        require_sizes(self, "actor_hidden", "critic_hidden")
        require_betas(self)
        require_positive(
            self,
            "horizon",
            "reward_scale",
            "head_gain",
            "critic_head_gain",
            "actor_learning_rate",
            "critic_learning_rate",
            "final_learning_rate",
            "max_grad_norm",
            "critic_passes",
            "num_minibatches",
            "max_skipped_updates",
        )
        require_fraction(self, "gamma", "td_lambda", "target_keep")
        require_one_of(self, "pool", POOLS)


class Shac(Learner):
    """The learner: policy, critic, its slow copy, and their optimisers."""

    def __init__(
        self, env: VecEnv, config: ShacConfig, *, seed: int, planned_epochs: int, ranks: Ranks = SINGLE
    ) -> None:
        """Raise ValueError where a window has too few samples for its minibatches."""
        require_enough_samples(config.horizon * ranks.size * env.num_envs, config.num_minibatches)
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
        self.critic = Critics(
            copy.deepcopy(self.policy.encoder),  # equal at first, then each goes its own way
            count=1,
            hidden=config.critic_hidden,
            weights=self._weights,
            style=STYLE,
            head_gain=config.critic_head_gain,
        ).to(env.device)
        self.target_critic = target_of(self.critic)
        self._actor_optimizer = make_adamw(
            [self.policy.encoder, self.policy.head],
            learning_rate=config.actor_learning_rate,
            betas=config.betas,
            weight_decay=0.0,
        )
        self._critic_optimizer = make_adamw(
            [self.critic],
            learning_rate=config.critic_learning_rate,
            betas=config.betas,
            weight_decay=0.0,
        )

    def _epoch(self, should_stop: Callable[[], bool]) -> Epoch:
        config = self.config
        actor_rate = linear(config.actor_learning_rate, config.final_learning_rate, self.progress)
        critic_rate = linear(config.critic_learning_rate, config.final_learning_rate, self.progress)
        set_learning_rate(self._actor_optimizer, actor_rate)
        set_learning_rate(self._critic_optimizer, critic_rate)

        window = self._roll_out(should_stop)
        reward = window.reward * config.reward_scale
        after_each_step = next_values(self._value, window)

        # the actor climbs the window's return, whose gradient flows through simulator and critic
        objective = self._objective(window)
        metrics = ascend(self._actor_optimizer, objective, max_norm=config.max_grad_norm, ranks=self.ranks)

        # the critic learns what the window showed
        targets = td_lambda_targets(
            reward, after_each_step, window.done, gamma=config.gamma, td_lambda=config.td_lambda
        )
        if config.meet_mean:
            meet_mean(self.critic, window.inputs, targets, ranks=self.ranks)
        metrics |= fit_critics(
            self.critic,
            self._critic_optimizer,
            window.inputs,
            targets,
            passes=config.critic_passes,
            num_minibatches=config.num_minibatches,
            shuffle=config.shuffle_minibatches,
            max_grad_norm=config.max_grad_norm,
            generator=self._generator,
            ranks=self.ranks,
        )
        follow(self.target_critic, self.critic, keep=config.target_keep)
        self.policy.normalizer.update(self.ranks.gather(window.states, dim=1))
        return Epoch(window.reward, window.done, window.info, {**metrics, "actor/learning_rate": actor_rate})

    def look(self) -> Tensor:
        """Return what the actor would climb in the next window, a scalar. Nothing changes."""
        with self._back_again():
            return self._objective(self._roll_out(lambda: False))

    def _roll_out(self, should_stop: Callable[[], bool]) -> Window:
        noise = self._noise(self.config.horizon)
        return roll_out(self.env, self.policy, action_noise=noise, should_stop=should_stop)

    def _objective(self, window: Window) -> Tensor:
        reward = window.reward * self.config.reward_scale
        return actor_objective(reward, end_values(self._value, window), window.done, gamma=self.config.gamma)

    def _value(self, inputs: NetworkInput) -> Tensor:
        return self.target_critic(inputs).squeeze(0)

    def _parts(self) -> dict[str, Any]:
        return {
            "policy": self.policy,
            "critic": self.critic,
            "target_critic": self.target_critic,
            "actor_optimizer": self._actor_optimizer,
            "critic_optimizer": self._critic_optimizer,
        }
