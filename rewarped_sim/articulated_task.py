"""What tasks of articulated systems have in common: torques on named joints, and the joints' own readings."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from policy_runner.contract import ActionSpec
from rewarped_sim.domain_randomization import DomainRandomization, RandomParameters
from rewarped_sim.engine.articulation.model import ArticulationModel
from rewarped_sim.engine.articulation.tree import Tree
from rewarped_sim.task import State, Task

UNLIMITED = 1.0e3
"""Stands for a joint that has no limit, in a contract, which wants a number [rad or m]."""


@dataclass(frozen=True, kw_only=True)
class ArticulatedConfig(DomainRandomization):
    """Settings that all of these tasks have."""

    max_episode_steps: int = 1000
    randomize: bool = True
    """Vary the start at every reset."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_episode_steps < 1:
            raise ValueError(f"max_episode_steps must be >= 1, got {self.max_episode_steps}")


class ArticulatedTask(Task):
    """A task whose actions are torques, or forces, of hinges and slides."""

    point_cloud = None
    num_start_random: int
    """Random numbers that `start_state` takes."""

    def __init__(
        self,
        name: str,
        config: ArticulatedConfig,
        device: torch.device,
        *,
        model: ArticulationModel,
        joints: tuple[str, ...],
        strength: tuple[float, ...],
        max_velocity: float,
        default_joint_pos: tuple[float, ...],
    ) -> None:
        """joints: those that are driven; strength: torque [N m] or force [N] of each at action 1."""
        self.name = name
        self.max_episode_steps = config.max_episode_steps
        self.control_dt_s = model.control_dt_s
        self.default_joint_pos = default_joint_pos
        self.model = model
        self.tree = Tree(model)
        actuators = len(model.muscles) or len(joints)
        self._random_parameters = RandomParameters(model, config, device, actuators=actuators)
        self.num_random = self.num_start_random + self._random_parameters.num_random
        self.device = device
        self._coordinates = torch.tensor([model.coordinate(joint) for joint in joints], device=device)
        self._dofs = torch.tensor([model.dof(joint) for joint in joints], device=device)
        self._strength = torch.tensor(strength, device=device)
        by_name = {joint.name: joint for joint in model.joints}
        self.action = ActionSpec(
            joint_names=joints,
            mode="effort",
            scale=strength,
            lower=tuple(max(by_name[joint].lower, -UNLIMITED) for joint in joints),
            upper=tuple(min(by_name[joint].upper, UNLIMITED) for joint in joints),
            max_velocity=(max_velocity,) * len(joints),
        )

    @abstractmethod
    def start_state(self, uniform: Tensor) -> State:
        """Start states from random numbers in [0, 1), (num_envs, num_start_random)."""

    def initial_state(self, uniform: Tensor) -> State:
        start, parameters = uniform.split((self.num_start_random, self._random_parameters.num_random), dim=1)
        return self.start_state(start) | self._random_parameters(parameters)

    def build(self) -> ArticulationModel:
        return self.model

    def control(self, state: State, action: Tensor) -> dict[str, Tensor]:
        """The actions' torques on their joints, and none on others."""
        joint_f = torch.zeros(len(action), self.model.num_dofs, device=self.device)
        torque = self.strength_factor(state) * self._strength * action
        return {"joint_f": joint_f.index_copy(1, self._dofs, torque)}

    def strength_factor(self, state: State) -> Tensor | float:
        """Factor on what each motor or muscle does, (num_envs, actuators); 1 where it does not vary."""
        return state.get("strength", 1.0)

    def joint_position(self, state: State) -> Tensor:
        return state["joint_q"][:, self._coordinates]

    def joint_velocity(self, state: State) -> Tensor:
        return state["joint_qd"][:, self._dofs]
