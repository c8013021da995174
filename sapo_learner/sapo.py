"""SAPO: Soft Analytic Policy Optimization, a maximum-entropy first-order actor-critic.

Xing, Luk and Oh, "Stabilizing Reinforcement Learning in Differentiable Multiphysics Simulation", ICLR 2025
(arXiv 2412.12089). One epoch is one `Sapo.update`: roll the policy out for a window of H steps through a
differentiable simulator, improve the actor by the gradient of the window's return, adapt the temperature, and fit the
critics to TD(lambda) targets. Envs are not reset between epochs; only the gradient is cut.

Where the paper and the code that was published with it differ, this follows the paper, and in four points neither:
the value after a step belongs to the observation after it; gradient clipping covers encoders too; the deterministic
action is tanh of the mean; nothing but weight matrices decays.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from sapo_learner.critics import Critics
from sapo_learner.distributions import normalized_entropy, standard_normal
from sapo_learner.encoders import POOLS, Pool
from sapo_learner.episodes import EpisodeStatistics
from sapo_learner.network_input import NetworkInput, stack
from sapo_learner.optimization import (
    Temperature,
    make_adamw,
    parameters_of,
    set_learning_rate,
    step_clipped,
)
from sapo_learner.policy import SquashedNormalPolicy
from sapo_learner.returns import actor_objective, segment_ends, td_lambda_targets
from sapo_learner.vec_env import Obs, VecEnv

MAX_OBSERVATION = 1e6
"""A terminal observation with a larger entry has no value worth bootstrapping from."""


class Interrupted(Exception):  # noqa: N818 (asked for by the caller, so not an error)
    """An update was stopped at the caller's wish; the learner and its env are as they were before it."""


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
    """Multiplies the reward. It sets how much the entropy bonus weighs."""
    actor_hidden: tuple[int, ...] = (512, 256)
    """Widths of the actor's hidden layers."""
    critic_hidden: tuple[int, ...] = (256, 256)
    """Widths of each critic's hidden layers."""
    num_critics: int = 2
    """Critics; the actor climbs their mean, targets take their minimum."""
    pool: Pool = "mean"
    """How the point encoder pools over points, `mean` or `max`."""
    actor_learning_rate: float = 2e-3
    """At the first epoch; falls linearly to `final_learning_rate` at the last planned one."""
    critic_learning_rate: float = 5e-4
    """At the first epoch; falls linearly to `final_learning_rate` at the last planned one."""
    final_learning_rate: float = 1e-5
    """Of actor and critics after the last planned epoch."""
    temperature_learning_rate: float = 5e-3
    """Of the logarithm of the temperature; constant."""
    betas: tuple[float, float] = (0.7, 0.95)
    """Decay rates of AdamW's two moments."""
    weight_decay: float = 0.01
    """Of weight matrices. Biases, norms and temperature never decay."""
    max_grad_norm: float = 0.5
    """Clip of the gradient norm over all parameters of an optimiser."""
    critic_passes: int = 16
    """Passes over the window's data in each epoch."""
    num_minibatches: int = 4
    """Critic steps in each pass."""
    shuffle_minibatches: bool = True
    """Draw minibatches at random; False takes them in order of time, as the published runs did."""
    initial_temperature: float = 1.0
    """First weight of the entropy bonus."""
    target_entropy_per_dim: float = -0.5
    """Entropy per action dimension [nat] at which the temperature stands still; the bonus is 0 there."""
    entropy_samples: int = 1
    """Independent samples in each step's entropy estimate."""
    entropy_in_actor: bool = True
    """Reward the actor for entropy. False, with the next one False too: first-order actor-critic without entropy."""
    entropy_in_targets: bool = True
    """Let the critics value future entropy (the soft value function)."""
    max_skipped_updates: int = 10
    """Actor updates in a row that may be skipped for a non-finite gradient before `TrainingDiverged`."""

    def __post_init__(self) -> None:
        counts = (
            "horizon",
            "num_critics",
            "critic_passes",
            "num_minibatches",
            "entropy_samples",
            "max_skipped_updates",
        )
        rates = (
            "actor_learning_rate",
            "critic_learning_rate",
            "final_learning_rate",
            "temperature_learning_rate",
        )
        for name in (*counts, *rates, "reward_scale", "max_grad_norm", "initial_temperature"):
            _require(getattr(self, name) > 0, name, "> 0", getattr(self, name))
        for name in ("gamma", "td_lambda"):
            _require(0 <= getattr(self, name) <= 1, name, "in [0, 1]", getattr(self, name))
        for name in ("actor_hidden", "critic_hidden"):
            sizes = tuple(getattr(self, name))
            object.__setattr__(self, name, sizes)
            _require(all(size > 0 for size in sizes), name, "sizes > 0", sizes)
        betas = tuple(self.betas)
        object.__setattr__(self, "betas", betas)
        _require(
            len(betas) == 2 and all(0 <= beta < 1 for beta in betas), "betas", "two numbers in [0, 1)", betas
        )
        _require(self.weight_decay >= 0, "weight_decay", ">= 0", self.weight_decay)
        _require(self.pool in POOLS, "pool", f"one of {list(POOLS)}", self.pool)
        _require(
            self.target_entropy_per_dim < 0, "target_entropy_per_dim", "< 0", self.target_entropy_per_dim
        )


class Window(NamedTuple):
    """What a rollout of H steps in N envs leaves. `reward`, `entropy` and `terminal` carry the actor's gradient."""

    inputs: NetworkInput
    """(H, N, ...) normalised observations acted on, without gradient."""
    terminal: NetworkInput
    """(H, N, ...) normalised observations after each step and before any reset."""
    states: Tensor
    """(H + 1, N, state_size) raw states, for the normaliser: at the start, and after each step and reset."""
    reward: Tensor
    """(H, N), scaled."""
    entropy: Tensor
    """(H, N) estimates of the policy's entropy [nat]."""
    done: Tensor
    """(H, N) bool, the episode ended with this step."""
    bootstraps: Tensor
    """(H, N) bool, the observation after this step has a value: no failure, and nothing broken in it."""
    info: dict[str, Tensor]
    """(H, N) each, what the env reports besides."""


class Sapo:
    """The learner: networks, optimisers and random state around one `VecEnv`, which it resets once and then owns.

    The same seed gives the same networks on every device, and the same training on the same machine.
    """

    def __init__(self, env: VecEnv, config: SapoConfig, *, seed: int, planned_epochs: int) -> None:
        """Raise ValueError for a window too small to be cut into minibatches, or without planned epochs."""
        _require(planned_epochs > 0, "planned_epochs", "> 0", planned_epochs)
        samples = config.horizon * env.num_envs
        _require(
            samples >= config.num_minibatches,
            "num_minibatches",
            f"<= horizon * num_envs = {samples}",
            config.num_minibatches,
        )
        self.env = env
        self.config = config
        self.planned_epochs = planned_epochs
        self.epoch = 0
        self.env_steps = 0
        self.target_entropy = config.target_entropy_per_dim * env.action_dim

        weights = Generator().manual_seed(seed)
        seeds = torch.randint(2**62, (2,), generator=weights).tolist()
        self._random, policy_random = (Generator(env.device).manual_seed(seed) for seed in seeds)
        self.policy = SquashedNormalPolicy(
            env.obs_spec,
            env.action_dim,
            hidden=config.actor_hidden,
            pool=config.pool,
            weights=weights,
            samples=policy_random,
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
        self._episodes = EpisodeStatistics(env.num_envs)
        self._skipped_in_a_row = 0
        env.reset()

    def update(self, should_stop: Callable[[], bool] | None = None) -> dict[str, float]:
        """Run one epoch and return its metrics by name.

        Raises:
            Interrupted: `should_stop()` turned true during the rollout; nothing has changed.
            TrainingDiverged: the actor's gradient was not finite for too many epochs in a row. The epoch is complete
                without its actor step, and the learner can be saved.
        """
        window = self._rollout_or_restore(should_stop or (lambda: False))
        self._schedule_learning_rates()
        next_values = self._next_values(window)
        metrics = self._improve_actor(window)
        metrics |= self._adapt_temperature(window)
        targets = td_lambda_targets(
            self._soft_reward(window, self.config.entropy_in_targets),
            next_values,
            window.done,
            gamma=self.config.gamma,
            td_lambda=self.config.td_lambda,
        )
        metrics |= self._fit_critics(window.inputs, targets)
        self.policy.normalizer.update(window.states)
        self.epoch += 1
        self.env_steps += window.reward.numel()
        report = self._report(window, metrics)
        self._count_skipped(report["actor/skipped"] > 0)
        return report

    # ---- rollout -----------------------------------------------------------------------------------------------

    def _rollout_or_restore(self, should_stop: Callable[[], bool]) -> Window:
        env_before, random_before = self.env.state_dict(), self._random.get_state()
        try:
            return self._rollout(should_stop)
        except BaseException:  # whatever it was: the learner can still be saved and continued
            self.env.load_state_dict(env_before)
            self._random.set_state(random_before)
            raise

    def _rollout(self, should_stop: Callable[[], bool]) -> Window:
        """Act for a window with gradient. It changes the env and the random state, and nothing else."""
        env, policy, config = self.env, self.policy, self.config
        shape = (config.horizon, env.num_envs, env.action_dim)
        action_noise = standard_normal(shape, self._random)
        entropy_noise = standard_normal((config.horizon, config.entropy_samples, *shape[1:]), self._random)

        obs = env.detach()
        states, inputs, entropies, steps = [policy.layout.pack(obs).state], [], [], []
        for t in range(config.horizon):
            if should_stop():
                raise Interrupted(f"stopped in step {t} of epoch {self.epoch}")
            normalized = policy.normalize(obs)
            distribution = policy.distribution(normalized)
            step = env.step(distribution.sample(action_noise[t]))
            obs = step.obs
            inputs.append(normalized.map(Tensor.detach))
            entropies.append(distribution.entropy(entropy_noise[t]))
            states.append(policy.layout.pack(obs).state.detach())
            steps.append(step)

        terminated, truncated = (
            torch.stack([getattr(s, name) for s in steps]) for name in ("terminated", "truncated")
        )
        usable = torch.stack([_is_usable(s.terminal_obs) for s in steps])
        return Window(
            inputs=stack(inputs),
            terminal=stack([policy.normalize(s.terminal_obs) for s in steps]),
            states=torch.stack(states),
            reward=torch.stack([s.reward for s in steps]) * config.reward_scale,
            entropy=torch.stack(entropies),
            done=terminated | truncated,
            # a failure in the very last step of an episode counts as reaching its time limit
            bootstraps=(truncated | ~terminated) & usable,
            info={name: torch.stack([s.info[name] for s in steps]) for name in steps[0].info},
        )

    @torch.no_grad()
    def _next_values(self, window: Window) -> Tensor:
        """Return the least of the critics' values after each step, (H, N); zero where there is nothing to bootstrap."""
        values = self.critics(window.terminal.map(_merge_time_and_env)).amin(dim=0)
        return torch.where(window.bootstraps, values.view_as(window.bootstraps), 0.0)

    # ---- actor and temperature ---------------------------------------------------------------------------------

    def _improve_actor(self, window: Window) -> dict[str, Tensor]:
        """Climb the gradient of the window's return, which flows through simulator and critics, by one step."""
        ends = (segment_ends(window.done) & window.bootstraps).flatten().nonzero().squeeze(-1)
        end_inputs = window.terminal.map(lambda x: _merge_time_and_env(x)[ends])
        end_values = self.critics(end_inputs).mean(dim=0)
        next_values = (
            torch.zeros_like(window.reward).flatten().index_put((ends,), end_values).view_as(window.reward)
        )
        objective = actor_objective(
            self._soft_reward(window, self.config.entropy_in_actor),
            next_values,
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
        """Lower alpha while the entropy is above its target, raise it while it is below."""
        loss = self.temperature.loss(window.entropy, self.target_entropy)
        self._temperature_optimizer.zero_grad()
        loss.backward()
        step_clipped(self._temperature_optimizer, max_norm=self.config.max_grad_norm)
        return {"entropy": window.entropy.detach().mean(), "temperature": self.temperature.value}

    def _soft_reward(self, window: Window, with_entropy: bool) -> Tensor:
        """Reward plus, if asked for, the normalised entropy at the present temperature, (H, N)."""
        if not with_entropy:
            return window.reward
        return window.reward + self.temperature.value * normalized_entropy(
            window.entropy, self.target_entropy
        )

    # ---- critics -----------------------------------------------------------------------------------------------

    def _fit_critics(self, inputs: NetworkInput, targets: Tensor) -> dict[str, Tensor]:
        """Regress all critics on the targets, several passes over the window in minibatches."""
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
        """Cut the samples' indices, shuffled or in order of time, into minibatches."""
        device = self.env.device
        if self.config.shuffle_minibatches:
            indices = torch.randperm(size, generator=self._random, device=device)
        else:
            indices = torch.arange(size, device=device)
        return indices.tensor_split(self.config.num_minibatches)

    def _schedule_learning_rates(self) -> None:
        config, progress = self.config, min(self.epoch / self.planned_epochs, 1.0)
        for optimizer, first in (
            (self._actor_optimizer, config.actor_learning_rate),
            (self._critic_optimizer, config.critic_learning_rate),
        ):
            set_learning_rate(optimizer, first + (config.final_learning_rate - first) * progress)

    # ---- results -----------------------------------------------------------------------------------------------

    def _report(self, window: Window, metrics: dict[str, Tensor]) -> dict[str, float]:
        """Bring the epoch's numbers to the host; apart from the actor's segment ends, the only wait for the device."""
        reward = window.reward.detach() / self.config.reward_scale
        self._episodes.update(reward.cpu(), window.done.cpu())
        metrics = metrics | {"step_reward": reward.mean()}
        for name, values in window.info.items():
            metrics[name] = values.sum() if values.dtype == torch.bool else values.mean()
        numbers = torch.stack([value.double() for value in metrics.values()]).tolist()
        report = {
            "env_steps": float(self.env_steps),
            **self._episodes.summary(),
            **dict(zip(metrics, numbers, strict=True)),
        }
        report["actor/learning_rate"] = self._actor_optimizer.param_groups[0]["lr"]
        return report

    def _count_skipped(self, skipped: bool) -> None:
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if skipped else 0
        if self._skipped_in_a_row >= self.config.max_skipped_updates:
            raise TrainingDiverged(
                f"epoch {self.epoch}: the actor's gradient was not finite {self._skipped_in_a_row} times in a row; "
                "lower actor_learning_rate or horizon, or look at the env's states"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next update depends on, as tensors and plain containers; copied where it would change."""
        return copy.deepcopy(
            {
                "epoch": self.epoch,
                "env_steps": self.env_steps,
                "skipped_in_a_row": self._skipped_in_a_row,
                "random": self._random.get_state(),
                "policy_random": self.policy.samples.get_state(),
                "env": self.env.state_dict(),
                "episodes": self._episodes.state_dict(),
                **{name: part.state_dict() for name, part in self._parts().items()},
            }
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave; the next update is then, bit for bit, the one that would have followed."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.epoch = state["epoch"]
        self.env_steps = state["env_steps"]
        self._skipped_in_a_row = state["skipped_in_a_row"]
        self._random.set_state(state["random"])
        self.policy.samples.set_state(state["policy_random"])
        self._episodes.load_state_dict(state["episodes"])
        self.env.load_state_dict(state["env"])

    def _parts(self) -> dict[str, Any]:
        return {
            "policy": self.policy,
            "critics": self.critics,
            "temperature": self.temperature,
            "actor_optimizer": self._actor_optimizer,
            "critic_optimizer": self._critic_optimizer,
            "temperature_optimizer": self._temperature_optimizer,
        }


def _merge_time_and_env(x: Tensor) -> Tensor:
    return x.flatten(0, 1)


def _is_usable(obs: Obs) -> Tensor:
    """Envs whose whole observation is finite and of sane size, (N,) bool; NaN compares false."""
    largest = [value.detach().flatten(1).abs().amax(dim=1) for value in obs.values()]
    return torch.stack(largest).amax(dim=0) <= MAX_OBSERVATION


def _require(condition: bool, name: str, expected: str, got: Any) -> None:
    if not condition:
        raise ValueError(f"{name} must be {expected}, got {got}")
