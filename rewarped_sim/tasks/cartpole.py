"""Cart-pole: swing a hanging pole up and keep it upright, with the cart near the middle of its rail.

The task of DFlex, with its damping of 1 on both joints, which Rewarped's version lacks. There y is up and the rail lies
along x; here z is up. The hinge's angle is 0 upright.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rewarped_sim.articulated_scene import articulated_scene
from rewarped_sim.articulated_task import ArticulatedConfig, ArticulatedTask
from rewarped_sim.assets import cartpole as asset
from rewarped_sim.observation import fill, privileged_term
from rewarped_sim.registry import register
from rewarped_sim.scene import Scene
from rewarped_sim.task import State

FORCE_N = 1000.0
START_SPREAD = math.pi / 2.0
"""Of the cart's position [m] and the pole's angle [rad]."""
VELOCITY_SPREAD = 0.25


@dataclass(frozen=True, kw_only=True)
class CartpoleConfig(ArticulatedConfig):
    """Settings of the task; the defaults are the published ones."""

    max_episode_steps: int = 240
    damping: float = 1.0
    """Of both joints [N s/m and N m s/rad]; 0 is Rewarped's cart-pole."""


@register(
    "cartpole",
    config=CartpoleConfig(),
    num_envs=64,
    summary="swing a pole up and balance it by pushing its cart",
)
class Cartpole(ArticulatedTask):
    """See the module."""

    obs_spec = (
        privileged_term("cart_position", 1, "m"),
        privileged_term("cart_velocity", 1, "m/s"),
        privileged_term("pole_direction", 2),
        privileged_term("pole_velocity", 1, "rad/s"),
    )
    num_start_random = 4

    def __init__(self, name: str, config: CartpoleConfig, device: torch.device) -> None:
        super().__init__(
            name,
            config,
            device,
            model=asset.cartpole(damping=config.damping),
            joints=("cart",),
            strength=(FORCE_N,),
            max_velocity=30.0,
            default_joint_pos=(0.0,),
        )
        self._start = torch.tensor((*asset.START_JOINTS, 0.0, 0.0), device=device)
        spread = (START_SPREAD, START_SPREAD, VELOCITY_SPREAD, VELOCITY_SPREAD)
        self._spread = float(config.randomize) * torch.tensor(spread, device=device)

    def start_state(self, uniform: Tensor) -> State:
        q, qd = (self._start + self._spread * (2.0 * uniform - 1.0)).split(2, dim=1)
        return {"joint_q": q, "joint_qd": qd}

    def observe(self, state: State, action: Tensor) -> dict[str, Tensor]:
        (x, angle), (velocity, rate) = (state[name].split(1, dim=1) for name in ("joint_q", "joint_qd"))
        return fill(
            self.obs_spec,
            privileged={
                "cart_position": x,
                "cart_velocity": velocity,
                "pole_direction": torch.cat((angle.sin(), angle.cos()), dim=1),
                "pole_velocity": rate,
            },
        )

    def reward(self, state: State, action: Tensor) -> dict[str, Tensor]:
        (x, angle), (velocity, rate) = (state[name].unbind(dim=1) for name in ("joint_q", "joint_qd"))
        from_upright = torch.atan2(angle.sin(), angle.cos())
        return {
            "upright": -from_upright.square(),
            "pole_rest": -0.1 * rate.square(),
            "centred": -0.05 * x.square(),
            "cart_rest": -0.1 * velocity.square(),
        }

    def scene(self, state: State, action: Tensor, index: int) -> Scene:
        q = state["joint_q"][index].detach().cpu().double().numpy()
        # nothing but its reward keeps the cart where it begins
        focus = (float(q[0]), 0.0, asset.RAIL_HEIGHT_M)
        return articulated_scene(self.tree, q, focus=focus, view_radius=2.5, follow=True)
