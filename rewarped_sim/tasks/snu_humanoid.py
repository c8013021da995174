"""SNU humanoid: a lower body runs along +x, moved by 152 muscles.

The task of DFlex. An action of -1 slackens a muscle, 1 pulls with its full strength, which is 0.36 of what anatomy
gives it, as published. Its height term is computed there but not added to the reward; so it is left out here. There the
model faces +z with y up, and its mass matrix is factored every eighth substep; here it faces +x with z up, and every
substep has its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from policy_runner.contract import ActionSpec
from rewarped_sim.articulated_task import ArticulatedConfig
from rewarped_sim.assets import snu_lower_body as asset
from rewarped_sim.locomotion import FREE_Q, FREE_QD, TORSO_RANDOM, LeggedTask, torso_terms
from rewarped_sim.observation import fill, privileged_term
from rewarped_sim.registry import register
from rewarped_sim.task import State

LOWEST_HEIGHT_M = 0.46
"""A pelvis below this has fallen."""
EFFORT = 0.001


@dataclass(frozen=True, kw_only=True)
class SnuHumanoidConfig(ArticulatedConfig):
    """Settings of the task; the defaults are the published ones."""


@register(
    "snu_humanoid",
    config=SnuHumanoidConfig(),
    num_envs=64,
    summary="a lower body runs along +x on 152 muscles, as in DFlex",
)
class SnuHumanoid(LeggedTask):
    """See the module."""

    def __init__(self, name: str, config: SnuHumanoidConfig, device: torch.device) -> None:
        model = asset.snu_lower_body()
        coordinates, dofs = model.num_coordinates - FREE_Q, model.num_dofs - FREE_QD
        self.num_start_random = TORSO_RANDOM + coordinates + model.num_dofs
        hinges = tuple(joint.name for joint in model.joints if joint.kind == "hinge")
        self._hinges = hinges
        super().__init__(
            name,
            config,
            device,
            model=model,
            joints=hinges,
            strength=(1.0,) * len(hinges),
            max_velocity=30.0,
            default_joint_pos=(0.0,) * len(hinges),
        )
        muscles = tuple(muscle.name for muscle in model.muscles)
        count = len(muscles)
        self.action = ActionSpec(
            joint_names=muscles,
            mode="effort",
            scale=(0.5,) * count,
            offset=(0.5,) * count,
            lower=(0.0,) * count,
            upper=(1.0,) * count,
            max_velocity=(1.0 / model.control_dt_s,) * count,
        )
        self.default_joint_pos = (0.0,) * count
        self.obs_spec = torso_terms(
            privileged_term("joint_coordinates", coordinates),
            privileged_term("joint_velocities", dofs, "rad/s", scale=0.1),
        )
        self._spread = float(config.randomize)
        self._start = torch.tensor(model.start_q(), dtype=torch.float32, device=device)

    @property
    def joint_names(self) -> tuple[str, ...]:
        """The hinges; balls have no position that one number tells."""
        return self._hinges

    def start_state(self, uniform: Tensor) -> State:
        u = torch.lerp(torch.full_like(uniform, 0.5), uniform, self._spread)
        return self.around(self._start, u, joint_spread=0.0)

    def control(self, state: State, action: Tensor) -> dict[str, Tensor]:
        """Muscles from slack to full strength."""
        return {"activation": self.strength_factor(state) * _activation(action)}

    def observe(self, state: State, action: Tensor) -> dict[str, Tensor]:
        joints = {
            "joint_coordinates": state["joint_q"][:, FREE_Q:],
            "joint_velocities": state["joint_qd"][:, FREE_QD:],
        }
        return fill(self.obs_spec, privileged=self.torso(state).observed() | joints)

    def reward(self, state: State, action: Tensor) -> dict[str, Tensor]:
        torso = self.torso(state)
        return {
            "speed": torso.velocity[:, 0],
            "up": 0.1 * torso.up,
            "heading": torso.heading,
            "effort": -EFFORT * _activation(action).sum(dim=1),
        }

    def terminated(self, state: State) -> Tensor:
        return state["joint_q"][:, 2] < LOWEST_HEIGHT_M


def _activation(action: Tensor) -> Tensor:
    return 0.5 * (action + 1.0)
