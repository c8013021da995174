"""What one file under `tasks/` has to say about its task. Batching, clocks and resets are the env's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from policy_runner.contract import ActionSpec, ObsTerm, PointCloudSpec
from rewarped_sim.engine.mpm.model import MpmModel
from rewarped_sim.scene import Scene

State = dict[str, Tensor]
"""State of all envs by name: `particles` (num_envs, num_particles, 24), `joint_q` (num_envs, joints); where the scene
has them `bodies` (num_envs, bodies, 13); `materials` (num_envs, parts, fields) where a task varies them between
episodes. What else a task puts in stays as it is until the next reset."""


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
    def build(self) -> MpmModel:
        """The physics of one environment."""

    @abstractmethod
    def initial_state(self, uniform: Tensor) -> State:
        """Start states from random numbers in [0, 1), (num_envs, num_random)."""

    @abstractmethod
    def control(self, state: State, action: Tensor) -> Tensor:
        """Change of the joint coordinates in this control step, (num_envs, joints), from actions in [-1, 1]."""

    @abstractmethod
    def observe(self, state: State, action: Tensor) -> dict[str, Tensor]:
        """Observation terms of `obs_spec`, differentiable, owning their memory."""

    @abstractmethod
    def reward(self, state: State, action: Tensor) -> dict[str, Tensor]:
        """Named terms, each (num_envs,); the reward is their sum."""

    def terminated(self, state: State) -> Tensor:
        """Envs that failed, (num_envs,) bool. By default none does."""
        return torch.zeros(len(state["joint_q"]), dtype=torch.bool, device=state["joint_q"].device)

    @abstractmethod
    def scene(self, state: State, index: int) -> Scene:
        """What there is to see in one env; copies to the host."""
