"""SpringPress: press a block of dough down to a given height with a plate that the dough pushes back.

The plate is no driven tool: it is a rigid body that hangs on springs from the arm, as in an impedance-controlled robot.
Where the arm is says little of where the plate is; the dough's resistance decides, and the dough keeps every dent, so
pressing too far cannot be undone. Without two-way coupling this task does not exist.

A control step is 2 ms of dough time, as in the published dough tasks; z up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rewarped_sim.engine.kinematics import Joint, Shape, Tool
from rewarped_sim.engine.mpm.bodies import BODY_SIZE, FREE, HELD, Body, Spring
from rewarped_sim.engine.mpm.grid import WALL_NODES
from rewarped_sim.engine.mpm.materials import Dough
from rewarped_sim.engine.mpm.model import MpmModel, Part
from rewarped_sim.registry import register
from rewarped_sim.scene import SceneShape
from rewarped_sim.task import State
from rewarped_sim.unit_cube import (
    TARGET_Q,
    UnitCubeConfig,
    UnitCubeTask,
    at_rest,
)

BLOCK_SIZE = (0.22, 0.22, 0.12)
ARM_START = (0.5, 0.5, 0.222)
"""The plate lies on the dough: out of touch there would be no gradient to begin with."""
ARM_LOWER = (0.3, 0.3, 0.08)
ARM_UPPER = (0.7, 0.7, 0.35)
ARM_STEP = 0.01
"""Largest motion per control step and axis [m]."""
LOWEST_TARGET, HIGHEST_TARGET = 0.5, 0.75
"""Target heights, as shares of the height of the untouched block above the floor."""

ARM = Tool(
    joints=(
        Joint(name="arm_x", kind="prismatic", axis=(1.0, 0.0, 0.0)),
        Joint(name="arm_y", kind="prismatic", axis=(0.0, 1.0, 0.0), parent=0),
        Joint(name="arm_z", kind="prismatic", axis=(0.0, 0.0, 1.0), parent=1),
    )
)
PLATE = Body(
    name="plate",
    mass=0.004,
    inertia=(8e-6, 8e-6, 1.6e-5),
    shapes=(Shape(name="plate", kind="box", size=(0.08, 0.08, 0.015), color=(0.35, 0.45, 0.65)),),
    linear_axes=FREE,
    angular_axes=HELD,
    gravity_scale=0.0,  # the arm compensates its weight
)
SPRING = Spring(body=0, joint=2, anchor=(0.0, 0.0, 0.0), stiffness=150.0, damping=1.2)


@dataclass(frozen=True, kw_only=True)
class SpringPressConfig(UnitCubeConfig):
    """Settings of the task. Without `randomize` the target height is midway."""

    num_particles: int = 768
    grid_size: int = 32
    num_substeps: int = 25
    max_blocks: int = 64
    max_episode_steps: int = 100
    contact: str = "smooth"
    young: float = 10000.0
    """[Pa]"""
    poisson: float = 0.2
    yield_stress: float = 200.0
    """[Pa]"""


@register(
    "spring_press",
    config=SpringPressConfig(),
    num_envs=4,
    summary="press dough to a given height with a plate on springs that the dough pushes back (768 particles)",
)
class SpringPress(UnitCubeTask):
    """See the module."""

    default_joint_pos = ARM_START
    num_start_random = 1
    particle_color = (0.93, 0.78, 0.58)

    def __init__(self, name: str, config: SpringPressConfig, device: torch.device) -> None:
        super().__init__(
            name,
            config,
            device,
            tool=ARM,
            bodies=(PLATE,),
            particle_radius=0.5 * (math.prod(BLOCK_SIZE) / config.num_particles) ** (1.0 / 3.0),
            step=(ARM_STEP,) * 3,
            lower=ARM_LOWER,
            upper=ARM_UPPER,
            joint_unit="m",
            more_terms=(TARGET_Q,),
        )
        self.config = config
        self._floor = WALL_NODES / config.grid_size
        half_height = BLOCK_SIZE[2] / 2.0
        in_block = np.random.default_rng(0).uniform(-0.5, 0.5, (config.num_particles, 3))
        self._block = at_rest(in_block * BLOCK_SIZE + (0.5, 0.5, self._floor + half_height), device)
        self._start = torch.tensor(ARM_START, device=device)
        self._plate = torch.tensor((*ARM_START, 0.0, 0.0, 0.0, 1.0, *(0.0,) * 6), device=device)

    def build(self) -> MpmModel:
        config = self.config
        return MpmModel(
            grid_size=config.grid_size,
            dt_s=0.002 / config.num_substeps,
            num_substeps=config.num_substeps,
            parts=(
                Part(
                    material=Dough(
                        young=config.young,
                        poisson=config.poisson,
                        yield_stress=config.yield_stress,
                        density=1.0,
                    ),
                    num_particles=config.num_particles,
                    particle_volume=math.prod(BLOCK_SIZE) / config.num_particles,
                ),
            ),
            tool=ARM,
            bodies=(PLATE,),
            springs=(SPRING,),
            contact=config.contact,
            gravity=(0.0, 0.0, -90.0),
            floor_friction=500.0,
            tool_friction=0.9,
            max_blocks=config.max_blocks,
        )

    def start_state(self, uniform: Tensor) -> State:
        count = len(uniform)
        u = uniform[:, 0] if self.config.randomize else torch.full_like(uniform[:, 0], 0.5)
        target = self._start.repeat(count, 1)
        target[:, 2] = (
            BLOCK_SIZE[2]
            / 2.0
            * torch.lerp(torch.full_like(u, LOWEST_TARGET), torch.full_like(u, HIGHEST_TARGET), u)
        )
        target[:, 2] += self._floor
        return {
            "particles": self._block.repeat(count, 1, 1),
            "joint_q": self._start.repeat(count, 1),
            "bodies": self._plate.repeat(count, 1).view(count, 1, BODY_SIZE),
            "target": target,
        }

    def reward(self, state: State, action: Tensor) -> dict[str, Tensor]:
        """1 with the mean height on target, 1/5 with the block untouched, or pressed too far by as much."""
        height = self.points(state)[..., 2].mean(dim=1)
        target = state["target"][:, 2]
        untouched = self._floor + BLOCK_SIZE[2] / 2.0
        miss = (height - target) / (untouched - target)
        return {"height": 1.0 / (1.0 + 4.0 * miss**2)}

    def more_shapes(self, state: State, index: int) -> tuple[SceneShape, ...]:
        plate = state["bodies"][index, 0].detach().cpu().numpy()
        (shape,) = PLATE.shapes
        drawn = SceneShape(
            name=shape.name,
            kind=shape.kind,
            size=shape.size,
            position=plate[0:3].astype(np.float32),
            quaternion=plate[3:7].astype(np.float32),
            color=shape.color,
        )
        return (drawn,)
