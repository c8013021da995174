"""A depth camera as robots carry it: its place, its picture elements, its errors. NumPy alone, and no ROS.

Errors follow what is known of structured light and stereo: the deviation of a depth grows with its square, as
triangulation from a disparity has it (Khoshelham and Elberink 2012, "Accuracy and Resolution of Kinect Depth Data");
where depth jumps, the two eyes see different things, and often no point comes out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewarped_sim.viewpoint import FOV_DEG, LOOK_AT, POSITION, optical_axes, optical_pose

Image = NDArray[np.float32]
"""(height, width) depth along the optical axis [m]."""


class SensorError(ValueError):
    """A setting of the camera makes no sense; the message names it."""


def _setting(default: Any, description: str, *, low: float = 0.0, high: float = math.inf) -> Any:
    return field(default=default, metadata={"description": description, "low": low, "high": high})


@dataclass(frozen=True, kw_only=True)
class SensorConfig:
    """Where the camera stands, what it measures, and how well. The descriptions are those of the ROS parameters."""

    frame: str = _setting("camera_optical_frame", "Name of the optical frame: x right, y down, z forward.")
    position: tuple[float, float, float] = _setting(
        POSITION, "Where the camera stands, in the scene's frame [m].", low=-math.inf
    )
    look_at: tuple[float, float, float] = _setting(
        LOOK_AT, "Point on the optical axis, in the scene's frame [m].", low=-math.inf
    )
    width: int = _setting(192, "Columns of the picture.", low=1)
    height: int = _setting(144, "Rows of the picture.", low=1)
    fov_deg: float = _setting(FOV_DEG, "Horizontal field of view, where fx is 0.", low=1.0, high=179.0)
    fx: float = _setting(0.0, "Focal length along a row [pixels]; 0: from fov_deg.")
    fy: float = _setting(0.0, "Focal length along a column [pixels]; 0: as fx.")
    cx: float = _setting(0.0, "Column of the optical axis [pixels]; 0: the middle.")
    cy: float = _setting(0.0, "Row of the optical axis [pixels]; 0: the middle.")
    min_range_m: float = _setting(0.2, "Smallest depth that is measured [m].")
    max_range_m: float = _setting(3.0, "Largest depth that is measured [m].")
    depth_noise: float = _setting(
        0.002, "Standard deviation of a depth of 1 m [m]; it grows with the square of the depth."
    )
    dropout: float = _setting(0.02, "Share of the points that is missing.", high=1.0)
    edge_dropout: float = _setting(0.5, "Share of the points that is missing where depth jumps.", high=1.0)
    edge_step_m: float = _setting(
        0.03, "Difference in depth of neighbouring points from which it counts as a jump [m]."
    )
    skin: float = _setting(
        1.5, "Radius of the balls that make up the surface of particles, in radii of a particle."
    )
    self_filter: bool = _setting(
        False, "The tool gives no points, as where a robot filters out what its own model covers."
    )
    rate_hz: float = _setting(30.0, "Pictures a second; 0: one with every state.", high=1000.0)
    latency_s: float = _setting(0.03, "Time from a picture until it is published [s].", high=10.0)
    seed: int = _setting(0, "Decides noise and missing points.")

    def __post_init__(self) -> None:
        for setting in fields(self):
            value, low, high = getattr(self, setting.name), setting.metadata["low"], setting.metadata["high"]
            for number in value if isinstance(value, tuple) else (value,):
                if not isinstance(number, str) and not (low <= number <= high and math.isfinite(number)):
                    raise SensorError(f"{setting.name}: must be in [{low}, {high}] and finite, got {number}")
        if not self.frame:
            raise SensorError("frame: must not be empty")
        if np.allclose(self.position, self.look_at):
            raise SensorError(f"look_at: must differ from position, got {self.look_at} twice")
        if self.min_range_m >= self.max_range_m:
            raise SensorError(
                f"max_range_m: must exceed min_range_m = {self.min_range_m}, got {self.max_range_m}"
            )

    @property
    def focal(self) -> tuple[float, float]:
        """Focal lengths fx, fy [pixels]."""
        fx = self.fx or 0.5 * self.width / math.tan(0.5 * math.radians(self.fov_deg))
        return fx, self.fy or fx

    @property
    def centre(self) -> tuple[float, float]:
        """Where the optical axis meets the picture, cx, cy [pixels]; middles of pixels are whole numbers."""
        return self.cx or 0.5 * (self.width - 1), self.cy or 0.5 * (self.height - 1)

    @property
    def axes(self) -> NDArray[np.float64]:
        """The optical frame's x, y and z in the scene's frame, (3, 3), one in each row."""
        return optical_axes(self.position, self.look_at)

    @property
    def pose(self) -> tuple[float, ...]:
        """The optical frame in the scene's: x y z [m], quaternion x y z w. What a runner calls `cloud_extrinsics`."""
        return optical_pose(self.position, self.look_at)


def deproject(depth: Image, config: SensorConfig) -> NDArray[np.float32]:
    """Return each pixel's point in the optical frame, (height, width, 3) [m]; NaN where the depth is."""
    (fx, fy), (cx, cy) = config.focal, config.centre
    rows, columns = np.indices(depth.shape)
    return np.stack([(columns - cx) / fx * depth, (rows - cy) / fy * depth, depth], axis=-1, dtype=np.float32)


def project(points: NDArray[np.floating], config: SensorConfig) -> NDArray[np.floating]:
    """Return where points (..., 3) of the optical frame show in the picture: column and row (..., 2) [pixels]."""
    return points[..., :2] / points[..., 2:] * config.focal + config.centre


def disturbed(depth: Image, config: SensorConfig, random: np.random.Generator) -> Image:
    """Return what the sensor says of true depths: noisy, in range only, with points missing; NaN where none is.

    depth: infinite where there is nothing.
    """
    edge = at_jump(depth, config.edge_step_m)
    noise, chance = random.standard_normal(depth.shape, np.float32), random.random(depth.shape)
    missing = chance < np.where(edge, max(config.dropout, config.edge_dropout), config.dropout)
    out_of_range = (depth < config.min_range_m) | (depth > config.max_range_m)
    depth = np.where(missing | out_of_range, np.float32(np.nan), depth)
    return depth + np.float32(config.depth_noise) * depth**2 * noise


def at_jump(depth: Image, step_m: float) -> NDArray[np.bool_]:
    """Whether the depth differs by more than `step_m` from that of a neighbour in the row or column."""
    edge = np.zeros(depth.shape, np.bool_)
    with np.errstate(invalid="ignore"):  # nothing beside nothing is no jump
        for here, there in (
            ((slice(1, None),), (slice(None, -1),)),
            ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
        ):
            jump = np.abs(depth[here] - depth[there]) > step_m
            edge[here] |= jump
            edge[there] |= jump
    return edge
