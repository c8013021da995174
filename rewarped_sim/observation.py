"""Fill the observation terms of a policy contract from physical state, as the runner fills them from messages."""

from collections.abc import Mapping

import torch
from torch import Tensor

from policy_runner.contract import ObsTerm
from policy_runner.pointcloud import stride_indices


def observed_particles(num_particles: int, num_points: int, device: torch.device) -> Tensor:
    """Indices of the particles that a policy sees: the runner's own `stride` sampler, applied to all particles."""
    return torch.as_tensor(stride_indices(num_particles, num_points), device=device)


def privileged_term(name: str, size: int, unit: str = "", *, scale: float = 1.0, frame: str = "") -> ObsTerm:
    """A term of what a simulator knows and a robot cannot measure."""
    return ObsTerm(name=name, kind="privileged", shape=(size,), unit=unit, scale=scale, frame=frame)


def fill(
    terms: tuple[ObsTerm, ...],
    *,
    joint_position: Tensor | None = None,
    joint_velocity: Tensor | None = None,
    cloud: Tensor | None = None,
    goal_position: Tensor | None = None,
    previous_action: Tensor | None = None,
    privileged: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Observation dict of `terms` from what was measured.

    joint_position, joint_velocity: (num_envs, joints); cloud: (num_envs, points, 3) in the frame of the terms;
    goal_position: (num_envs, 3); previous_action: (num_envs, actions); privileged: by term name, (num_envs, size). The
    result owns its memory: nothing in it aliases simulator state.
    """
    measured = {
        "joint_position": joint_position,
        "joint_velocity": joint_velocity,
        "cloud": cloud,
        "cloud_mean": None if cloud is None else cloud.mean(dim=1),
        "goal_position": goal_position,
        "previous_action": previous_action,
    }
    obs = {}
    for term in terms:
        value = (privileged or {}).get(term.name) if term.kind == "privileged" else measured[term.kind]
        if value is None:
            raise ValueError(f"observation term {term.name!r}: this state has no {term.kind!r}")
        if tuple(value.shape[1:]) != term.shape:
            raise ValueError(
                f"observation term {term.name!r}: expected {term.shape}, got {tuple(value.shape[1:])}"
            )
        obs[term.name] = value * term.scale
    return obs
