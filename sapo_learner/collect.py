"""Act for one window of control steps, without gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sapo_learner.learner import Interrupted
from sapo_learner.network_input import NetworkInput, ObsLayout, stack
from sapo_learner.outcome import Outcome
from sapo_learner.vec_env import VecEnv


class Experience(NamedTuple):
    """H steps in N envs, observations as the env gives them."""

    inputs: NetworkInput
    """(H, N, ...) observations acted on."""
    terminal: NetworkInput
    """(H, N, ...) observations after each step and before any reset."""
    action: Tensor
    """(H, N, d) as chosen; the env clips what is beyond +-1."""
    reward: Tensor
    """(H, N)."""
    done: Tensor
    """(H, N) bool: the episode ended with this step."""
    has_value: Tensor
    """(H, N) bool: the observation after this step is worth something; neither failed nor broken."""
    info: dict[str, Tensor]
    """(H, N) each: what the env reports besides."""


@torch.no_grad()
def collect(
    env: VecEnv,
    layout: ObsLayout,
    act: Callable[[NetworkInput, int], Tensor],
    *,
    num_steps: int,
    should_stop: Callable[[], bool],
) -> Experience:
    """Go on from where the env stands. Nothing in the loop waits for the device.

    act: from observations (N, ...) and the number of the step to actions (N, d).

    Raises:
        Interrupted: `should_stop()`, asked before every step, turned true.
    """
    obs = layout.pack(env.detach())
    inputs, actions, steps = [], [], []
    for t in range(num_steps):
        if should_stop():
            raise Interrupted(f"stopped before step {t} of {num_steps}")
        inputs.append(obs)
        actions.append(act(obs, t))
        steps.append(env.step(actions[-1]))
        obs = layout.pack(steps[-1].obs)

    return Experience(
        inputs=stack(inputs),
        terminal=stack([layout.pack(step.terminal_obs) for step in steps]),
        action=torch.stack(actions),
        **Outcome.of(steps)._asdict(),
    )
