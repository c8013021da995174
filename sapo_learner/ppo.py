"""PPO: Proximal Policy Optimization, the model-free baseline that learns on-policy.

Schulman, Wolski, Dhariwal, Radford and Klimov 2017 (arXiv 1707.06347). One epoch: act for a window of H steps, estimate
advantages, and climb the clipped surrogate for a few passes, with a learning rate that keeps the divergence from the
old policy near a target. The simulator is not differentiated. At a time limit the return goes on with the value of the
observation before the reset; after a failure with nothing. The published loss on means beyond 1.1 is not here: the
policy's means lie within 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sapo_learner.advantage import gae
from sapo_learner.collect import Experience, collect
from sapo_learner.critic_fit import require_enough_samples
from sapo_learner.distributions import BoundedNormal
from sapo_learner.encoders import POOLS, Pool
from sapo_learner.heads import BoundedHead
from sapo_learner.learner import Epoch, Learner
from sapo_learner.network_input import NetworkInput
from sapo_learner.networks import StackedCritics, Style
from sapo_learner.normalizer import StateNormalizer
from sapo_learner.optimization import make_adamw, set_learning_rate, step_clipped
from sapo_learner.parallel import SINGLE, Ranks
from sapo_learner.policy import make_policy
from sapo_learner.settings import (
    require,
    require_betas,
    require_fraction,
    require_not_negative,
    require_one_of,
    require_positive,
    require_sizes,
)
from sapo_learner.vec_env import VecEnv

STYLE = Style("silu", math.sqrt(2.0))
CLIP = 5.0
"""Normalised states and returns are cut off beyond."""
KL_BAND = 2.0
RATE_STEP = 1.5
"""The learning rate changes by this factor when the divergence is more than `KL_BAND` times off its target."""


@dataclass(frozen=True, kw_only=True)
class PpoConfig:
    """Settings of PPO; the defaults are those of the published comparison."""

    horizon: int = 32
    """H, control steps in a window."""
    gamma: float = 0.99
    """Discount per control step."""
    gae_lambda: float = 0.95
    """Weight of longer advantages."""
    reward_scale: float = 1.0
    """Multiplies the reward."""
    actor_hidden: tuple[int, ...] = (512, 256)
    """Widths of the actor's hidden layers."""
    critic_hidden: tuple[int, ...] = (256, 256)
    """Widths of the critic's hidden layers."""
    pool: Pool = "mean"
    """How the point encoder, which actor and critic share, pools over points: mean or max."""
    learning_rate: float = 5e-4
    """At first, of everything."""
    min_learning_rate: float = 1e-6
    """It never falls below."""
    max_learning_rate: float = 1e-2
    """It never rises above."""
    target_kl: float = 0.008
    """Divergence from the old policy [nat] that each pass should meet: where it meets less than half or more than
    twice as much, the learning rate rises or falls. The first of an epoch meets none, and so tries a faster one."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of AdamW's two moments."""
    weight_decay: float = 0.01
    """Of weight matrices. Biases and norms never decay."""
    max_grad_norm: float = 0.5
    """Clip of the gradient norm over all parameters."""
    passes: int = 5
    """Passes over the window's data in each epoch."""
    num_minibatches: int = 1
    """Steps in each pass."""
    clip_ratio: float = 0.2
    """Beyond 1 +- this the probability ratio pays no more."""
    value_coefficient: float = 4.0
    """Weight of half the critic's squared error, of normalised returns."""
    entropy_coefficient: float = 0.0
    """Weight of the policy's entropy."""
    max_skipped_updates: int = 10
    """Epochs in a row that may meet a non-finite gradient before `TrainingDiverged`."""

    def __post_init__(self) -> None:
        require_sizes(self, "actor_hidden", "critic_hidden")
        require_betas(self)
        require_positive(
            self,
            "horizon",
            "reward_scale",
            "learning_rate",
            "min_learning_rate",
            "max_learning_rate",
            "target_kl",
            "max_grad_norm",
            "passes",
            "num_minibatches",
            "clip_ratio",
            "max_skipped_updates",
        )
        require_fraction(self, "gamma", "gae_lambda")
        require_not_negative(self, "weight_decay", "value_coefficient", "entropy_coefficient")
        require_one_of(self, "pool", POOLS)
        require(
            self.min_learning_rate <= self.learning_rate <= self.max_learning_rate,
            f"learning_rate must be between min_learning_rate = {self.min_learning_rate} and max_learning_rate = "
            f"{self.max_learning_rate}, got {self.learning_rate}",
        )


class Ppo(Learner):
    """The learner: policy, critic on the policy's features, statistics of returns, and one optimiser."""

    def __init__(
        self, env: VecEnv, config: PpoConfig, *, seed: int, planned_epochs: int, ranks: Ranks = SINGLE
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
            head=BoundedHead,
            hidden=config.actor_hidden,
            pool=config.pool,
            style=STYLE,
            head_gain=0.01,
            clip=CLIP,
            weights=self._weights,
            samples=self._samples,
        ).to(env.device)
        self.critic = StackedCritics(
            1, self.policy.encoder.size, config.critic_hidden, self._weights, STYLE, output_gain=1.0
        ).to(env.device)
        self.returns = StateNormalizer(1, clip=CLIP).to(env.device)
        self._optimizer = make_adamw(
            [self.policy.encoder, self.policy.head, self.critic],
            learning_rate=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            eps=1e-5,
        )

    def _epoch(self, should_stop: Callable[[], bool]) -> Epoch:
        config, env, ranks = self.config, self.env, self.ranks
        noise = self._noise(config.horizon)
        window = collect(
            env,
            self.policy.layout,
            lambda obs, t: self._distribution(self._normalized(obs)).sample(noise[t]),
            num_steps=config.horizon,
            should_stop=should_stop,
        )
        inputs = self._normalized(window.inputs.map(_merge_time_and_env))
        action = _merge_time_and_env(window.action)
        with torch.no_grad():
            old = self._distribution(inputs)
            old_log_prob = old.log_prob(action)
        advantage, returns = self._judge(window)
        all_returns = ranks.gather(returns, dim=0)
        self.returns.update(all_returns[None, :, None])
        value_target = self.returns(returns[:, None]).squeeze(-1)

        metrics: list[dict[str, Tensor]] = []
        for _ in range(config.passes):
            divergences = []
            indices = torch.randperm(len(all_returns), generator=self._generator, device=env.device)
            for batch in indices.tensor_split(config.num_minibatches):
                own, count = ranks.own_samples(batch, env.num_envs), len(batch)
                new, value = self._distribution_and_value(inputs.map(lambda x, own=own: x[own]))
                log_ratio = new.log_prob(action[own]) - old_log_prob[own]
                surrogate = clipped_surrogate(log_ratio.exp(), advantage[own], clip_ratio=config.clip_ratio)
                gain = ranks.part_of_mean(surrogate, count)
                critic_loss = 0.5 * ranks.part_of_mean((value - value_target[own]).square(), count)
                entropy = ranks.part_of_mean(new.entropy(), count)
                loss = config.value_coefficient * critic_loss - gain - config.entropy_coefficient * entropy
                self._optimizer.zero_grad()
                loss.backward()
                norm = step_clipped(self._optimizer, max_norm=config.max_grad_norm, ranks=ranks)
                divergence = new.kl_from(BoundedNormal(*(x[own] for x in old))).detach()
                divergences.append(ranks.part_of_mean(divergence, count))
                metrics.append(
                    {
                        "actor/objective": gain.detach(),
                        "actor/grad_norm": norm,
                        "actor/divergence": divergences[-1],
                        "critic/loss": critic_loss.detach(),
                        "entropy": entropy.detach(),
                    }
                )
            mean = torch.stack(divergences).mean()
            ranks.average_([mean])
            self._adapt_learning_rate(float(mean))
        means = {name: torch.stack([one[name] for one in metrics]).mean() for name in metrics[0]}
        self.policy.normalizer.update(ranks.gather(window.inputs.state, dim=1))
        return Epoch(
            reward=window.reward,
            done=window.done,
            info=window.info,
            metrics={
                **means,
                "actor/skipped": torch.stack([~one["actor/grad_norm"].isfinite() for one in metrics]).sum(),
                "actor/learning_rate": self._optimizer.param_groups[0]["lr"],
                "critic/target_mean": all_returns.mean(),
                "critic/target_std": all_returns.std(correction=0),
            },
        )

    @torch.no_grad()
    def _judge(self, window: Experience) -> tuple[Tensor, Tensor]:
        """Return normalised advantages, and returns in units of the reward, (H * N,) each."""
        config = self.config
        before, after = self._value(window.inputs), self._value(window.terminal)
        advantage = gae(
            window.reward * config.reward_scale,
            before,
            torch.where(window.has_value, after, 0.0),
            window.done,
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
        )
        returns = advantage + before
        of_all = self.ranks.gather(advantage, dim=1)
        advantage = (advantage - of_all.mean()) / (of_all.std(correction=0) + 1e-8)
        return advantage.flatten(), returns.flatten()

    def _value(self, obs: NetworkInput) -> Tensor:
        """Return the critic's value in units of the reward, (H, N). obs: (H, N, ...)."""
        inputs = self._normalized(obs.map(_merge_time_and_env))
        normalized = self._distribution_and_value(inputs)[1]
        return (normalized / self.returns.scale + self.returns.shift).view(obs.state.shape[:2])

    def _normalized(self, obs: NetworkInput) -> NetworkInput:
        return NetworkInput(self.policy.normalizer(obs.state), obs.cloud)

    def _distribution(self, inputs: NetworkInput) -> BoundedNormal:
        distribution = self.policy.distribution(inputs)
        assert isinstance(distribution, BoundedNormal)
        return distribution

    def _distribution_and_value(self, inputs: NetworkInput) -> tuple[BoundedNormal, Tensor]:
        """Return the policy's distribution and the critic's normalised value, (B,)."""
        features = self.policy.encoder(*inputs)
        distribution = self.policy.head(features)
        assert isinstance(distribution, BoundedNormal)
        return distribution, self.critic(features).squeeze(0)

    def _adapt_learning_rate(self, divergence: float) -> None:
        """Bring the divergence of the next pass nearer to its target."""
        config, rate = self.config, self._optimizer.param_groups[0]["lr"]
        if divergence > KL_BAND * config.target_kl:
            rate = max(rate / RATE_STEP, config.min_learning_rate)
        elif divergence < config.target_kl / KL_BAND:
            rate = min(rate * RATE_STEP, config.max_learning_rate)
        set_learning_rate(self._optimizer, rate)

    def _parts(self) -> dict[str, Any]:
        return {
            "policy": self.policy,
            "critic": self.critic,
            "returns": self.returns,
            "optimizer": self._optimizer,
        }


def clipped_surrogate(ratio: Tensor, advantage: Tensor, *, clip_ratio: float) -> Tensor:
    """Return min(ratio A, clip(ratio, 1 - c, 1 + c) A), elementwise (Schulman et al. 2017, equation 7)."""
    return torch.minimum(ratio * advantage, ratio.clamp(1.0 - clip_ratio, 1.0 + clip_ratio) * advantage)


def _merge_time_and_env(x: Tensor) -> Tensor:
    return x.flatten(0, 1)
