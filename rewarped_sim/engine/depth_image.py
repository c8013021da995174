"""Which particles a pinhole camera sees, and where its sensor says that they are.

Two launches: `splat_particles` finds the nearest depth at every pixel, `see_particles` compares each particle with it,
and marches a ray to those that are left, from surface to surface of the rigid shapes, by their signed distances.
"""

from dataclasses import dataclass

import numpy as np
import warp as wp
from numpy.typing import NDArray

from rewarped_sim.engine.occluders import Occluders, ShapePoses
from rewarped_sim.engine.ray_march import distance_to_shape


@dataclass(frozen=True, kw_only=True)
class Pinhole:
    """Geometry of a camera."""

    width: int
    """[pixels]"""
    height: int
    """[pixels]"""
    focal: float
    """[pixels]"""
    position: tuple[float, float, float]
    """[m]"""
    axes: NDArray[np.float64]
    """Its x (right), y (down) and z (forward) in the world, (3, 3), one in each row."""

    @property
    def arguments(self) -> list:
        """The first arguments of both kernels."""
        return [self.width, self.height, self.focal, wp.vec3(*self.position), wp.mat33(self.axes.tolist())]


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """What it measures, and how well."""

    near: float
    """Smallest depth [m]."""
    far: float
    """Largest depth [m]."""
    tolerance: float
    """How far behind the nearest depth a particle still shows [m]."""
    depth_noise: float
    """Deviation of the depth z, as a share of z^2 [1/m]."""
    lateral_noise: float
    """Deviation across the line of sight, as a share of z."""
    dropout: float
    """Probability of missing a point."""


@wp.kernel(enable_backward=False, module="unique")
def _splat(
    # model
    width: int,
    height: int,
    focal: float,
    eye: wp.vec3,
    axes: wp.mat33,
    radius: float,
    # in
    points: wp.array2d(dtype=wp.vec3),
    # out
    depth_out: wp.array3d(dtype=float),
):
    env, i = wp.tid()
    p = axes * (points[env, i] - eye)
    if p[2] <= 0.0:
        return
    u = 0.5 * float(width) + focal * p[0] / p[2]
    v = 0.5 * float(height) + focal * p[1] / p[2]
    reach = focal * radius / p[2]
    own_column = int(wp.floor(u))
    own_row = int(wp.floor(v))
    first_row = wp.max(int(wp.floor(v - reach)), 0)
    last_row = wp.min(int(wp.floor(v + reach)), height - 1)
    first_column = wp.max(int(wp.floor(u - reach)), 0)
    last_column = wp.min(int(wp.floor(u + reach)), width - 1)
    for row in range(first_row, last_row + 1):
        for column in range(first_column, last_column + 1):
            across = float(column) + 0.5 - u
            down = float(row) + 0.5 - v
            is_own = row == own_row and column == own_column
            if is_own or across * across + down * down <= reach * reach:
                wp.atomic_min(depth_out, env, row, column, p[2])


def splat_particles(
    pinhole: Pinhole, *, radius: float, points: wp.array, depth_out: wp.array, device: wp.Device
) -> None:
    """Lower `depth_out` (num_envs, height, width) [m] to the nearest disc that faces the camera.

    radius: of the discs about the particles [m]; a particle's own pixel is always covered. points: (num_envs,
    num_particles) vec3 [m].
    """
    wp.launch(_splat, dim=points.shape, inputs=[*pinhole.arguments, radius, points, depth_out], device=device)


@wp.kernel(enable_backward=False, module="unique")
def _see(
    # model
    width: int,
    height: int,
    focal: float,
    eye: wp.vec3,
    axes: wp.mat33,
    near: float,
    far: float,
    tolerance: float,
    radius: float,
    depth_noise: float,
    lateral_noise: float,
    dropout: float,
    num_shapes: int,
    shape_kind: wp.array(dtype=int),
    shape_size: wp.array(dtype=wp.vec3),
    shape_reach: wp.array(dtype=float),
    # in
    shape_pos: wp.array(dtype=wp.vec3d),
    shape_rot: wp.array(dtype=wp.mat33d),
    frame: wp.array2d(dtype=wp.int64),
    points: wp.array2d(dtype=wp.vec3),
    depth: wp.array3d(dtype=float),
    # out
    seen_out: wp.array2d(dtype=wp.bool),
    noise_out: wp.array2d(dtype=wp.vec3),
):
    env, i = wp.tid()
    seen_out[env, i] = False
    noise_out[env, i] = wp.vec3()
    away = points[env, i] - eye
    p = axes * away
    z = p[2]
    if z <= 0.0 or z < near or z > far:
        return
    column = int(wp.floor(0.5 * float(width) + focal * p[0] / z))
    row = int(wp.floor(0.5 * float(height) + focal * p[1] / z))
    if column < 0 or column >= width or row < 0 or row >= height:
        return
    if z > depth[env, row, column] + tolerance:
        return
    rng = wp.rand_init(int(wp.rand_init(int(frame[env, 0]), int(frame[env, 1]))), i)
    if wp.randf(rng) < dropout:
        return
    distance = wp.length(away)
    for s in range(num_shapes):
        k = env * num_shapes + s
        met = distance_to_shape(
            shape_kind[s], shape_size[s], shape_reach[s], shape_pos[k], shape_rot[k],
            eye, away / distance, distance - radius,
        )  # fmt: skip
        if met < distance - radius:
            return
    seen_out[env, i] = True
    along = depth_noise * z * wp.randn(rng)  # of the depth z: times z, as a share of it
    right = wp.vec3(axes[0, 0], axes[0, 1], axes[0, 2])
    down = wp.vec3(axes[1, 0], axes[1, 1], axes[1, 2])
    across = lateral_noise * z * (wp.randn(rng) * right + wp.randn(rng) * down)
    noise_out[env, i] = along * away + across


def see_particles(
    pinhole: Pinhole,
    sensor: Sensor,
    occluders: Occluders,
    poses: ShapePoses,
    *,
    radius: float,
    frame: wp.array,
    points: wp.array,
    depth: wp.array,
    seen_out: wp.array,
    noise_out: wp.array,
    device: wp.Device,
) -> None:
    """Tell which particles are seen, (num_envs, num_particles) bool, and how far off the sensor has them [m].

    radius: of a particle [m]; a shape hides it that is nearer than its surface. frame: (num_envs, 2) int64, key of an
    env's random numbers and how often it was looked at. points, depth: see `splat_particles`.
    """
    wp.launch(
        _see,
        dim=points.shape,
        inputs=[
            *pinhole.arguments, sensor.near, sensor.far, sensor.tolerance, radius, sensor.depth_noise,
            sensor.lateral_noise, sensor.dropout, occluders.num_shapes, occluders.kind, occluders.size,
            occluders.reach, poses.position, poses.rotation, frame, points, depth, seen_out, noise_out,
        ],
        device=device,
    )  # fmt: skip
