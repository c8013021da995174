"""SAC: Soft Actor-Critic, the model-free baseline that learns off-policy.

Haarnoja, Zhou, Hartikainen, Tucker, Ha, Tan, Kumar, Zhu, Gupta, Abbeel and Levine 2018 (arXiv 1812.05905). One epoch:
act for a window of H steps, keep the transitions, and take a few steps on batches of old ones. The simulator is not
differentiated. Returns of several steps stop at every reset; at a time limit the successor is the observation before
the reset, and only a failure has no value after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sapo_learner.advantage import n_step
from sapo_learner.collect import Experience, collect
from sapo_learner.critics import follow, target_of
from sapo_learner.distributions import SquashedNormal, standard_normal
from sapo_learner.encoders import POOLS, Pool
from sapo_learner.learner import Epoch, Learner
from sapo_learner.network_input import NetworkInput
from sapo_learner.networks import StackedCritics
from sapo_learner.optimization import ascend, make_adamw, set_learning_rate, step_clipped
from sapo_learner.policy import make_policy
from sapo_learner.replay import Replay, Transitions
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
from sapo_learner.vec_env import VecEnv

CLIP = 5.0
"""Normalised states are cut off beyond."""


@dataclass(frozen=True, kw_only=True)
class SacConfig:
    """Settings of SAC; the defaults are those of the published comparison."""

    horizon: int = 32
    """H, control steps between two rounds of updates."""
    gamma: float = 0.99
    """Discount per control step."""
    n_step: int = 3
    """Steps whose rewards are taken together; fewer where an episode or the window ends."""
    reward_scale: float = 1.0
    """Multiplies the reward, and so sets how little the entropy bonus weighs."""
    actor_hidden: tuple[int, ...] = (512, 256)
    """Widths of the actor's hidden layers."""
    critic_hidden: tuple[int, ...] = (256, 256)
    """Widths of each critic's hidden layers."""
    num_critics: int = 2
    """Critics of state and action, of which the least counts."""
    pool: Pool = "mean"
    """How the point encoder, which actor and critics share, pools over points: mean or max."""
    actor_learning_rate: float = 5e-4
    """Constant."""
    critic_learning_rate: float = 5e-4
    """Constant."""
    temperature_learning_rate: float = 5e-3
    """Of the logarithm of the temperature; constant."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of AdamW's two moments."""
    weight_decay: float = 0.01
    """Of weight matrices. Biases, norms and the temperature never decay."""
    max_grad_norm: float = 0.5
    """Clip of the gradient norm over all parameters of an optimiser."""
    updates: int = 8
    """Steps of critics, actor and temperature in each epoch."""
    batch_size: int = 0
    """Transitions in each step; 0 means as many as an epoch has env steps."""
    replay_capacity: int = 1_000_000
    """Transitions that are kept on the env's device, the newest ones. One takes 2 * state + actions + 2 numbers of 4
    bytes, and 12 bytes a point: a million take 0.3 GB for ant_run, 3.3 GB for hand_flip, 5.2 GB for soft_jumper. They
    are part of every checkpoint, so choose fewer where memory or disk is short; a run cannot change it later."""
    warmup_steps: int = 32
    """Control steps in each env, at first, with uniformly random actions and without updates; whole windows."""
    target_keep: float = 0.995
    """What the slow copy of the critics keeps of itself in each step."""
    initial_temperature: float = 1.0
    """First weight of the entropy bonus."""
    target_entropy_per_dim: float = -0.5
    """Entropy per action dimension [nat] that the temperature is adapted to."""
    max_skipped_updates: int = 10
    """Epochs in a row that may meet a non-finite gradient, or bring no finite transition, before `TrainingDiverged`."""

    def __post_init__(self) -> None:
        require_sizes(self, "actor_hidden", "critic_hidden")
        require_betas(self)
        require_positive(
            self,
            "horizon",
            "n_step",
            "reward_scale",
            "num_critics",
            "actor_learning_rate",
            "critic_learning_rate",
            "temperature_learning_rate",
            "max_grad_norm",
            "updates",
            "replay_capacity",
            "initial_temperature",
            "max_skipped_updates",
        )
        require_fraction(self, "gamma", "target_keep")
        require_not_negative(self, "weight_decay", "batch_size", "warmup_steps")
        require_one_of(self, "pool", POOLS)
        require(
            self.target_entropy_per_dim < 0,
            f"target_entropy_per_dim must be < 0, got {self.target_entropy_per_dim}",
        )


class Sac(Learner):
    """The learner: policy, critics on the policy's features, temperature, their optimisers, and the replay."""

    def __init__(self, env: VecEnv, config: SacConfig, *, seed: int, planned_epochs: int) -> None:
        super().__init__(
            env,
            seed=seed,
            planned_epochs=planned_epochs,
            max_skipped_updates=config.max_skipped_updates,
        )
        self.config = config
        self.target_entropy = config.target_entropy_per_dim * env.action_dim
        self.policy = make_policy(
            env.obs_spec,
            env.action_dim,
            hidden=config.actor_hidden,
            pool=config.pool,
            clip=CLIP,
            weights=self._weights,
            samples=self._samples,
        ).to(env.device)
        size = self.policy.encoder.size + env.action_dim
        self.critics = StackedCritics(config.num_critics, size, config.critic_hidden, self._weights).to(
            env.device
        )
        self.target_critics = target_of(self.critics)
        self.temperature = Temperature(config.initial_temperature).to(env.device)
        rates = {"betas": config.betas, "weight_decay": config.weight_decay}
        self._actor_optimizer = make_adamw(
            [self.policy.encoder, self.policy.head], learning_rate=config.actor_learning_rate, **rates
        )
        self._critic_optimizer = make_adamw(
            [self.policy.encoder, self.critics], learning_rate=config.critic_learning_rate, **rates
        )
        self._temperature_optimizer = make_adamw(
            [self.temperature],
            learning_rate=config.temperature_learning_rate,
            betas=config.betas,
            weight_decay=0.0,
        )
        self._replay = Replay(config.replay_capacity)

    def _epoch(self, should_stop: Callable[[], bool]) -> Epoch:
        config = self.config
        set_learning_rate(self._actor_optimizer, config.actor_learning_rate)
        set_learning_rate(self._critic_optimizer, config.critic_learning_rate)
        set_learning_rate(self._temperature_optimizer, config.temperature_learning_rate)
        window = self._act(should_stop)
        self.policy.normalizer.update(window.inputs.state)
        transitions = self._transitions(window)
        finite = transitions.are_finite()  # one that is not would come back from the replay again and again
        rows = finite.nonzero().squeeze(-1)
        self._replay.extend(transitions.map(lambda x: x[rows]))
        steps = []
        if not self._warming_up and len(self._replay) > 0:
            size = config.batch_size or window.done.numel()
            steps = [self._learn(self._replay.sample(size, self._generator)) for _ in range(config.updates)]
        figures = {name: torch.stack([step[name] for step in steps]) for name in (steps[0] if steps else ())}
        metrics = {
            "actor/grad_norm": 0.0,
            "actor/skipped": 0.0,
            **{name: one.sum() if one.dtype == torch.bool else one.mean() for name, one in figures.items()},
            "actor/learning_rate": config.actor_learning_rate,
            "temperature": self.temperature.value,
            "replay/dropped": (~finite).sum(),
        }
        metrics["actor/skipped"] = metrics["actor/skipped"] + ~finite.any()  # a dead simulator ends the run
        return Epoch(window.reward, window.done, window.info, metrics)

    def _act(self, should_stop: Callable[[], bool]) -> Experience:
        """Act for a window: at random while warming up, and then by samples of the policy."""
        config, env = self.config, self.env
        shape = (config.horizon, env.num_envs, env.action_dim)
        uniform = 2.0 * torch.rand(shape, generator=self._generator, device=env.device) - 1.0
        noise = standard_normal(shape, self._generator)

        def act(obs: NetworkInput, t: int) -> Tensor:
            if self._warming_up:
                return uniform[t]
            return self._distribution(self._normalized(obs)).sample(noise[t])

        return collect(env, self.policy.layout, act, num_steps=config.horizon, should_stop=should_stop)

    @property
    def _warming_up(self) -> bool:
        return self.epoch * self.config.horizon < self.config.warmup_steps

    def _transitions(self, window: Experience) -> Transitions:
        """Take the rewards of up to n steps together."""
        config = self.config
        reward = window.reward * config.reward_scale
        ahead = n_step(reward, window.done, window.has_value, gamma=config.gamma, steps=config.n_step)
        envs = torch.arange(window.done.shape[1], device=window.done.device)
        return Transitions(
            inputs=window.inputs.map(_merge_time_and_env),
            action=_merge_time_and_env(window.action),
            reward=ahead.reward.flatten(),
            discount=ahead.discount.flatten(),
            successor=window.terminal.map(lambda x: _merge_time_and_env(x[ahead.last, envs])),
        )

    def _learn(self, batch: Transitions) -> dict[str, Tensor]:
        """Take one step of critics, actor and temperature, and let the slow copy follow."""
        config, alpha = self.config, self.temperature.value
        inputs = self._normalized(batch.inputs)
        with torch.no_grad():
            features = self.policy.encoder(*self._normalized(batch.successor))
            action, log_prob = self._sample(features)
            next_value = self._q(self.target_critics, features, action).amin(dim=0) - alpha * log_prob
            # after a failure, the observation and so its value may be anything, NaN too
            target = batch.reward + torch.where(batch.discount > 0, batch.discount * next_value, 0.0)

        errors = self._q(self.critics, self.policy.encoder(*inputs), batch.action) - target
        critic_loss = errors.square().mean(dim=1).sum()
        self._critic_optimizer.zero_grad()
        critic_loss.backward()
        critic_norm = step_clipped(self._critic_optimizer, max_norm=config.max_grad_norm)

        features = self.policy.encoder(*inputs)
        action, log_prob = self._sample(features)
        objective = (self._q(self.critics, features, action).amin(dim=0) - alpha * log_prob).mean()
        of_actor = ascend(self._actor_optimizer, objective, max_norm=config.max_grad_norm)

        loss = self.temperature.loss(-log_prob, self.target_entropy)
        self._temperature_optimizer.zero_grad()
        loss.backward()
        step_clipped(self._temperature_optimizer, max_norm=config.max_grad_norm)
        follow(self.target_critics, self.critics, keep=config.target_keep)
        return {
            **of_actor,
            "critic/loss": critic_loss.detach(),
            "critic/grad_norm": critic_norm,
            "critic/skipped": ~critic_norm.isfinite(),
            "critic/target_mean": target.mean(),
            "critic/target_std": target.std(correction=0),
            "entropy": -log_prob.detach().mean(),
        }

    def _sample(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return reparameterised actions, (B, d), and the logarithm of their density, (B,)."""
        distribution = self.policy.head(features)
        assert isinstance(distribution, SquashedNormal)
        noise = standard_normal(tuple(distribution.mean.shape), self._generator)
        pre_tanh = distribution.pre_tanh(noise)
        return pre_tanh.tanh(), distribution.log_prob(pre_tanh)

    def _q(self, critics: Any, features: Tensor, action: Tensor) -> Tensor:
        """Return the values of actions, (C, B)."""
        return critics(torch.cat([features, action], dim=-1))

    def _normalized(self, obs: NetworkInput) -> NetworkInput:
        return NetworkInput(self.policy.normalizer(obs.state), obs.cloud)

    def _distribution(self, inputs: NetworkInput) -> SquashedNormal:
        distribution = self.policy.distribution(inputs)
        assert isinstance(distribution, SquashedNormal)
        return distribution

    def _parts(self) -> dict[str, Any]:
        return {
            "policy": self.policy,
            "critics": self.critics,
            "target_critics": self.target_critics,
            "temperature": self.temperature,
            "actor_optimizer": self._actor_optimizer,
            "critic_optimizer": self._critic_optimizer,
            "temperature_optimizer": self._temperature_optimizer,
        }

    # ---- the replay is too large to copy in every epoch: a snapshot holds its length, and it can be taken back -------

    def _clocks(self) -> dict[str, Any]:
        return super()._clocks() | {"replay_written": self._replay.written}

    def _undo(self, state: dict[str, Any]) -> None:
        if "replay" in state:
            self._replay.load_state_dict(state["replay"], self.env.device)  # first, as it may be refused
        else:
            self._replay.rewind(state["replay_written"])
        super()._undo(state)

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of all that the next update depends on, the replay too."""
        return super().state_dict() | {"replay": self._replay.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave; see `Learner.load_state_dict`."""
        require("replay" in state, "learner state: 'replay' is missing; it was saved by another version")
        super().load_state_dict(state)


def _merge_time_and_env(x: Tensor) -> Tensor:
    return x.flatten(0, 1)
