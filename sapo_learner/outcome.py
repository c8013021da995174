"""How the steps of a window ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sapo_learner.vec_env import Obs, StepResult

MAX_OBSERVATION = 1e6
"""A terminal observation with a larger entry has no value worth bootstrapping from."""


class Outcome(NamedTuple):
    """What H steps in N envs came to, beside observations."""

    reward: Tensor
    """(H, N), with the gradient that it has."""
    done: Tensor
    """(H, N) bool: the episode ended with this step."""
    has_value: Tensor
    """(H, N) bool: the observation after this step is worth something; neither failed nor broken."""
    info: dict[str, Tensor]
    """(H, N) each: what the env reports besides."""

    @staticmethod
    def of(steps: Sequence[StepResult]) -> Outcome:
        """Put the steps of a window together."""
        terminated = torch.stack([step.terminated for step in steps])
        truncated = torch.stack([step.truncated for step in steps])
        sane = torch.stack([_is_sane(step.terminal_obs) for step in steps])
        return Outcome(
            reward=torch.stack([step.reward for step in steps]),
            done=terminated | truncated,
            # a failure in the very last step of an episode counts as reaching its time limit
            has_value=(truncated | ~terminated) & sane,
            info={name: torch.stack([step.info[name] for step in steps]) for name in steps[0].info},
        )


def _is_sane(obs: Obs) -> Tensor:
    """Tell which envs' whole observation is finite and of sane size, (N,) bool; NaN compares false."""
    largest = [value.detach().flatten(1).abs().amax(dim=1) for value in obs.values()]
    return torch.stack(largest).amax(dim=0) <= MAX_OBSERVATION
