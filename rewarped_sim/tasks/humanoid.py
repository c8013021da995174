"""Humanoid: 21 driven joints run along +x.

The task of DFlex, with the body of dm_control. There the mass matrix is factored once per control step; here every
substep has its own. An env whose state is not finite is reset like in any other task.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from policy_runner.contract import ObsTerm
from rewarped_sim.articulated_task import ArticulatedConfig
from rewarped_sim.assets import humanoid as asset
from rewarped_sim.locomotion import TORSO_RANDOM, LeggedTask, hinge_terms, torso_terms
from rewarped_sim.observation import fill
from rewarped_sim.registry import register
from rewarped_sim.task import State

NUM_JOINTS = len(asset.JOINT_NAMES)
_LEG = (200.0, 200.0, 600.0, 400.0, 100.0, 100.0)
_ARM = (100.0, 100.0, 200.0)
STRENGTH_NM = tuple(0.35 * torque for torque in (200.0, 200.0, 200.0, *_LEG, *_LEG, *_ARM, *_ARM))
"""Torque of each of `JOINT_NAMES` at action 1 [N m]."""
LOWEST_HEIGHT_M = 0.74
"""A torso below this has fallen."""
CROUCH_M = 0.84
"""Above this height standing earns something, below it costs much."""
HEIGHT_REWARD_MAX_M = 0.1
EFFORT = 0.002


@dataclass(frozen=True, kw_only=True)
class HumanoidConfig(ArticulatedConfig):
    """Settings of the task; the defaults are the published ones."""


@register(
    "humanoid",
    config=HumanoidConfig(),
    num_envs=64,
    summary="a humanoid with 21 driven joints runs along +x, as in DFlex",
)
class Humanoid(LeggedTask):
    """See the module."""

    obs_spec = (
        *torso_terms(*hinge_terms(NUM_JOINTS)),
        ObsTerm(name="previous_action", kind="previous_action", shape=(NUM_JOINTS,)),
    )
    num_start_random = TORSO_RANDOM + NUM_JOINTS + 6 + NUM_JOINTS

    def __init__(self, name: str, config: HumanoidConfig, device: torch.device) -> None:
        super().__init__(
            name,
            config,
            device,
            model=asset.humanoid(),
            joints=asset.JOINT_NAMES,
            strength=STRENGTH_NM,
            max_velocity=30.0,
            default_joint_pos=(0.0,) * NUM_JOINTS,
        )
        self._spread = float(config.randomize)
        self._start = torch.tensor(self.model.start_q(), dtype=torch.float32, device=device)

    def start_state(self, uniform: Tensor) -> State:
        return self.around(self._start, torch.lerp(torch.full_like(uniform, 0.5), uniform, self._spread))

    def observe(self, state: State, action: Tensor) -> dict[str, Tensor]:
        return fill(
            self.obs_spec,
            privileged=self.torso(state).observed(),
            joint_position=self.joint_position(state),
            joint_velocity=self.joint_velocity(state),
            previous_action=action,
        )

    def reward(self, state: State, action: Tensor) -> dict[str, Tensor]:
        torso = self.torso(state)
        above = (torso.height - CROUCH_M).clamp(-1.0, HEIGHT_REWARD_MAX_M)
        return {
            "speed": torso.velocity[:, 0],
            "up": 0.1 * torso.up,
            "heading": torso.heading,
            "height": torch.where(above < 0.0, -200.0 * above.square(), 10.0 * above),
            "effort": -EFFORT * action.square().sum(dim=1),
        }

    def terminated(self, state: State) -> Tensor:
        return state["joint_q"][:, 2] < LOWEST_HEIGHT_M
