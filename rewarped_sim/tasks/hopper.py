"""Hopper: a one-legged robot in the plane of x and z hops forward.

The task of DFlex; its joint position zero stands upright. (Rewarped's port of it is broken: its observation is shifted
by one entry against its reward.) There y is up, here z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from policy_runner.contract import ObsTerm
from rewarped_sim.articulated_scene import articulated_scene
from rewarped_sim.articulated_task import ArticulatedConfig, ArticulatedTask
from rewarped_sim.assets import hopper as asset
from rewarped_sim.observation import fill, privileged_term
from rewarped_sim.registry import register
from rewarped_sim.scene import Scene
from rewarped_sim.task import State

STRENGTH_NM = 200.0
FALLEN_M = -0.45
"""Height of the torso, above that of standing upright, below which it has fallen."""
CROUCH_M = -0.30
"""Above this height standing earns something, below it costs much."""
HEIGHT_REWARD_MAX_M = 0.3
UPRIGHT_RAD = math.pi / 6.0
START_SPREAD = 0.05
"""Of all coordinates [m or rad] and velocities."""


@dataclass(frozen=True, kw_only=True)
class HopperConfig(ArticulatedConfig):
    """Settings of the task; the defaults are the published ones."""


@register(
    "hopper",
    config=HopperConfig(),
    num_envs=64,
    summary="a one-legged robot hops forward in a plane, as in DFlex",
)
class Hopper(ArticulatedTask):
    """See the module."""

    obs_spec = (
        privileged_term("torso_height", 1, "m"),
        privileged_term("torso_pitch", 1, "rad"),
        ObsTerm(name="joint_position", kind="joint_position", shape=(3,), unit="rad"),
        privileged_term("torso_velocity", 2, "m/s"),
        privileged_term("torso_pitch_rate", 1, "rad/s"),
        ObsTerm(name="joint_velocity", kind="joint_velocity", shape=(3,), unit="rad/s"),
    )
    num_start_random = 12

    def __init__(self, name: str, config: HopperConfig, device: torch.device) -> None:
        super().__init__(
            name,
            config,
            device,
            model=asset.hopper(),
            joints=asset.JOINT_NAMES,
            strength=(STRENGTH_NM,) * 3,
            max_velocity=30.0,
            default_joint_pos=(0.0,) * 3,
        )
        self._spread = START_SPREAD * float(config.randomize)

    def start_state(self, uniform: Tensor) -> State:
        q, qd = (self._spread * (2.0 * uniform - 1.0)).split(6, dim=1)
        return {"joint_q": q, "joint_qd": qd}

    def observe(self, state: State, action: Tensor) -> dict[str, Tensor]:
        q, qd = state["joint_q"], state["joint_qd"]
        return fill(
            self.obs_spec,
            privileged={
                "torso_height": q[:, 1:2],
                "torso_pitch": q[:, 2:3],
                "torso_velocity": qd[:, :2],
                "torso_pitch_rate": qd[:, 2:3],
            },
            joint_position=self.joint_position(state),
            joint_velocity=self.joint_velocity(state),
        )

    def reward(self, state: State, action: Tensor) -> dict[str, Tensor]:
        height, pitch = state["joint_q"][:, 1], state["joint_q"][:, 2]
        above = (height - CROUCH_M).clamp(-1.0, HEIGHT_REWARD_MAX_M)
        return {
            "speed": state["joint_qd"][:, 0],
            "height": torch.where(above < 0.0, -200.0 * above.square(), above),
            "upright": 1.0 - (pitch / UPRIGHT_RAD).square(),
            "effort": -0.1 * action.square().sum(dim=1),
        }

    def terminated(self, state: State) -> Tensor:
        return state["joint_q"][:, 1] < FALLEN_M

    def scene(self, state: State, action: Tensor, index: int) -> Scene:
        q = state["joint_q"][index].detach().cpu().double().numpy()
        return articulated_scene(self.tree, q, focus=(float(q[0]), 0.0, 0.75), follow=True)
