"""From a point-cloud message to the points a network sees: one implementation, for robot and simulator.

    decode -> stride -> mask -> transform -> crop -> voxel -> sample

`decode` takes any legal `sensor_msgs/PointCloud2`, or refuses it before it allocates anything. `preprocess`
does what the contract's `PointCloudSpec` says, always in this order: cropping first makes everything after it
cheap, and sampling last gives the network its fixed number of points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from policy_runner.contract import PointCloudSpec

Points = NDArray[np.float32]

AXES = ("x", "y", "z")
MAX_POINTS = 400_000
"""Larger clouds are thinned while they are decoded; a depth image of 640 x 480 stays whole."""

DATATYPES = {
    1: ("INT8", "i1"),
    2: ("UINT8", "u1"),
    3: ("INT16", "i2"),
    4: ("UINT16", "u2"),
    5: ("INT32", "i4"),
    6: ("UINT32", "u4"),
    7: ("FLOAT32", "f4"),
    8: ("FLOAT64", "f8"),
}
"""Name and NumPy code of the values of `sensor_msgs/PointField.datatype`."""

LOSSLESS = ("INT8", "UINT8", "INT16", "UINT16", "FLOAT32")
"""Datatypes of which every value is a float32."""


class CloudError(ValueError):
    """No observation can be made of this cloud."""


class MalformedCloudError(CloudError):
    """The message contradicts itself, or holds coordinates that this runner does not read."""


class TooFewPointsError(CloudError):
    """Nothing, or not enough, is left of the cloud after masking and cropping."""


class FieldLike(Protocol):
    """What is read of a `sensor_msgs/PointField`."""

    name: str
    offset: int
    datatype: int
    count: int


class CloudLike(Protocol):
    """What is read of a `sensor_msgs/PointCloud2`."""

    height: int
    width: int
    fields: Sequence[Any]  # FieldLike; message classes are not generic over it
    is_bigendian: bool
    point_step: int
    row_step: int
    data: Any  # anything with the buffer protocol


def decode(cloud: CloudLike, *, max_points: int = MAX_POINTS) -> Points:
    """Read the coordinates of a cloud, in the message's order; points that are not finite are kept.

    A cloud of more than `max_points` is thinned: an organised one by rows and columns alike, else every k-th
    point. `row_step` 0 means rows without padding, as some drivers send it; bytes after the last point are
    ignored.

    Returns (n, 3) [m], in the message's frame.

    Raises:
        MalformedCloudError: sizes do not fit together, or x, y or z is missing, repeated or not of a lossless
        type.
    """
    height, width, point_step = int(cloud.height), int(cloud.width), int(cloud.point_step)
    if height < 0 or width < 0:
        raise MalformedCloudError(f"width, height: expected >= 0, got {width}, {height}")
    if height * width == 0:
        return np.empty((0, 3), np.float32)
    formats, offsets = _coordinate_layout(cloud)
    row_step = _row_step(cloud, height, width, point_step)
    point = np.dtype({"names": AXES, "formats": formats, "offsets": offsets, "itemsize": point_step})
    grid = np.ndarray((height, width), point, buffer=cloud.data, strides=(row_step, point_step))
    grid = _thin(grid, max_points)
    points = np.empty((grid.size, 3), np.float32)
    for column, axis in enumerate(AXES):
        points[:, column] = grid[axis].ravel()
    return points


def preprocess(points: Points, spec: PointCloudSpec, transform: NDArray[np.float64] | None = None) -> Points:
    """Mask, transform, crop, voxelise and sample.

    points: (n, 3) [m], in the sensor's frame; points that are not finite are dropped.
    transform: (4, 4), takes points from the sensor's frame into `spec.frame`; None where they are the same.
    Returns (spec.num_points, 3) [m], in `spec.frame`; points are repeated where fewer are left.

    Raises:
        TooFewPointsError: fewer than `spec.min_points` are left after cropping.
    """
    if transform is not None:
        with np.errstate(over="ignore", invalid="ignore"):  # the crop drops what overflows
            # row by row: as one product of matrices so narrow it takes BLAS ten times longer
            rows = transform[:3].astype(np.float32)
            points = np.stack([points @ row[:3] + row[3] for row in rows], axis=1)
    points = points[_inside(points, spec)]
    if len(points) < spec.min_points:
        raise TooFewPointsError(
            f"{len(points)} points inside the crop box, expected at least {spec.min_points}"
        )
    if spec.voxel_m > 0.0:
        points = _voxel_means(points, spec)
    return _sample(points, spec)


def stride_indices(available: int, num_points: int) -> NDArray[np.int64]:
    """Rows 0, k, 2k, ... with k = available // num_points: the same points of a body at every step.

    Where there are fewer rows than `num_points`, all of them are taken again and again, in order.
    """
    if available < 1:
        raise TooFewPointsError("cannot sample from an empty cloud")
    if available < num_points:
        return np.arange(num_points, dtype=np.int64) % available
    return np.arange(num_points, dtype=np.int64) * (available // num_points)


def sample_indices(available: int, spec: PointCloudSpec) -> NDArray[np.int64]:
    """Rows that the samplers `stride` and `random` keep, (spec.num_points,): it is their number alone that decides."""
    if spec.sampler == "random" and available > spec.num_points:
        return np.random.default_rng(spec.seed).choice(available, spec.num_points, replace=False)
    return stride_indices(available, spec.num_points)


def _inside(points: Points, spec: PointCloudSpec) -> NDArray[np.bool_]:
    """Whether each point lies in the crop box; no comparison holds for NaN, so this is the mask as well."""
    inside = np.ones(len(points), np.bool_)
    low, high = np.asarray(spec.crop_min, np.float32), np.asarray(spec.crop_max, np.float32)
    for axis in range(3):  # axis by axis: reducing over rows of three is four times slower
        values = points[:, axis]
        inside &= (values >= low[axis]) & (values <= high[axis])
    return inside


def _sample(points: Points, spec: PointCloudSpec) -> Points:
    """Keep `spec.num_points` points, repeating some where there are fewer."""
    if len(points) > spec.num_points and spec.sampler == "farthest":
        import open3d  # here, because it takes half a second to import and most policies do without

        cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points.astype(np.float64)))
        cloud = cloud.farthest_point_down_sample(spec.num_points)
        points = np.asarray(cloud.points, np.float32)  # fewer than asked for where points coincide
    return points[sample_indices(len(points), spec)]


def _coordinate_layout(cloud: CloudLike) -> tuple[list[str], list[int]]:
    """NumPy formats and byte offsets of x, y and z within a point."""
    order = ">" if cloud.is_bigendian else "<"
    formats, offsets = [], []
    for axis in AXES:
        named = [field for field in cloud.fields if field.name == axis]
        if len(named) != 1:
            names = [field.name for field in cloud.fields]
            raise MalformedCloudError(
                f"field {axis!r}: expected exactly one, got {len(named)}; fields: {names}"
            )
        (field,) = named
        if field.datatype not in DATATYPES:
            raise MalformedCloudError(f"field {axis!r}: unknown datatype {field.datatype}")
        name, code = DATATYPES[field.datatype]
        if name not in LOSSLESS:
            raise MalformedCloudError(f"field {axis!r}: {name} does not fit float32; read: {list(LOSSLESS)}")
        if field.count != 1:
            raise MalformedCloudError(f"field {axis!r}: expected count 1, got {field.count}")
        format_ = np.dtype(order + code)
        if field.offset < 0 or field.offset + format_.itemsize > cloud.point_step:
            raise MalformedCloudError(
                f"field {axis!r}: {name} at offset {field.offset} exceeds point_step {cloud.point_step}"
            )
        formats.append(format_.str)
        offsets.append(int(field.offset))
    return formats, offsets


def _row_step(cloud: CloudLike, height: int, width: int, point_step: int) -> int:
    """Bytes from one row to the next, checked against the data there is."""
    row_bytes = width * point_step
    row_step = int(cloud.row_step)
    if row_step == 0 or height == 1:
        row_step = row_bytes
    if row_step < row_bytes:
        raise MalformedCloudError(
            f"row_step: expected at least width * point_step = {row_bytes}, got {row_step}"
        )
    expected, found = (height - 1) * row_step + row_bytes, memoryview(cloud.data).nbytes
    if found < expected:
        raise MalformedCloudError(f"data: expected at least {expected} bytes, got {found}")
    return row_step


def _thin(grid: NDArray[Any], max_points: int) -> NDArray[Any]:
    """Keep at most `max_points` of a (height, width) grid."""
    if grid.size <= max_points:
        return grid
    height, width = grid.shape
    step = math.ceil(math.sqrt(grid.size / max_points))
    if height >= step and width >= step:
        while math.ceil(height / step) * math.ceil(width / step) > max_points:
            step += 1
        return grid[::step, ::step]
    flat = grid.reshape(-1) if height > 1 else grid[0]
    return flat[:: math.ceil(grid.size / max_points)]


def _voxel_means(points: Points, spec: PointCloudSpec) -> Points:
    """Replace the points of every occupied voxel by their mean, voxel after voxel along x, y, z.

    The grid starts at `crop_min`, so a point keeps its voxel while others come and go.
    """
    cells = ((points - np.asarray(spec.crop_min, np.float32)) / spec.voxel_m).astype(np.int64)
    keys = (cells[:, 0] << 42) | (cells[:, 1] << 21) | cells[:, 2]  # the contract keeps cells below 2**21
    _, voxel, count = np.unique(keys, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(voxel, points[:, axis]) for axis in range(3)], axis=1)
    return (sums / count[:, np.newaxis]).astype(np.float32)
