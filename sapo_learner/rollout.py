"""Act for one window of control steps, with gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sapo_learner.distributions import Distribution, SquashedNormal
from sapo_learner.learner import Interrupted
from sapo_learner.network_input import NetworkInput, stack
from sapo_learner.outcome import Outcome
from sapo_learner.policy import GaussianPolicy
from sapo_learner.vec_env import VecEnv


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
    actions: tuple[Tensor, ...]
    """H times (N, d): the very tensors that `reward` and `terminal` were computed from."""
    action_noise: Tensor
    """(H, N, d), that of the actions."""
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
    states, inputs, distributions, actions, steps = [policy.layout.pack(obs).state], [], [], [], []
    for t in range(len(action_noise)):
        if should_stop():
            raise Interrupted(f"stopped before step {t} of {len(action_noise)}")
        normalized = policy.normalize(obs)
        inputs.append(normalized.map(Tensor.detach))
        distributions.append(policy.distribution(normalized))
        actions.append(distributions[-1].sample(action_noise[t]))
        step = env.step(actions[-1])
        obs = step.obs
        states.append(policy.layout.pack(obs).state.detach())
        steps.append(step)

    terminal = stack([policy.layout.pack(step.terminal_obs) for step in steps])
    return Window(
        inputs=stack(inputs),
        terminal=NetworkInput(policy.normalizer(terminal.state), terminal.cloud),
        states=torch.stack(states),
        entropy=None if entropy_noise is None else _entropy(distributions, entropy_noise),
        actions=tuple(actions),
        action_noise=action_noise,
        **Outcome.of(steps)._asdict(),
    )


def _entropy(distributions: Sequence[Distribution], noise: Tensor) -> Tensor:
    """Estimate the entropies of H squashed policies, (H, N), all at once. noise: (H, samples, N, d)."""
    assert all(isinstance(distribution, SquashedNormal) for distribution in distributions)
    mean, log_std = (torch.stack(parameters) for parameters in zip(*distributions, strict=True))
    return SquashedNormal(mean, log_std).entropy(noise.transpose(0, 1))
