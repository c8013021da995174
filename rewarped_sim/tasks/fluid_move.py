"""FluidMove: carry an open box of fluid to a target without spilling.

The task of SoftGym as the SAPO paper runs it (there y-up; here z-up: upstream's (x, y, z) is our (x, 1 - z, y)). A
control step is 20 ms of fluid time; the box is driven, the fluid does not push back.

The box starts 1 cm below its own lower limit, as published, so the first control step lifts it whatever the action. For
a robot the limit is the start: a runner takes no command of joints outside of their limits.
The spill term is a step of width 1e-5 m: it tells a policy what spilling costs, but hardly has a gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rewarped_sim.delta_position import DeltaPosition
from rewarped_sim.engine.kinematics import Joint, Shape, Tool, Vec3
from rewarped_sim.engine.mpm.materials import Fluid
from rewarped_sim.engine.mpm.model import MpmModel, Part
from rewarped_sim.registry import register
from rewarped_sim.scene import SceneShape
from rewarped_sim.task import State
from rewarped_sim.unit_cube import (
    TARGET_Q,
    UnitCubeConfig,
    UnitCubeTask,
    at_rest,
    in_thousandths,
)

FLUID_SIZE = (0.16, 0.20, 0.094)
BOX_START = (0.5, 0.5, 0.15)
BOX_LOWER = (0.18, 0.22, 0.16)
BOX_UPPER = (0.82, 0.78, 0.84)
BOX_STEP = 0.01
"""Largest motion along each axis per control step [m]."""
BOX_HALF = (0.14, 0.16, 0.105)
"""Points further from the middle of the box than this, along any axis, count as spilled [m]."""
SPILL_WIDTH = 1.0e-5
TARGET_RADIUS = 0.02
"""The reward for being near the target doubles within [m]."""
GLASS = (0.72, 0.80, 0.86)


def _wall(name: str, half: Vec3, centre: Vec3) -> Shape:
    return Shape(name=name, kind="box", size=half, body=2, position=centre, color=GLASS)


BOX = Tool(
    joints=(
        Joint(name="box_x", kind="prismatic", axis=(1.0, 0.0, 0.0)),
        Joint(name="box_y", kind="prismatic", axis=(0.0, 1.0, 0.0), parent=0),
        Joint(name="box_z", kind="prismatic", axis=(0.0, 0.0, 1.0), parent=1),
    ),
    shapes=(
        _wall("bottom", (0.14, 0.16, 0.025), (0.0, 0.0, -0.105)),
        _wall("left", (0.025, 0.16, 0.105), (-0.115, 0.0, -0.025)),
        _wall("right", (0.025, 0.16, 0.105), (0.115, 0.0, -0.025)),
        _wall("back", (0.14, 0.025, 0.105), (0.0, 0.135, -0.025)),
        _wall("front", (0.14, 0.025, 0.105), (0.0, -0.135, -0.025)),
    ),
)


@dataclass(frozen=True, kw_only=True)
class FluidMoveConfig(UnitCubeConfig):
    """Settings of the task; the defaults are the published ones."""

    num_particles: int = 2880
    max_blocks: int = 240
    young: float = 1.0e5
    """With `poisson` it sets how hard the fluid is to compress [Pa]."""
    poisson: float = 0.3
    density: float = 1000.0
    """[kg/m^3]"""
    fluid_seed: int = 3
    """Draws the particles once, the same in all envs and episodes; see docs/decisions/0002-dough-seed.md."""


@register(
    "fluid_move_small",
    config=FluidMoveConfig(num_particles=640, grid_size=40, num_substeps=16, max_blocks=96),
    num_envs=4,
    summary="fluid_move with fewer particles on a coarser grid, for quick starts on a CPU",
)
@register(
    "fluid_move",
    config=FluidMoveConfig(),
    num_envs=4,
    summary="carry a box of fluid without spilling (2880 particles, 48^3 grid), as published",
)
class FluidMove(UnitCubeTask):
    """See the module."""

    default_joint_pos = BOX_START
    num_start_random = 3
    particle_color = (0.30, 0.55, 0.90)

    def __init__(self, name: str, config: FluidMoveConfig, device: torch.device) -> None:
        super().__init__(
            name,
            config,
            device,
            tool=BOX,
            particle_radius=0.5 * (math.prod(FLUID_SIZE) / config.num_particles) ** (1.0 / 3.0),
            step=(BOX_STEP,) * 3,
            lower=tuple(map(min, BOX_LOWER, BOX_START)),
            upper=BOX_UPPER,
            joint_unit="m",
            more_terms=(TARGET_Q,),
        )
        self.config = config
        in_block = np.random.default_rng(config.fluid_seed).uniform(-0.5, 0.5, (config.num_particles, 3))
        self._fluid = at_rest(in_block * FLUID_SIZE + BOX_START, device)
        self._start = torch.tensor(BOX_START, device=device)
        self._half = torch.tensor(BOX_HALF, device=device)
        # The contract lets a robot stand at the start; the first step takes the box up to its own limit.
        self._move = DeltaPosition(replace(self.action, lower=BOX_LOWER), device)

    def build(self) -> MpmModel:
        config = self.config
        fluid = Fluid(young=config.young, poisson=config.poisson, density=config.density)
        return MpmModel(
            grid_size=config.grid_size,
            dt_s=0.02 / config.num_substeps,
            num_substeps=config.num_substeps,
            parts=(
                Part(
                    material=fluid,
                    num_particles=config.num_particles,
                    particle_volume=math.prod(FLUID_SIZE) / config.num_particles,
                ),
            ),
            tool=BOX,
            gravity=(0.0, 0.0, -9.8),
            floor_friction=0.0,
            tool_friction=0.5,
            contact=config.contact,
            max_blocks=config.max_blocks,
        )

    def start_state(self, uniform: Tensor) -> State:
        """Besides particles and joints, `target`: where to carry the box to, (num_envs, 3) [m]."""
        u = 2.0 * uniform - 1.0
        upwards = (u[:, 1] + 1.0) / 2.0
        way = in_thousandths(torch.stack((0.2 * u[:, 0], -0.2 * u[:, 2], 0.3 * upwards), dim=1))
        start = self._start.repeat(len(uniform), 1)
        return {
            "particles": self._fluid.repeat(len(uniform), 1, 1),
            "joint_q": start,
            "target": start + float(self.config.randomize) * way,
        }

    def reward(self, state: State, action: Tensor) -> dict[str, Tensor]:
        box = state["joint_q"]
        distance_sq = (box - state["target"]).square().sum(dim=1)
        near = (1.0 + distance_sq) ** -2 * torch.where(distance_sq <= TARGET_RADIUS**2, 2.0, 1.0)
        beyond = (self.points(state) - box[:, None]).abs() - self._half
        spilled = torch.sigmoid(beyond / SPILL_WIDTH).amax(dim=2).mean(dim=1)
        return {"near": 0.1 * near, "spill": -spilled}

    def more_shapes(self, state: State, index: int) -> tuple[SceneShape, ...]:
        target = SceneShape(
            name="target",
            kind="sphere",
            size=(TARGET_RADIUS,),
            position=state["target"][index].detach().cpu().numpy().copy(),
            quaternion=np.array((0.0, 0.0, 0.0, 1.0), np.float32),
            color=(0.85, 0.25, 0.20),
            ghost=True,
        )
        return (target,)
