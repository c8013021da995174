"""Ant: a four-legged robot runs along +x as fast as it can.

Two definitions under two names, whose returns cannot be compared:

* `ant`, that of DFlex, as in the SHAC paper (Xu et al., ICLR 2022) and in the first tables of the SAPO paper;
* `ant_run`, that of Rewarped's AntRun, as in the later tables. It keeps what its published figures were measured with:
  a light torso, joints without damping, armature counted twice, self-collision, and the `huber` contact law.

Both simulators factor the mass matrix once per control step; here every substep has its own. Rewarped applies -200 N m
times the action; the sign means nothing to a policy and is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from policy_runner.contract import ObsTerm
from rewarped_sim.articulated_task import ArticulatedConfig
from rewarped_sim.assets import ant as asset
from rewarped_sim.locomotion import FREE_Q, TORSO_RANDOM, LeggedTask, hinge_terms, torso_terms
from rewarped_sim.observation import fill
from rewarped_sim.registry import register
from rewarped_sim.task import State

NUM_JOINTS = len(asset.JOINT_NAMES)
LOWEST_HEIGHT_M = 0.27
"""A torso below this has fallen."""
STRENGTH_NM = 200.0


@dataclass(frozen=True, kw_only=True)
class AntConfig(ArticulatedConfig):
    """Settings of the task; the defaults are the published ones."""

    model: str = "ant"
    """Which definition: `ant` (DFlex) or `ant_run` (Rewarped)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model not in ("ant", "ant_run"):
            raise ValueError(f"model must be 'ant' or 'ant_run', got {self.model!r}")


@register(
    "ant_run",
    config=AntConfig(model="ant_run"),
    num_envs=64,
    summary="a light ant without joint damping runs along +x, as in the SAPO paper's AntRun",
)
@register(
    "ant",
    config=AntConfig(),
    num_envs=64,
    summary="a heavy, damped ant runs along +x, as in DFlex",
)
class Ant(LeggedTask):
    """See the module."""

    obs_spec = (
        *torso_terms(*hinge_terms(NUM_JOINTS)),
        ObsTerm(name="previous_action", kind="previous_action", shape=(NUM_JOINTS,)),
    )
    num_start_random = TORSO_RANDOM + NUM_JOINTS + 6 + NUM_JOINTS

    def __init__(self, name: str, config: AntConfig, device: torch.device) -> None:
        super().__init__(
            name,
            config,
            device,
            model=asset.ant() if config.model == "ant" else asset.ant_run(),
            joints=asset.JOINT_NAMES,
            strength=(STRENGTH_NM,) * NUM_JOINTS,
            max_velocity=30.0,
            default_joint_pos=asset.START_JOINTS,
        )
        self._spread = float(config.randomize)
        start = self.model.start_q()
        start[FREE_Q:] = asset.START_JOINTS
        self._start = torch.tensor(start, dtype=torch.float32, device=device)

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
        return {
            "speed": torso.velocity[:, 0],
            "up": 0.1 * torso.up,
            "heading": torso.heading,
            "height": torso.height - LOWEST_HEIGHT_M,
        }

    def terminated(self, state: State) -> Tensor:
        return state["joint_q"][:, 2] < LOWEST_HEIGHT_M
