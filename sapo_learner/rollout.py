"""Act for one window of control steps, with gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sapo_learner.distributions import SquashedNormal
from sapo_learner.learner import Interrupted
from sapo_learner.network_input import NetworkInput, stack
from sapo_learner.policy import GaussianPolicy
from sapo_learner.vec_env import Obs, VecEnv

MAX_OBSERVATION = 1e6
"""A terminal observation with a larger entry has no value worth bootstrapping from."""


class Window(NamedTuple):
    """H steps in N envs. `terminal`, `reward` and `entropy` carry the gradient of the policy's parameters."""

    inputs: NetworkInput
    """(H, N, ...) normalised observations acted on, without gradient."""
    terminal: NetworkInput
    """(H, N, ...) normalised observations after each step and before any reset."""
    states: Tensor
    """(H + 1, N, state_size) raw states: at the start, then after each step and any reset. No gradient."""
    reward: Tensor
    """(H, N)."""
    entropy: Tensor | None
    """(H, N) estimates of the policy's entropy [nat], where they were asked for."""
    done: Tensor
    """(H, N) bool: the episode ended with this step."""
    has_value: Tensor
    """(H, N) bool: the observation after this step is worth something; neither failed nor broken."""
    info: dict[str, Tensor]
    """(H, N) each: what the env reports besides."""


def roll_out(
    env: VecEnv,
    policy: GaussianPolicy,
    *,
    action_noise: Tensor,
    entropy_noise: Tensor | None = None,
    should_stop: Callable[[], bool],
) -> Window:
    """Start a new window where the env stands, and act in it. Nothing but the env changes.

    action_noise: (H, N, d), standard normal. entropy_noise: (H, samples, N, d), the same, to estimate the entropy
    of a squashed policy. Nothing in the loop waits for the device: dones are masks, and what is needed of them
    is read afterwards.

    Raises:
        Interrupted: `should_stop()`, asked before every step, turned true.
    """
    obs = env.detach()
    states, inputs, entropies, steps = [policy.layout.pack(obs).state], [], [], []
    for t in range(len(action_noise)):
        if should_stop():
            raise Interrupted(f"stopped before step {t} of {len(action_noise)}")
        normalized = policy.normalize(obs)
        distribution = policy.distribution(normalized)
        step = env.step(distribution.sample(action_noise[t]))
        obs = step.obs
        inputs.append(normalized.map(Tensor.detach))
        if entropy_noise is not None:
            assert isinstance(distribution, SquashedNormal)
            entropies.append(distribution.entropy(entropy_noise[t]))
        states.append(policy.layout.pack(obs).state.detach())
        steps.append(step)

    terminated = torch.stack([step.terminated for step in steps])
    truncated = torch.stack([step.truncated for step in steps])
    sane = torch.stack([is_sane(step.terminal_obs) for step in steps])
    return Window(
        inputs=stack(inputs),
        terminal=stack([policy.normalize(step.terminal_obs) for step in steps]),
        states=torch.stack(states),
        reward=torch.stack([step.reward for step in steps]),
        entropy=torch.stack(entropies) if entropies else None,
        done=terminated | truncated,
        # a failure in the very last step of an episode counts as reaching its time limit
        has_value=(truncated | ~terminated) & sane,
        info={name: torch.stack([step.info[name] for step in steps]) for name in steps[0].info},
    )


def is_sane(obs: Obs) -> Tensor:
    """Tell which envs' whole observation is finite and of sane size, (N,) bool; NaN compares false."""
    largest = [value.detach().flatten(1).abs().amax(dim=1) for value in obs.values()]
    return torch.stack(largest).amax(dim=0) <= MAX_OBSERVATION
