"""What one file under `tasks/` has to say about its task. Batching, clocks and resets are the env's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from policy_runner.contract import ActionSpec, ObsTerm, PointCloudSpec
from rewarped_sim.scene import Scene
from rewarped_sim.torch_bridge import AnyModel

State = dict[str, Tensor]
"""State of all envs by name; which entries physics needs and moves depends on the engine:

* particles: `particles` (num_envs, num_particles, 24), `joint_q` (num_envs, joints); where the scene has them `bodies`
  (num_envs, bodies, 13); `materials` (num_envs, parts, fields) where they vary between episodes;
* articulations: `joint_q` (num_envs, coordinates), `joint_qd` (num_envs, dofs); `parameters` (num_envs, size) where
  they vary between episodes;
* soft bodies: `vertices` (num_envs, num_vertices, 6), positions and velocities.

What else a task puts in stays as it is until the next reset, unless `Task.after_step` changes it."""
Draw = Callable[[Tensor, int], Tensor]
"""Uniform numbers in [0, 1), (num_envs, count), as a function of a counter (num_envs,) int64 in [0, 2^20) and count.
The same counter in the same episode of the same env gives the same numbers."""


class Task(ABC):
    """A task: its scene, its start states, what is observed, what is rewarded. All tensors are batched."""

    name: str
    obs_spec: tuple[ObsTerm, ...]
    point_cloud: PointCloudSpec | None
    action: ActionSpec
    control_dt_s: float
    """Period of the control loop on a robot [s]."""
    max_episode_steps: int
    default_joint_pos: tuple[float, ...]
    num_random: int
    """Random numbers that one start state takes."""

    @abstractmethod
    def __init__(self, name: str, config: Any, device: torch.device) -> None:
        """Prepare constants on the device."""

    @abstractmethod
    def build(self) -> AnyModel:
        """The physics of one environment."""

    @abstractmethod
    def initial_state(self, uniform: Tensor) -> State:
        """Start states from random numbers in [0, 1), (num_envs, num_random)."""

    @abstractmethod
    def control(self, state: State, action: Tensor) -> dict[str, Tensor]:
        """What drives physics in this control step, from actions in [-1, 1] (num_envs, action_dim).

        Particles: `joint_dq` (num_envs, joints), change of `joint_q`. Articulations: `joint_f` (num_envs, dofs),
        generalised forces; `joint_target` (num_envs, dofs) for drives, `activation` (num_envs, muscles) for muscles.
        Soft bodies: `activation` (num_envs, tets).
        """

    @abstractmethod
    def observe(self, state: State, action: Tensor) -> dict[str, Tensor]:
        """Observation terms of `obs_spec`, differentiable, owning their memory."""

    @abstractmethod
    def reward(self, state: State, action: Tensor) -> dict[str, Tensor]:
        """Named terms, each (num_envs,); the reward is their sum."""

    def terminated(self, state: State) -> Tensor:
        """Envs that failed, (num_envs,) bool. By default none does."""
        entry = next(iter(state.values()))
        return torch.zeros(len(entry), dtype=torch.bool, device=entry.device)

    def after_step(self, state: State, draw: Draw) -> State:
        """The state to go on with, after reward and termination and before the observation: new goals, clocks."""
        return state

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Joints that can be read. By default those that the action names; muscles are none."""
        return self.action.joint_names

    def joint_position(self, state: State) -> Tensor:
        """Positions of `joint_names`, (num_envs, joints) [rad or m]. By default all of `joint_q`."""
        return state["joint_q"]

    def joint_velocity(self, state: State) -> Tensor:
        """Velocities of `joint_names`, (num_envs, joints) [rad/s or m/s]. By default zero."""
        return torch.zeros_like(self.joint_position(state))

    @abstractmethod
    def scene(self, state: State, action: Tensor, index: int) -> Scene:
        """What there is to see in one env after an action (num_envs, action_dim); copies to the host."""
