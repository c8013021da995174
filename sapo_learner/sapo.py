"""SAPO: Soft Analytic Policy Optimization, a maximum-entropy first-order actor-critic.

Xing, Luk and Oh, "Stabilizing Reinforcement Learning in Differentiable Multiphysics Simulation", ICLR 2025
(arXiv 2412.12089). One epoch is one `Sapo.update`: act for a window of H steps in a differentiable simulator,
improve the actor by the gradient of the window's return, adapt the temperature, and fit the critics to
TD(lambda) targets. Envs are not reset between epochs; only the gradient is cut.

Where the paper and the code published with it differ, this follows the paper. Beyond both, the gradient clip
covers the encoders too, the deterministic action is the tanh of the mean, and only weight matrices decay.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from sapo_learner.critics import Critics
from sapo_learner.distributions import normalized_entropy, standard_normal
from sapo_learner.encoders import POOLS, Pool
from sapo_learner.episodes import EpisodeStatistics
from sapo_learner.network_input import NetworkInput
from sapo_learner.optimization import make_adamw, parameters_of, set_learning_rate, step_clipped
from sapo_learner.policy import SquashedNormalPolicy
from sapo_learner.returns import actor_objective, segment_ends, td_lambda_targets
from sapo_learner.rollout import Interrupted, Window, roll_out
from sapo_learner.temperature import Temperature
from sapo_learner.vec_env import VecEnv

__all__ = ["Interrupted", "Sapo", "SapoConfig", "TrainingDiverged"]


class TrainingDiverged(RuntimeError):  # noqa: N818
    """Too many epochs in a row had no finite actor gradient."""


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
    pool: Pool = "mean"
    """How the point encoder pools over points: mean or max."""
    head_gain: float = 1.0
    """Gain of the actor's last layers at first; a small one begins without a preference for any action."""
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
    max_skipped_updates: int = 10
    """Actor updates in a row that may be skipped for a non-finite gradient before `TrainingDiverged`."""

    def __post_init__(self) -> None:
        for name in ("actor_hidden", "critic_hidden", "betas"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in (
            "horizon",
            "reward_scale",
            "head_gain",
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
            "max_skipped_updates",
        ):
            value = getattr(self, name)
            _require(value > 0, f"{name} must be > 0, got {value}")
        for name in ("gamma", "td_lambda"):
            value = getattr(self, name)
            _require(0 <= value <= 1, f"{name} must be between 0 and 1, got {value}")
        for name in ("actor_hidden", "critic_hidden"):
            sizes = getattr(self, name)
            _require(all(size > 0 for size in sizes), f"{name} must hold sizes > 0, got {sizes}")
        _require(
            len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
            f"betas must be two numbers in [0, 1), got {self.betas}",
        )
        _require(self.weight_decay >= 0, f"weight_decay must be >= 0, got {self.weight_decay}")
        _require(self.pool in POOLS, f"pool must be one of {list(POOLS)}, got {self.pool!r}")
        _require(
            self.target_entropy_per_dim < 0,
            f"target_entropy_per_dim must be < 0, got {self.target_entropy_per_dim}",
        )


class Sapo:
    """The learner: networks, optimisers and random state around one `VecEnv`, which it resets once, here.

    The same seed gives the same first networks on every device, and the same training on the same machine.
    Torch's global random state is neither used nor changed.
    """

    def __init__(self, env: VecEnv, config: SapoConfig, *, seed: int, planned_epochs: int) -> None:
        """Raise ValueError where a window has too few samples for its minibatches."""
        samples = config.horizon * env.num_envs
        _require(
            samples >= config.num_minibatches,
            f"num_minibatches must be <= horizon * num_envs = {samples}, got {config.num_minibatches}",
        )
        _require(planned_epochs > 0, f"planned_epochs must be > 0, got {planned_epochs}")
        self.env = env
        self.config = config
        self.planned_epochs = planned_epochs
        self.epoch = 0
        """Finished epochs."""
        self.env_steps = 0
        """Control steps in all envs together."""
        self.target_entropy = config.target_entropy_per_dim * env.action_dim

        weights = Generator().manual_seed(seed)
        seeds = torch.randint(2**62, (2,), generator=weights).tolist()
        self._generator, policy_generator = (Generator(env.device).manual_seed(seed) for seed in seeds)
        self.policy = SquashedNormalPolicy(
            env.obs_spec,
            env.action_dim,
            hidden=config.actor_hidden,
            pool=config.pool,
            head_gain=config.head_gain,
            weights=weights,
            samples=policy_generator,
        ).to(env.device)
        self.critics = Critics(
            copy.deepcopy(self.policy.encoder),  # equal at first, then each goes its own way
            count=config.num_critics,
            hidden=config.critic_hidden,
            weights=weights,
        ).to(env.device)
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
        self._episodes = EpisodeStatistics(env.num_envs, window=2 * env.num_envs)
        self._skipped_in_a_row = 0
        env.reset()

    def update(self, should_stop: Callable[[], bool] | None = None) -> dict[str, float]:
        """Carry out one epoch and return its metrics by name.

        should_stop: asked before every control step.

        Raises:
            Interrupted: `should_stop()` turned true; nothing has changed.
            TrainingDiverged: the actor's gradient was not finite for too many epochs in a row. The epoch is
                complete but for its actor step, and the learner can be saved.
        """
        config = self.config
        window = self._roll_out(should_stop or (lambda: False))
        next_values = self._next_values(window)
        self._schedule_learning_rates()
        metrics = self._improve_actor(window)
        metrics |= self._adapt_temperature(window)
        targets = td_lambda_targets(
            self._soft_reward(window, config.entropy_in_targets),
            next_values,
            window.done,
            gamma=config.gamma,
            td_lambda=config.td_lambda,
        )
        metrics |= self._fit_critics(window.inputs, targets)
        self.policy.normalizer.update(window.states)
        self.epoch += 1
        self.env_steps += window.done.numel()
        report = self._report(window, metrics)
        self._count_skipped(report["actor/skipped"] > 0)
        return report

    def _roll_out(self, should_stop: Callable[[], bool]) -> Window:
        """Act for a window. If that fails or is stopped, env and random state are as before."""
        config, env = self.config, self.env
        env_before, generator_before = env.state_dict(), self._generator.get_state()
        action_shape = (env.num_envs, env.action_dim)
        try:
            return roll_out(
                env,
                self.policy,
                action_noise=standard_normal((config.horizon, *action_shape), self._generator),
                entropy_noise=standard_normal(
                    (config.horizon, config.entropy_samples, *action_shape), self._generator
                ),
                should_stop=should_stop,
            )
        except BaseException:  # a keyboard interrupt too: the learner can still be saved and continued
            env.load_state_dict(env_before)
            self._generator.set_state(generator_before)
            raise

    @torch.no_grad()
    def _next_values(self, window: Window) -> Tensor:
        """Return the critics' least value after each step, (H, N); zero after a failure."""
        values = self.critics(window.terminal.map(_merge_time_and_env)).amin(dim=0)
        return torch.where(window.has_value, values.view_as(window.has_value), 0.0)

    def _soft_reward(self, window: Window, with_entropy: bool) -> Tensor:
        """Return the scaled reward and, if asked for, the present temperature's entropy bonus, (H, N)."""
        reward = window.reward * self.config.reward_scale
        if not with_entropy:
            return reward
        return reward + self.temperature.value * normalized_entropy(window.entropy, self.target_entropy)

    def _improve_actor(self, window: Window) -> dict[str, Tensor]:
        """Step along the gradient of the window's return, which flows through simulator and critics."""
        ends = (segment_ends(window.done) & window.has_value).flatten().nonzero().squeeze(-1)
        end_values = self.critics(window.terminal.map(lambda x: _merge_time_and_env(x)[ends])).mean(dim=0)
        next_values = torch.zeros_like(window.reward).flatten().index_put((ends,), end_values)
        objective = actor_objective(
            self._soft_reward(window, self.config.entropy_in_actor),
            next_values.view_as(window.reward),
            window.done,
            gamma=self.config.gamma,
        )
        self._actor_optimizer.zero_grad()
        (-objective).backward(inputs=parameters_of(self._actor_optimizer))
        norm = step_clipped(self._actor_optimizer, max_norm=self.config.max_grad_norm)
        return {
            "actor/objective": objective.detach(),
            "actor/grad_norm": norm,
            "actor/skipped": ~norm.isfinite(),
        }

    def _adapt_temperature(self, window: Window) -> dict[str, Tensor]:
        """Lower the temperature while the entropy is above its target, raise it while it is below."""
        loss = self.temperature.loss(window.entropy, self.target_entropy)
        self._temperature_optimizer.zero_grad()
        loss.backward()
        step_clipped(self._temperature_optimizer, max_norm=self.config.max_grad_norm)
        return {"entropy": window.entropy.detach().mean(), "temperature": self.temperature.value}

    def _fit_critics(self, inputs: NetworkInput, targets: Tensor) -> dict[str, Tensor]:
        """Regress all critics on the targets, in several passes of minibatches over the window."""
        inputs, targets = inputs.map(_merge_time_and_env), targets.flatten()
        losses, norms = [], []
        for _ in range(self.config.critic_passes):
            for batch in self._minibatches(len(targets)):
                values = self.critics(inputs.map(lambda x, batch=batch: x[batch]))
                loss = (values - targets[batch]).square().mean()
                self._critic_optimizer.zero_grad()
                loss.backward()
                norms.append(step_clipped(self._critic_optimizer, max_norm=self.config.max_grad_norm))
                losses.append(loss.detach())
        norm = torch.stack(norms)
        return {
            "critic/loss": torch.stack(losses).mean(),
            "critic/grad_norm": norm.mean(),
            "critic/skipped": (~norm.isfinite()).sum(),
            "critic/target_mean": targets.mean(),
            "critic/target_std": targets.std(correction=0),
        }

    def _minibatches(self, size: int) -> tuple[Tensor, ...]:
        """Cut the samples' indices into minibatches, shuffled or in the order of time."""
        if self.config.shuffle_minibatches:
            indices = torch.randperm(size, generator=self._generator, device=self.env.device)
        else:
            indices = torch.arange(size, device=self.env.device)
        return indices.tensor_split(self.config.num_minibatches)

    def _schedule_learning_rates(self) -> None:
        config, progress = self.config, min(self.epoch / self.planned_epochs, 1.0)
        for optimizer, first in (
            (self._actor_optimizer, config.actor_learning_rate),
            (self._critic_optimizer, config.critic_learning_rate),
        ):
            set_learning_rate(optimizer, first + (config.final_learning_rate - first) * progress)

    def _report(self, window: Window, metrics: dict[str, Tensor]) -> dict[str, float]:
        """Bring the epoch's figures to the host: of reports and events, means over the window and counts."""
        reward = window.reward.detach()
        self._episodes.update(reward.cpu(), window.done.cpu())
        metrics = {**metrics, "step_reward": reward.mean()}
        for name, values in window.info.items():
            metrics[name] = values.sum() if values.dtype == torch.bool else values.mean()
        figures = torch.stack([value.double() for value in metrics.values()]).tolist()
        return {
            "env_steps": float(self.env_steps),
            **self._episodes.summary(),
            **dict(zip(metrics, figures, strict=True)),
            "actor/learning_rate": self._actor_optimizer.param_groups[0]["lr"],
        }

    def _count_skipped(self, skipped: bool) -> None:
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if skipped else 0
        if self._skipped_in_a_row >= self.config.max_skipped_updates:
            raise TrainingDiverged(
                f"epoch {self.epoch}: no finite actor gradient {self._skipped_in_a_row} times in a row; "
                "a smaller actor_learning_rate or a shorter horizon may help"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of all that the next update depends on, in tensors and plain containers."""
        return copy.deepcopy(
            {
                "epoch": self.epoch,
                "env_steps": self.env_steps,
                "skipped_in_a_row": self._skipped_in_a_row,
                "generator": self._generator.get_state(),
                "policy_generator": self.policy.samples.get_state(),
                "env": self.env.state_dict(),
                **{name: part.state_dict() for name, part in self._parts().items()},
            }
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave: the next update is, bit for bit, what it would have been.

        Raises ValueError naming what the state lacks, as one of another version may; nothing has changed then.
        """
        missing = sorted(set(self.state_dict()) - set(state))
        if missing:
            raise ValueError(f"learner state: {missing[0]!r} is missing; it was saved by another version")
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.epoch = state["epoch"]
        self.env_steps = state["env_steps"]
        self._skipped_in_a_row = state["skipped_in_a_row"]
        self._generator.set_state(state["generator"])
        self.policy.samples.set_state(state["policy_generator"])
        self.env.load_state_dict(state["env"])

    def _parts(self) -> dict[str, Any]:
        return {
            "policy": self.policy,
            "critics": self.critics,
            "temperature": self.temperature,
            "actor_optimizer": self._actor_optimizer,
            "critic_optimizer": self._critic_optimizer,
            "temperature_optimizer": self._temperature_optimizer,
            "episodes": self._episodes,
        }


def _merge_time_and_env(x: Tensor) -> Tensor:
    return x.flatten(0, 1)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
