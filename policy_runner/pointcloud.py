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
MAX_POINTS = 100_000
"""Larger clouds are thinned while they are decoded: of a depth image of 640 x 480, every second row and column."""
MAX_FIELDS = 256
"""More fields than any sensor has; a message with more of them is refused before they are looked at."""

DATATYPES = {
    1: "INT8",
    2: "UINT8",
    3: "INT16",
    4: "UINT16",
    5: "INT32",
    6: "UINT32",
    7: "FLOAT32",
    8: "FLOAT64",
}
"""Names of the values of `sensor_msgs/PointField.datatype`; in lower case they are NumPy's."""


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
    is_bigendian: bool
    point_step: int
    row_step: int
    data: Any  # anything with the buffer protocol

    @property
    def fields(self) -> Sequence[FieldLike]:
        """The layout of a point."""
        ...


def decode(cloud: CloudLike, *, max_points: int = MAX_POINTS) -> Points:
    """Read the coordinates of a cloud, in the message's order; points that are not finite are kept.

    A cloud of more than `max_points` is thinned before anything is copied: by rows and columns alike where it has
    enough of both, else along its longer side. `row_step` 0 means rows without padding, as some drivers send
    it, and of a single row it means nothing; bytes after the last point are ignored. Wider types than float32 are
    taken where float32 holds every value of the points that are kept.

    Returns (n, 3) [m], in the message's frame.

    Raises:
        MalformedCloudError: sizes do not fit together, or x, y or z is missing, repeated, of an unknown type or of
        values that float32 would round.
    """
    height, width, point_step = int(cloud.height), int(cloud.width), int(cloud.point_step)
    if height < 0 or width < 0:
        raise MalformedCloudError(f"width, height: expected >= 0, got {width}, {height}")
    if height * width == 0:
        return np.empty((0, 3), np.float32)
    fields = [_coordinate(cloud, axis) for axis in AXES]
    row_step = _row_step(cloud, height, width, point_step)
    every_row, every_column = _strides(height, width, max_points)
    columns = []
    for axis, (format_, offset) in zip(AXES, fields, strict=True):
        grid = np.ndarray((height, width), format_, cloud.data, offset, (row_step, point_step))
        columns.append(_as_float32(grid[::every_row, ::every_column].ravel(), axis))
    return np.stack(columns, axis=1)


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


def load_sampler(spec: PointCloudSpec) -> None:
    """Import what the sampler needs, which takes half a second, before there is a control loop beside it."""
    if spec.sampler == "farthest":
        import open3d  # noqa: F401


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
        import open3d  # here, because most policies do without

        cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points.astype(np.float64)))
        cloud = cloud.farthest_point_down_sample(spec.num_points)
        points = np.asarray(cloud.points, np.float32)  # fewer than asked for where points coincide
    return points[sample_indices(len(points), spec)]


def _coordinate(cloud: CloudLike, axis: str) -> tuple[np.dtype[Any], int]:
    """Type of a coordinate and its byte offset within a point."""
    if len(cloud.fields) > MAX_FIELDS:
        raise MalformedCloudError(f"fields: expected at most {MAX_FIELDS}, got {len(cloud.fields)}")
    named = [field for field in cloud.fields if field.name == axis]
    if len(named) != 1:
        names = [field.name for field in cloud.fields]
        raise MalformedCloudError(f"field {axis!r}: expected exactly one, got {len(named)}; fields: {names}")
    (field,) = named
    if field.datatype not in DATATYPES:
        raise MalformedCloudError(f"field {axis!r}: unknown datatype {field.datatype}; known: {DATATYPES}")
    if field.count != 1:
        raise MalformedCloudError(f"field {axis!r}: expected count 1, got {field.count}")
    name = DATATYPES[field.datatype]
    format_ = np.dtype(name.lower()).newbyteorder(">" if cloud.is_bigendian else "<")
    if field.offset < 0 or field.offset + format_.itemsize > cloud.point_step:
        raise MalformedCloudError(
            f"field {axis!r}: {name} at offset {field.offset} exceeds point_step {cloud.point_step}"
        )
    return format_, int(field.offset)


def _as_float32(values: NDArray[Any], axis: str) -> NDArray[np.float32]:
    """Convert without rounding; NaN stays NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        converted = values.astype(np.float32)
    if not np.can_cast(values.dtype, np.float32):
        rounded = (converted.astype(np.float64) != values) & ~np.isnan(values)
        if rounded.any():
            raise MalformedCloudError(
                f"field {axis!r}: float32 would round {values[int(np.argmax(rounded))]!s}, which is a "
                f"{values.dtype.name.upper()}; send FLOAT32"
            )
    return converted


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


def _strides(height: int, width: int, max_points: int) -> tuple[int, int]:
    """Of which rows and columns to keep every k-th, so that at most `max_points` (> 0) points are left."""
    if height * width <= max_points:
        return 1, 1
    step = math.ceil(math.sqrt(height * width / max_points))
    short, long = min(height, width), max(height, width)
    if short >= step:
        while math.ceil(height / step) * math.ceil(width / step) > max_points:
            step += 1
        return step, step
    along_short = math.ceil(short / max_points)
    along_long = math.ceil(long / (max_points // math.ceil(short / along_short)))
    return (along_short, along_long) if height <= width else (along_long, along_short)


def _voxel_means(points: Points, spec: PointCloudSpec) -> Points:
    """Replace the points of every occupied voxel by their mean, voxel after voxel along x, y, z.

    The grid starts at `crop_min`, so a point keeps its voxel while others come and go.
    """
    cells = ((points - np.asarray(spec.crop_min, np.float32)) / spec.voxel_m).astype(np.int64)
    keys = (cells[:, 0] << 42) | (cells[:, 1] << 21) | cells[:, 2]  # the contract keeps cells below 2**21
    _, voxel, count = np.unique(keys, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(voxel, points[:, axis]) for axis in range(3)], axis=1)
    return (sums / count[:, np.newaxis]).astype(np.float32)
