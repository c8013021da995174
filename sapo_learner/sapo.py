"""SAPO: Soft Analytic Policy Optimization, a maximum-entropy first-order actor-critic.

Xing, Luk and Oh, "Stabilizing Reinforcement Learning in Differentiable Multiphysics Simulation", ICLR 2025
(arXiv 2412.12089). One epoch: act for a window of H steps in a differentiable simulator,
improve the actor by the gradient of the window's return, adapt the temperature, and fit the critics to
TD(lambda) targets. Envs are not reset between epochs; only the gradient is cut.

Where the paper and the code published with it differ, this follows the paper, with three exceptions: the temperature's
learning rate is constant, targets use the temperature after its step, and the critics' losses are averaged and their
gradients clipped together. Beyond both, the gradient clip covers the encoders too, the deterministic action is the
tanh of the mean, and only weight matrices decay.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sapo_learner.action_gradient import Taken, divergence, pathwise, ratio, without_broken_envs
from sapo_learner.critic_fit import fit_critics, meet_mean, require_enough_samples
from sapo_learner.critics import Critics, follow, target_of
from sapo_learner.distributions import SquashedNormal, normalized_entropy
from sapo_learner.encoders import POOLS, Pool
from sapo_learner.heads import FreeStdHead, SquashedHead
from sapo_learner.learner import Epoch, Learner
from sapo_learner.network_input import NetworkInput
from sapo_learner.networks import ACTIVATIONS, Activation, Style
from sapo_learner.optimization import ascend, linear, make_adamw, set_learning_rate, step_clipped
from sapo_learner.parallel import SINGLE, Ranks
from sapo_learner.policy import make_policy
from sapo_learner.returns import actor_objective, discounts, td_lambda_targets
from sapo_learner.rollout import Window, roll_out
from sapo_learner.settings import (
    require,
    require_betas,
    require_fraction,
    require_not_negative,
    require_one_of,
    require_positive,
    require_sizes,
)
from sapo_learner.temperature import Temperature
from sapo_learner.values import end_values, next_values
from sapo_learner.vec_env import VecEnv


@dataclass(frozen=True, kw_only=True)
class SapoConfig:
    """Settings of SAPO; the defaults are those of the published runs on deformable tasks."""

    horizon: int = 32
    """H, control steps in a window."""
    gamma: float = 0.99
    """Discount per control step."""
    td_lambda: float = 0.95
    """Weight of longer returns in the critics' targets."""
    reward_scale: float = 1.0
    """Multiplies the reward, and so sets how little the entropy bonus weighs."""
    actor_hidden: tuple[int, ...] = (512, 256)
    """Widths of the actor's hidden layers."""
    critic_hidden: tuple[int, ...] = (256, 256)
    """Widths of each critic's hidden layers."""
    num_critics: int = 2
    """Critics: the actor climbs their mean, the targets take their minimum."""
    activation: Activation = "silu"
    """Of all networks: silu or elu."""
    weight_gain: float = 1.0
    """Gain of the orthogonal weights of all networks at first."""
    state_dependent_std: bool = True
    """Let the policy's standard deviation depend on the observation; False learns it as it is, starting from 0.37."""
    target_keep: float = 0.0
    """What a slow copy of the critics keeps of itself in each epoch; values then come from it. 0: there is no copy."""
    pool: Pool = "mean"
    """How the point encoder pools over points: mean or max."""
    head_gain: float = 1.0
    """Gain of the actor's last layers at first; a small one begins without a preference for any action."""
    critic_head_gain: float = 1.0
    """Gain of the critics' last layers at first; a small one begins without a preference for any state."""
    actor_learning_rate: float = 2e-3
    """At the first epoch; falls linearly to `final_learning_rate` after the last planned one."""
    critic_learning_rate: float = 5e-4
    """At the first epoch; falls linearly to `final_learning_rate` after the last planned one."""
    final_learning_rate: float = 1e-5
    """Of actor and critics after the last planned epoch."""
    temperature_learning_rate: float = 5e-3
    """Of the logarithm of the temperature; constant."""
    betas: tuple[float, float] = (0.7, 0.95)
    """Decay rates of AdamW's two moments."""
    weight_decay: float = 0.01
    """Of weight matrices. Biases, norms and the temperature never decay."""
    max_grad_norm: float = 0.5
    """Clip of the gradient norm over all parameters of an optimiser."""
    critic_passes: int = 16
    """Passes of the critics over the window's data in each epoch."""
    num_minibatches: int = 4
    """Critic steps in each pass."""
    meet_mean: bool = False
    """Before the passes, set each critic's constant to what makes its mean that of the targets."""
    shuffle_minibatches: bool = True
    """Draw minibatches at random; False takes them in the order of time, as the published runs did."""
    initial_temperature: float = 1.0
    """First weight of the entropy bonus."""
    target_entropy_per_dim: float = -0.5
    """Entropy per action dimension [nat] at which the bonus is 0 and the temperature stands still."""
    entropy_samples: int = 1
    """Independent samples in each step's entropy estimate."""
    entropy_in_actor: bool = True
    """Reward the actor for entropy. With this and the next one False, entropy plays no part."""
    entropy_in_targets: bool = True
    """Let the critics value future entropy: the soft value function."""
    policy_epochs: int = 1
    """Actor steps from one backward pass through the simulator; beyond the first they use its gradients of actions."""
    divergence_weight: float = 0.2
    """Keeps those steps near the policy that acted: weight of the divergence [unscaled reward per nat]."""
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
            "weight_gain",
            "num_critics",
            "actor_learning_rate",
            "critic_learning_rate",
            "final_learning_rate",
            "temperature_learning_rate",
            "max_grad_norm",
            "critic_passes",
            "num_minibatches",
            "initial_temperature",
            "entropy_samples",
            "policy_epochs",
            "max_skipped_updates",
        )
        require_fraction(self, "gamma", "td_lambda", "target_keep")
        require_not_negative(self, "weight_decay", "divergence_weight")
        require_one_of(self, "pool", POOLS)
        require_one_of(self, "activation", ACTIVATIONS)
        require(
            self.target_entropy_per_dim < 0,
            f"target_entropy_per_dim must be < 0, got {self.target_entropy_per_dim}",
        )


class Sapo(Learner):
    """The learner: policy, critics, temperature and their optimisers."""

    def __init__(
        self, env: VecEnv, config: SapoConfig, *, seed: int, planned_epochs: int, ranks: Ranks = SINGLE
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
        self.target_entropy = config.target_entropy_per_dim * env.action_dim
        style = Style(config.activation, config.weight_gain)
        self.policy = make_policy(
            env.obs_spec,
            env.action_dim,
            head=SquashedHead if config.state_dependent_std else FreeStdHead,
            hidden=config.actor_hidden,
            pool=config.pool,
            style=style,
            head_gain=config.head_gain * config.weight_gain,
            weights=self._weights,
            samples=self._samples,
        ).to(env.device)
        self.critics = Critics(
            copy.deepcopy(self.policy.encoder),  # equal at first, then each goes its own way
            count=config.num_critics,
            hidden=config.critic_hidden,
            weights=self._weights,
            style=style,
            head_gain=config.critic_head_gain,
        ).to(env.device)
        self.target_critics = target_of(self.critics) if config.target_keep > 0 else None
        self.temperature = Temperature(config.initial_temperature).to(env.device)
        self._actor_optimizer = make_adamw(
            [self.policy.encoder, self.policy.head],
            learning_rate=config.actor_learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        self._critic_optimizer = make_adamw(
            [self.critics],
            learning_rate=config.critic_learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        self._temperature_optimizer = make_adamw(
            [self.temperature],
            learning_rate=config.temperature_learning_rate,
            betas=config.betas,
            weight_decay=0.0,
        )

    def _epoch(self, should_stop: Callable[[], bool]) -> Epoch:
        config = self.config
        self._schedule_learning_rates()
        window = self._roll_out(should_stop)
        values = self.critics if self.target_critics is None else self.target_critics
        after_each_step = next_values(lambda inputs: values(inputs).amin(dim=0), window)

        # the actor climbs the window's return, whose gradient flows through simulator and critics
        objective = self._objective(window)
        if config.policy_epochs > 1:
            metrics = self._ascend_by_actions(objective, window)
        else:
            metrics = ascend(
                self._actor_optimizer, objective, max_norm=config.max_grad_norm, ranks=self.ranks
            )
        metrics |= self._adapt_temperature(window)

        # the critics learn what the window showed
        targets = td_lambda_targets(
            self._soft_reward(window, config.entropy_in_targets),
            after_each_step,
            window.done,
            gamma=config.gamma,
            td_lambda=config.td_lambda,
        )
        if config.meet_mean:
            meet_mean(self.critics, window.inputs, targets, ranks=self.ranks)
        metrics |= fit_critics(
            self.critics,
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
        if self.target_critics is not None:
            follow(self.target_critics, self.critics, keep=config.target_keep)
        self.policy.normalizer.update(self.ranks.gather(window.states, dim=1))
        rate = self._actor_optimizer.param_groups[0]["lr"]
        return Epoch(window.reward, window.done, window.info, {**metrics, "actor/learning_rate": rate})

    def look(self) -> Tensor:
        """Return what the actor would climb in the next window, a scalar. Nothing changes."""
        with self._back_again():
            return self._objective(self._roll_out(lambda: False))

    def _roll_out(self, should_stop: Callable[[], bool]) -> Window:
        """Act for a window, with gradient, and estimate the entropy in each step from samples of its own."""
        config = self.config
        return roll_out(
            self.env,
            self.policy,
            action_noise=self._noise(config.horizon),
            entropy_noise=self._noise(config.horizon, config.entropy_samples),
            should_stop=should_stop,
        )

    def _objective(self, window: Window) -> Tensor:
        values = self.critics if self.target_critics is None else self.target_critics
        return actor_objective(
            self._soft_reward(window, self.config.entropy_in_actor),
            end_values(lambda inputs: values(inputs).mean(dim=0), window),
            window.done,
            gamma=self.config.gamma,
        )

    def _ascend_by_actions(self, objective: Tensor, window: Window) -> dict[str, Tensor]:
        """Take `policy_epochs` steps with one backward pass through the simulator, which ends at the actions."""
        config = self.config
        gradient = torch.stack(torch.autograd.grad(objective, window.actions))
        weight = discounts(window.done, config.gamma, gradient.dtype) / window.done.numel()
        with torch.no_grad():
            acted = self._distributions(window.inputs)
        taken = Taken(acted, acted.pre_tanh(window.action_noise), without_broken_envs(gradient, self.ranks))
        metrics = {}
        for _ in range(config.policy_epochs):
            policy = self._distributions(window.inputs)
            gain = ratio(policy, taken) * pathwise(policy, taken)
            if config.entropy_in_actor:
                entropy = policy.entropy(self._noise(config.entropy_samples, config.horizon))
                gain = gain + weight * self._entropy_bonus(entropy)
            strayed = divergence(acted, policy).mean()
            metrics = ascend(
                self._actor_optimizer,
                gain.sum() - config.divergence_weight * config.reward_scale * strayed,
                max_norm=config.max_grad_norm,
                ranks=self.ranks,
            )
            metrics["actor/divergence"] = strayed.detach()
        return metrics | {"actor/objective": objective.detach()}

    def _distributions(self, inputs: NetworkInput) -> SquashedNormal:
        """Return the policy's distributions of a whole window, (H, N, d). inputs: (H, N, ...)."""
        policy = self.policy.distribution(inputs.map(lambda x: x.flatten(0, 1)))
        assert isinstance(policy, SquashedNormal)
        shape = (self.config.horizon, self.env.num_envs, self.env.action_dim)
        return SquashedNormal(policy.mean.view(shape), policy.log_std.view(shape))

    def _soft_reward(self, window: Window, with_entropy: bool) -> Tensor:
        """Return the scaled reward and, if asked for, the present temperature's entropy bonus, (H, N)."""
        reward = window.reward * self.config.reward_scale
        if not with_entropy:
            return reward
        assert window.entropy is not None
        return reward + self._entropy_bonus(window.entropy)

    def _entropy_bonus(self, entropy: Tensor) -> Tensor:
        return self.temperature.value * normalized_entropy(entropy, self.target_entropy)

    def _adapt_temperature(self, window: Window) -> dict[str, Tensor]:
        """Lower the temperature while the entropy is above its target, raise it while it is below."""
        assert window.entropy is not None
        loss = self.temperature.loss(window.entropy, self.target_entropy)
        self._temperature_optimizer.zero_grad()
        loss.backward()
        step_clipped(self._temperature_optimizer, max_norm=self.config.max_grad_norm, ranks=self.ranks)
        return {"entropy": window.entropy.detach().mean(), "temperature": self.temperature.value}

    def _schedule_learning_rates(self) -> None:
        config = self.config
        for optimizer, first in (
            (self._actor_optimizer, config.actor_learning_rate),
            (self._critic_optimizer, config.critic_learning_rate),
        ):
            set_learning_rate(optimizer, linear(first, config.final_learning_rate, self.progress))
        set_learning_rate(self._temperature_optimizer, config.temperature_learning_rate)

    def _parts(self) -> dict[str, Any]:
        parts = {
            "policy": self.policy,
            "critics": self.critics,
            "temperature": self.temperature,
            "actor_optimizer": self._actor_optimizer,
            "critic_optimizer": self._critic_optimizer,
            "temperature_optimizer": self._temperature_optimizer,
        }
        return parts if self.target_critics is None else {**parts, "target_critics": self.target_critics}
