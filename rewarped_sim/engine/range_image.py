"""A depth image of rigid shapes, skins and balls: what a pinhole camera measures where nothing disturbs it.

Depth is along the camera's axis, not along the ray [m]. A pixel measures in its middle, and middles have whole
coordinates, as in `sensor_msgs/CameraInfo`: the ray of pixel (column u, row v) is ((u - cx) / fx, (v - cy) / fy, 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import warp as wp
from numpy.typing import NDArray

from rewarped_sim.engine.kinematics import SHAPE_KINDS, rotation_matrix
from rewarped_sim.engine.occluders import reach
from rewarped_sim.engine.ray_march import distance_to_shape

Image = NDArray[np.float32]
"""(height, width) [m]; infinite where nothing is seen."""


@dataclass(frozen=True, kw_only=True)
class PixelRays:
    """Geometry of a camera, pixel by pixel."""

    width: int
    """[pixels]"""
    height: int
    """[pixels]"""
    focal: tuple[float, float]
    """fx, fy [pixels]"""
    centre: tuple[float, float]
    """cx, cy: where the axis meets the image [pixels]."""
    position: tuple[float, float, float]
    """[m]"""
    axes: NDArray[np.float64]
    """Its x (right), y (down) and z (forward) in the world, (3, 3), one in each row."""

    @property
    def arguments(self) -> list:
        """The first arguments of all kernels."""
        return [
            wp.vec2(*self.focal),
            wp.vec2(*self.centre),
            wp.vec3(*self.position),
            wp.mat33(self.axes.tolist()),
        ]


@dataclass(frozen=True, kw_only=True)
class PosedShape:
    """A rigid shape where it stands."""

    kind: str
    """One of `SHAPE_KINDS`."""
    size: tuple[float, ...]
    """As in `kinematics.Shape`."""
    position: Sequence[float]
    """[m]"""
    quaternion: Sequence[float]
    """x y z w"""


@wp.kernel(enable_backward=False, module="unique")
def _see_shapes(
    # model
    focal: wp.vec2,
    centre: wp.vec2,
    eye: wp.vec3,
    axes: wp.mat33,
    far: float,
    num_shapes: int,
    shape_kind: wp.array(dtype=int),
    shape_size: wp.array(dtype=wp.vec3),
    shape_reach: wp.array(dtype=float),
    shape_pos: wp.array(dtype=wp.vec3d),
    shape_rot: wp.array(dtype=wp.mat33d),
    # out
    depth_out: wp.array2d(dtype=float),
    shape_out: wp.array2d(dtype=int),
):
    row, column = wp.tid()
    ray = wp.vec3((float(column) - centre[0]) / focal[0], (float(row) - centre[1]) / focal[1], 1.0)
    stretch = wp.length(ray)  # of a way along the ray, to the depth that it covers
    ray = wp.transpose(axes) * ray / stretch
    nearest = far * stretch
    seen = int(-1)
    for s in range(num_shapes):
        way = distance_to_shape(
            shape_kind[s], shape_size[s], shape_reach[s], shape_pos[s], shape_rot[s], eye, ray, nearest
        )
        if way < nearest:
            nearest = way
            seen = s
    shape_out[row, column] = seen
    if seen >= 0:
        depth_out[row, column] = nearest / stretch


def see_shapes(
    rays: PixelRays, shapes: Sequence[PosedShape], *, far_m: float, device: wp.Device
) -> tuple[Image, NDArray[np.int32]]:
    """Return the depth of the nearest shape no further than `far_m`, and its index, -1 where there is none."""
    size = (rays.height, rays.width)
    depth = wp.full(size, np.inf, dtype=float, device=device)
    seen = wp.empty(size, dtype=int, device=device)

    def array(values: list, dtype: type) -> wp.array:
        return wp.array(values, dtype=dtype, device=device) if values else wp.zeros(1, dtype, device=device)

    wp.launch(
        _see_shapes,
        dim=size,
        inputs=[
            *rays.arguments, far_m, len(shapes),
            array([SHAPE_KINDS[shape.kind] for shape in shapes], wp.int32),
            array([(*shape.size, 0.0, 0.0, 0.0)[:3] for shape in shapes], wp.vec3f),
            array([reach(shape.kind, shape.size) for shape in shapes], wp.float32),
            array([tuple(shape.position) for shape in shapes], wp.vec3d),
            array([rotation_matrix(tuple(shape.quaternion)) for shape in shapes], wp.mat33d),
            depth, seen,
        ],
        device=device,
    )  # fmt: skip
    return np.asarray(depth.numpy(), np.float32), np.asarray(seen.numpy(), np.int32)


@wp.func
def _bounds(across: float, ahead: float, radius: float, focal: float, centre: float):
    """First and last pixel, along one axis of the image, that a ball ahead of the camera can cover."""
    gap = ahead * ahead - radius * radius
    half = radius * wp.sqrt(across * across + gap)
    low = (across * ahead - half) / gap
    high = (across * ahead + half) / gap
    return wp.vec2i(int(wp.ceil(centre + focal * low)), int(wp.floor(centre + focal * high)))


@wp.kernel(enable_backward=False, module="unique")
def _see_balls(
    # model
    focal: wp.vec2,
    centre: wp.vec2,
    eye: wp.vec3,
    axes: wp.mat33,
    far: float,
    width: int,
    height: int,
    radius: float,
    # in
    points: wp.array(dtype=wp.vec3),
    # out
    depth_out: wp.array2d(dtype=float),
):
    i = wp.tid()
    p = axes * (points[i] - eye)
    if p[2] <= radius or p[2] - radius > far:
        return
    columns = _bounds(p[0], p[2], radius, focal[0], centre[0])
    rows = _bounds(p[1], p[2], radius, focal[1], centre[1])
    for row in range(wp.max(rows[0], 0), wp.min(rows[1], height - 1) + 1):
        for column in range(wp.max(columns[0], 0), wp.min(columns[1], width - 1) + 1):
            ray = wp.vec3((float(column) - centre[0]) / focal[0], (float(row) - centre[1]) / focal[1], 1.0)
            stretch_sq = wp.length_sq(ray)
            abeam = wp.dot(p, ray) / stretch_sq
            inside = radius * radius - wp.length_sq(p - abeam * ray)
            if inside >= 0.0:
                depth = abeam - wp.sqrt(inside / stretch_sq)
                if depth <= far:
                    wp.atomic_min(depth_out, row, column, depth)


def see_balls(
    rays: PixelRays, centres: NDArray[np.float32], *, radius: float, far_m: float, device: wp.Device
) -> Image:
    """Return the depth of the nearest ball no further than `far_m`.

    centres: (n, 3) [m]; those nearer to the image plane through the camera than `radius` [m] are not seen.
    """
    depth = wp.full((rays.height, rays.width), np.inf, dtype=float, device=device)
    wp.launch(
        _see_balls,
        dim=len(centres),
        inputs=[
            *rays.arguments, far_m, rays.width, rays.height, radius,
            wp.array(centres, dtype=wp.vec3, device=device), depth,
        ],
        device=device,
    )  # fmt: skip
    return np.asarray(depth.numpy(), np.float32)


@wp.kernel(enable_backward=False, module="unique")
def _see_skin(
    # model
    focal: wp.vec2,
    centre: wp.vec2,
    eye: wp.vec3,
    axes: wp.mat33,
    far: float,
    # in
    skin: wp.uint64,
    # out
    depth_out: wp.array2d(dtype=float),
):
    row, column = wp.tid()
    ray = wp.vec3((float(column) - centre[0]) / focal[0], (float(row) - centre[1]) / focal[1], 1.0)
    stretch = wp.length(ray)
    met = wp.mesh_query_ray(skin, eye, wp.transpose(axes) * ray / stretch, far * stretch)
    if met.result:  # pyright: ignore[reportAttributeAccessIssue]
        depth_out[row, column] = met.t / stretch  # pyright: ignore[reportAttributeAccessIssue]


def see_skin(
    rays: PixelRays,
    vertices: NDArray[np.float32],
    triangles: NDArray[np.int32],
    *,
    far_m: float,
    device: wp.Device,
) -> Image:
    """Return the depth of the nearest triangle no further than `far_m`.

    vertices: (n, 3) [m]; triangles: (m, 3) indices of them.
    """
    size = (rays.height, rays.width)
    depth = wp.full(size, np.inf, dtype=float, device=device)
    skin = wp.Mesh(
        points=wp.array(vertices, dtype=wp.vec3, device=device),
        indices=wp.array(triangles.ravel(), dtype=int, device=device),
    )
    wp.launch(_see_skin, dim=size, inputs=[*rays.arguments, far_m, skin.id, depth], device=device)
    return np.asarray(depth.numpy(), np.float32)
