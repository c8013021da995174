"""What a depth camera sees of particles: a pinhole, what hides what, and the noise of the sensor.

A particle is seen where all of this holds:

* it is in the picture and in the camera's range;
* nothing lies before it: every particle covers a disc of the depth image, and only what is within a tolerance of the
  nearest depth at its own pixel shows;
* no rigid shape (a tool, a hand, a body) crosses the line of sight;
* the sensor does not drop it: each point is missing with the same probability, independently.

What is seen stands where the particle is, plus noise: along the line of sight with a deviation that grows with the
square of the depth, as triangulation from a disparity has it (Khoshelham and Elberink 2012, "Accuracy and Resolution of
Kinect Depth Data"), and across it with a constant angle (Nguyen, Izadi and Lovell 2012, "Modeling Kinect Sensor
Noise"). The tool gives no points: on a robot, what its own model covers is filtered out. Neither does the floor.

**Gradient.** Which particles are seen is piecewise constant in everything, so it has no derivative; the noise counts as
a constant. What is seen of a particle moves as the particle does: d(cloud)/d(particle) = 1 where it is seen. That is
the derivative of the sensor wherever it has one, but it knows nothing of surfaces that come into view.

**Randomness** is a pure function of each env's key and frame (`start`, `advance`), so a resumed run sees the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import warp as wp
from numpy.typing import NDArray
from torch import Tensor

from rewarped_sim.engine.depth_image import Pinhole, Sensor, see_particles, splat_particles
from rewarped_sim.engine.kinematics import Tool, Vec3
from rewarped_sim.engine.mpm.bodies import Body
from rewarped_sim.engine.occluders import Occluders
from rewarped_sim.torch_bridge import torch_stream
from rewarped_sim.viewpoint import FOV_DEG, LOOK_AT, POSITION, optical_axes

KEY_BITS = 24
"""What a uniform float32 has."""


@dataclass(frozen=True, kw_only=True)
class CameraConfig:
    """A depth camera, where it stands and how well it sees."""

    position: Vec3 = POSITION
    """[m]"""
    look_at: Vec3 = LOOK_AT
    """Point in the middle of the picture [m]."""
    fov_deg: float = FOV_DEG
    """Horizontal field of view."""
    width: int = 96
    """Of the depth image in which particles hide one another [pixels]."""
    height: int = 72
    """[pixels]"""
    near_m: float = 0.2
    """Smallest depth that is measured."""
    far_m: float = 3.0
    """Largest depth that is measured."""
    splat: float = 2.0
    """Radius of the disc by which a particle hides others, in radii of the particle. Particles lie at random: at 1, a
    fifth of what is seen lies deeper than 4 radii, at 2 less than a hundredth (docs/vision.md)."""
    tolerance: float = 1.5
    """How far behind the nearest depth a particle may lie and still be seen, in radii of the particle."""
    depth_noise: float = 0.002
    """Standard deviation of the measured depth at a depth of 1 m; it grows with the square of the depth [1/m]."""
    lateral_noise_rad: float = 0.0014
    """Standard deviation across the line of sight."""
    dropout: float = 0.02
    """Probability that the sensor misses a point."""

    def __post_init__(self) -> None:
        if np.allclose(self.position, self.look_at):
            raise ValueError(f"position and look_at must differ, got {self.position} twice")
        if not 0.0 < self.fov_deg < 180.0:
            raise ValueError(f"fov_deg must be in (0, 180), got {self.fov_deg}")
        if not 0.0 <= self.near_m < self.far_m:
            raise ValueError(f"near_m must be >= 0 and below far_m = {self.far_m}, got {self.near_m}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        for name in ("width", "height"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        for name in ("splat", "tolerance", "depth_noise", "lateral_noise_rad"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be >= 0 and finite, got {getattr(self, name)}")

    @property
    def focal(self) -> float:
        """Focal length [pixels]."""
        return 0.5 * self.width / math.tan(0.5 * math.radians(self.fov_deg))

    @property
    def axes(self) -> NDArray[np.float64]:
        """The camera's x (right), y (down) and z (forward) in the world, (3, 3), one in each row (REP 103)."""
        return optical_axes(self.position, self.look_at)


class View(NamedTuple):
    """What a camera sees in every env."""

    points: Tensor
    """Measured positions of all particles, (num_envs, num_particles, 3) [m]: what they would be where they are seen.
    Differentiable by the particles."""
    seen: Tensor
    """Whether a particle is seen, (num_envs, num_particles) bool."""


class DepthCamera:
    """A camera that stands still before a scene of particles and rigid shapes, in many envs at once."""

    def __init__(
        self,
        config: CameraConfig,
        *,
        particle_radius: float,
        tool: Tool,
        bodies: Sequence[Body] = (),
        device: torch.device,
    ) -> None:
        """tool, bodies: what may hide particles. particle_radius: [m]."""
        self._device = device
        self._warp_device = wp.get_device(str(device))
        self._occluders = Occluders(tool, bodies, self._warp_device)
        self._radius, self._splat_radius = particle_radius, config.splat * particle_radius
        self._pinhole = Pinhole(
            width=config.width,
            height=config.height,
            focal=config.focal,
            position=config.position,
            axes=config.axes,
        )
        self._sensor = Sensor(
            near=config.near_m,
            far=config.far_m,
            tolerance=config.tolerance * particle_radius,
            depth_noise=config.depth_noise,
            lateral_noise=config.lateral_noise_rad,
            dropout=config.dropout,
        )
        self._one_frame = torch.tensor([0, 1], device=device)

    num_random = 1
    """Random numbers that `start` takes of each env."""

    def start(self, uniform: Tensor) -> Tensor:
        """Key and frame of each env's noise at the start of an episode, (num_envs, 2) int64.

        uniform: in [0, 1), (num_envs, 1).
        """
        key = (uniform * 2.0**KEY_BITS).long()
        return torch.cat((key, torch.zeros_like(key)), dim=1)

    def advance(self, frame: Tensor) -> Tensor:
        """The next control step's key and frame, (num_envs, 2) int64."""
        return frame + self._one_frame

    def look(self, points: Tensor, frame: Tensor, joint_q: Tensor, bodies: Tensor | None = None) -> View:
        """Take a picture.

        points: (num_envs, num_particles, 3) [m]; frame: as `start` and `advance` give it; joint_q, bodies: see
        `Occluders.poses`.
        """
        num_envs, num_particles = points.shape[:2]
        where = _plain(points)
        seen = torch.empty(num_envs, num_particles, dtype=torch.bool, device=self._device)
        noise = torch.empty_like(where)
        size = (num_envs, self._pinhole.height, self._pinhole.width)
        particles = wp.from_torch(where, dtype=wp.vec3)
        depth = wp.from_torch(torch.full(size, math.inf, device=self._device))
        with torch_stream(self._device):
            splat_particles(
                self._pinhole,
                radius=self._splat_radius,
                points=particles,
                depth_out=depth,
                device=self._warp_device,
            )
            poses = self._occluders.poses(
                wp.from_torch(_plain(joint_q)[None]),
                None if bodies is None else wp.from_torch(_plain(bodies)),
            )
            see_particles(
                self._pinhole,
                self._sensor,
                self._occluders,
                poses,
                radius=self._radius,
                frame=wp.from_torch(frame.contiguous()),
                points=particles,
                depth=depth,
                seen_out=wp.from_torch(seen),
                noise_out=wp.from_torch(noise, dtype=wp.vec3),
                device=self._warp_device,
            )
        return View(points + noise, seen)


def _plain(values: Tensor) -> Tensor:
    """What Warp can read: float32 in one piece, without gradient."""
    return values.detach().float().contiguous()
