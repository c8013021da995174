"""What the MPM tasks have in common: the unit cube they play in and the 250 points that a policy sees.

Those are every k-th particle, as published, or with the setting `cloud: camera` what a depth camera sees of them,
cropped and sampled as the policy runner does it. Rewards know the particles in either case.

The published ones have y up; here z is up. Their point (x, y, z) is our (x, 1 - z, y).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policy_runner.contract import ActionSpec, ObsTerm, PointCloudSpec
from rewarped_sim.cloud_chain import CloudChain, require_device_sampler
from rewarped_sim.delta_position import DeltaPosition
from rewarped_sim.depth_camera import CameraConfig, DepthCamera, View
from rewarped_sim.engine.forward_kinematics import shape_poses
from rewarped_sim.engine.kinematics import Tool
from rewarped_sim.engine.mpm.bodies import Body
from rewarped_sim.engine.mpm.grid import WALL_NODES
from rewarped_sim.engine.mpm.state import PARTICLE_SIZE, F
from rewarped_sim.observation import fill, observed_particles
from rewarped_sim.scene import Scene, SceneShape
from rewarped_sim.task import Draw, State, Task

FRAME = "world"
NUM_POINTS = 250

CLOUD = PointCloudSpec(frame=FRAME, crop_min=(0.0, 0.0, 0.0), crop_max=(1.0, 1.0, 1.0), num_points=NUM_POINTS)
COM_Q = ObsTerm(name="com_q", kind="cloud_mean", shape=(3,), unit="m", frame=FRAME)
PARTICLE_Q = ObsTerm(name="particle_q", kind="cloud", shape=(NUM_POINTS, 3), unit="m", frame=FRAME)
TARGET_Q = ObsTerm(name="target_q", kind="goal_position", shape=(3,), unit="m", frame=FRAME)

CAMERA_CLOUD = replace(CLOUD, sampler="random")
"""Drawn at random: of rows that are no multiple of `NUM_POINTS`, a stride leaves out the last, up to half of them."""
CLOUD_SOURCES = ("particles", "camera")

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
    cloud: str = "particles"
    """What the policy's points are: every k-th of all `particles`, or what a depth `camera` sees of them."""
    camera: CameraConfig = field(default_factory=CameraConfig)
    """The depth camera, where there is one."""
    camera_cloud: PointCloudSpec = CAMERA_CLOUD
    """How the camera's cloud is cropped and sampled; the exported contract tells the policy runner the same."""

    def __post_init__(self) -> None:
        for name in ("grid_size", "num_substeps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.cloud not in CLOUD_SOURCES:
            raise ValueError(f"cloud must be one of {list(CLOUD_SOURCES)}, got {self.cloud!r}")
        if self.camera_cloud.frame != FRAME:
            raise ValueError(f"camera_cloud.frame must be {FRAME!r}, got {self.camera_cloud.frame!r}")
        require_device_sampler(self.camera_cloud)
        floor = WALL_NODES / self.grid_size
        if self.camera.position[2] <= floor:
            raise ValueError(
                f"camera.position must be above the floor at z = {floor:.3f}, got {self.camera.position}"
            )
        if self.num_particles < NUM_POINTS:
            raise ValueError(
                f"num_particles must be >= {NUM_POINTS}, the points observed; got {self.num_particles}"
            )
        if self.max_episode_steps < 1:
            raise ValueError(f"max_episode_steps must be >= 1, got {self.max_episode_steps}")


class UnitCubeTask(Task):
    """A task whose tool moves by increments among particles that are seen as points.

    A state may hold a `target`, (num_envs, 3) [m]; it is what a term of kind `goal_position` shows. With a camera it
    holds `camera_frame`, (num_envs, 2) int64, which decides the camera's noise.
    """

    control_dt_s = 1.0 / 60.0
    num_start_random: int
    """Random numbers that `start_state` takes."""
    particle_color: tuple[float, float, float]

    def __init__(
        self,
        name: str,
        config: UnitCubeConfig,
        device: torch.device,
        *,
        tool: Tool,
        bodies: tuple[Body, ...] = (),
        particle_radius: float,
        step: tuple[float, ...],
        lower: tuple[float, ...],
        upper: tuple[float, ...],
        joint_unit: str,
        more_terms: tuple[ObsTerm, ...] = (),
    ) -> None:
        """Prepare actions and observations.

        tool, bodies: what moves among the particles. particle_radius: of a particle that is drawn or seen [m].
        step: largest motion per control step of each joint. more_terms: observed besides joints and points.
        """
        self.name = name
        self.max_episode_steps = config.max_episode_steps
        self.point_cloud = config.camera_cloud if config.cloud == "camera" else CLOUD
        joint_q = ObsTerm(name="joint_q", kind="joint_position", shape=(len(step),), unit=joint_unit)
        particle_q = replace(PARTICLE_Q, shape=(self.point_cloud.num_points, 3))
        self.obs_spec = (COM_Q, joint_q, *more_terms, particle_q)
        self.action = ActionSpec(
            joint_names=tool.joint_names,
            mode="delta_position",
            scale=step,
            lower=lower,
            upper=upper,
            max_velocity=tuple(motion / self.control_dt_s for motion in step),
        )
        self._tool, self._grid_size, self._radius = tool, config.grid_size, particle_radius
        self._move = DeltaPosition(self.action, device)
        self._observed = observed_particles(config.num_particles, NUM_POINTS, device)
        self._camera: DepthCamera | None = None
        self.num_random = self.num_start_random
        if config.cloud == "camera":
            self._camera = DepthCamera(
                config.camera, particle_radius=particle_radius, tool=tool, bodies=bodies, device=device
            )
            self._chain = CloudChain(self.point_cloud, config.num_particles, device)
            self.num_random += DepthCamera.num_random

    @abstractmethod
    def start_state(self, uniform: Tensor) -> State:
        """Start states from random numbers in [0, 1), (num_envs, num_start_random)."""

    def initial_state(self, uniform: Tensor) -> State:
        """Start states and, with a camera, its first frame."""
        state = self.start_state(uniform[:, : self.num_start_random])
        if self._camera is not None:
            state["camera_frame"] = self._camera.start(uniform[:, self.num_start_random :])
        return state

    def after_step(self, state: State, draw: Draw) -> State:
        """With a camera, its next frame."""
        if self._camera is None:
            return state
        return state | {"camera_frame": self._camera.advance(state["camera_frame"])}

    def control(self, state: State, action: Tensor) -> dict[str, Tensor]:
        """The action's increments, cut at the joints' limits."""
        return {"joint_dq": self._move(state["joint_q"], action)}

    def observe(self, state: State, action: Tensor) -> dict[str, Tensor]:
        """Joints, points and, where the task has one, the target."""
        return fill(
            self.obs_spec,
            joint_position=state["joint_q"],
            goal_position=state.get("target"),
            cloud=self._cloud(state),
        )

    def points(self, state: State) -> Tensor:
        """Every k-th particle, (num_envs, NUM_POINTS, 3) [m]: of which rewards are made."""
        return state["particles"][:, self._observed, :3]

    def more_shapes(self, state: State, index: int) -> Sequence[SceneShape]:
        """What there is to draw besides particles, tool and floor."""
        return ()

    def scene(self, state: State, action: Tensor, index: int) -> Scene:
        """One env's particles, tool and floor, and what its camera sees."""
        scene = draw(
            particles=state["particles"][index],
            color=self.particle_color,
            radius=self._radius,
            tool=self._tool,
            joint_q=state["joint_q"][index],
            grid_size=self._grid_size,
            extra=self.more_shapes(state, index),
        )
        if self._camera is None:
            return scene
        view = self._view(self._camera, state)
        return replace(scene, cloud=view.points[index, view.seen[index]].detach().cpu().numpy())

    def _cloud(self, state: State) -> Tensor:
        """The policy's points, (num_envs, point_cloud.num_points, 3) [m]."""
        if self._camera is None:
            return self.points(state)
        return self._chain(*self._view(self._camera, state))

    def _view(self, camera: DepthCamera, state: State) -> View:
        return camera.look(
            state["particles"][..., :3], state["camera_frame"], state["joint_q"], state.get("bodies")
        )


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
            tool=True,
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
