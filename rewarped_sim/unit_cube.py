"""What the MPM tasks have in common: the unit cube they play in and the 250 points that a policy sees.

The published ones have y up; here z is up. Their point (x, y, z) is our (x, 1 - z, y).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policy_runner.contract import ActionSpec, ObsTerm, PointCloudSpec
from rewarped_sim.delta_position import DeltaPosition
from rewarped_sim.engine.forward_kinematics import shape_poses
from rewarped_sim.engine.kinematics import Tool
from rewarped_sim.engine.mpm.grid import WALL_NODES
from rewarped_sim.engine.mpm.state import PARTICLE_SIZE, F
from rewarped_sim.observation import fill, observed_particles
from rewarped_sim.scene import Scene, SceneShape
from rewarped_sim.task import State, Task

FRAME = "world"
NUM_POINTS = 250

CLOUD = PointCloudSpec(frame=FRAME, crop_min=(0.0, 0.0, 0.0), crop_max=(1.0, 1.0, 1.0), num_points=NUM_POINTS)
COM_Q = ObsTerm(name="com_q", kind="cloud_mean", shape=(3,), unit="m", frame=FRAME)
PARTICLE_Q = ObsTerm(name="particle_q", kind="cloud", shape=(NUM_POINTS, 3), unit="m", frame=FRAME)
TARGET_Q = ObsTerm(name="target_q", kind="goal_position", shape=(3,), unit="m", frame=FRAME)

PUBLISHED_ORIGIN = (0.0, 1.0, 0.0)
"""Where the published coordinates have their origin."""


@dataclass(frozen=True, kw_only=True)
class UnitCubeConfig:
    """Settings that all of these tasks have."""

    num_particles: int
    grid_size: int = 48
    """Nodes along an edge of the unit cube."""
    num_substeps: int = 40
    """Substeps that a control step is divided into."""
    max_blocks: int
    """Blocks of 4^3 nodes that an env may touch in a substep, on average over a control step."""
    contact: str = "published"
    """Law between tool and particles: `published`, or the continuously differentiable `smooth`."""
    max_episode_steps: int = 300
    randomize: bool = True
    """Vary the start at every reset."""

    def __post_init__(self) -> None:
        if self.num_particles < NUM_POINTS:
            raise ValueError(
                f"num_particles must be >= {NUM_POINTS}, the points observed; got {self.num_particles}"
            )
        if self.max_episode_steps < 1:
            raise ValueError(f"max_episode_steps must be >= 1, got {self.max_episode_steps}")


class UnitCubeTask(Task):
    """A task whose tool moves by increments among particles that are seen as `NUM_POINTS` points.

    A state may hold a `target`, (num_envs, 3) [m]; it is what a term of kind `goal_position` shows.
    """

    control_dt_s = 1.0 / 60.0
    point_cloud = CLOUD

    def __init__(
        self,
        name: str,
        config: UnitCubeConfig,
        device: torch.device,
        *,
        tool: Tool,
        step: tuple[float, ...],
        lower: tuple[float, ...],
        upper: tuple[float, ...],
        joint_unit: str,
        more_terms: tuple[ObsTerm, ...] = (),
    ) -> None:
        """step: largest motion per control step of each joint; more_terms: observed besides joints and points."""
        self.name = name
        self.max_episode_steps = config.max_episode_steps
        joint_q = ObsTerm(name="joint_q", kind="joint_position", shape=(len(step),), unit=joint_unit)
        self.obs_spec = (COM_Q, joint_q, *more_terms, PARTICLE_Q)
        self.action = ActionSpec(
            joint_names=tool.joint_names,
            mode="delta_position",
            scale=step,
            lower=lower,
            upper=upper,
            max_velocity=tuple(motion / self.control_dt_s for motion in step),
        )
        self._move = DeltaPosition(self.action, device)
        self._observed = observed_particles(config.num_particles, NUM_POINTS, device)

    def control(self, state: State, action: Tensor) -> dict[str, Tensor]:
        """The action's increments, cut at the joints' limits."""
        return {"joint_dq": self._move(state["joint_q"], action)}

    def observe(self, state: State, action: Tensor) -> dict[str, Tensor]:
        """Joints, points and, where the task has one, the target."""
        return fill(
            self.obs_spec,
            joint_position=state["joint_q"],
            goal_position=state.get("target"),
            cloud=self.points(state),
        )

    def points(self, state: State) -> Tensor:
        """The particles that a policy sees, (num_envs, NUM_POINTS, 3) [m]."""
        return state["particles"][:, self._observed, :3]


def at_rest(positions: NDArray[np.float64], device: torch.device) -> Tensor:
    """Undeformed particles without velocity at these positions (num_particles, 3) [m]: (num_particles, 24)."""
    particles = torch.zeros(len(positions), PARTICLE_SIZE)
    particles[:, :3] = torch.from_numpy(positions)
    particles[:, F : F + 9] = torch.eye(3).flatten()
    return particles.to(device)


def in_thousandths(values: Tensor) -> Tensor:
    """Rounded to three decimals, as the published starts are."""
    return torch.round(1000.0 * values) / 1000.0


def shifted_and_scaled(particles: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Start states with other places and sizes; the deformation gradient stays what it was.

    particles: (num_particles, 24). shift: (num_envs, 3) [m], applied first. scale: (num_envs,) multiplies the published
    coordinates, and so moves the particles as well. Returns (num_envs, num_particles, 24).
    """
    origin = _published_origin(particles.device)
    moved = particles.expand(len(shift), -1, -1).clone()
    placed = moved[..., :3] + shift[:, None] - origin
    moved[..., :3] = origin + scale[:, None, None] * placed
    return moved


@cache
def _published_origin(device: torch.device) -> Tensor:
    """`PUBLISHED_ORIGIN` on a device; copied there once, since a step that copies waits."""
    return torch.tensor(PUBLISHED_ORIGIN, device=device)


def draw(
    *,
    particles: Tensor,
    color: tuple[float, float, float],
    radius: float,
    tool: Tool,
    joint_q: Tensor,
    grid_size: int,
    extra: Sequence[SceneShape] = (),
) -> Scene:
    """One env's particles (num_particles, 24), the tool at its joint coordinates (joints,), and the floor."""
    posed = shape_poses(tool, joint_q.detach().cpu().tolist())
    tool_shapes = (
        SceneShape(
            name=shape.name,
            kind=shape.kind,
            size=shape.size,
            position=position.astype(np.float32),
            quaternion=quaternion.astype(np.float32),
            color=shape.color,
        )
        for shape, (position, quaternion) in zip(tool.shapes, posed, strict=True)
    )
    floor = SceneShape(
        name="floor",
        kind="plane",
        size=(),
        position=np.array([0.0, 0.0, WALL_NODES / grid_size], np.float32),
        quaternion=np.array([0.0, 0.0, 0.0, 1.0], np.float32),
    )
    return Scene(
        frame=FRAME,
        particles=particles[:, :3].detach().cpu().numpy().copy(),
        particle_color=color,
        particle_radius=radius,
        shapes=(*tool_shapes, *extra, floor),
        bounds_min=(0.0, 0.0, 0.0),
        bounds_max=(1.0, 1.0, 1.0),
    )
