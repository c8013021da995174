"""What a depth image costs on its way to the network, on one core, and what a voxel grid by Open3D would cost.

The scene is a wavy surface 0.9 to 1.1 m before a camera of 600 pixels focal length at 640 x 480, 32 bytes a point, 8 %
of them NaN; the crop box is 0.6 m, a voxel 1 cm, the network takes 1,024 points. `cpu_ms` is the median of the thread's
own time, so that it does not depend on what else the machine does; `p50_ms` and `p99_ms` are by the clock on the wall.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import open3d
import torch

from bench.cloud_mutations import Cloud, Field
from bench.report import table, write
from policy_runner.contract import SAMPLERS, PointCloudSpec
from policy_runner.pointcloud import MAX_POINTS, Points, decode, preprocess
from policy_runner.quiet_process import keep_ticks_short
from rewarped_sim.cloud_chain import CloudChain

IMAGES = ((100, 100), (320, 240), (640, 480))
POINT_STEP = 32
SPEC = PointCloudSpec(
    frame="camera",
    crop_min=(-0.3, -0.3, 0.7),
    crop_max=(0.3, 0.3, 1.3),
    voxel_m=0.01,
    num_points=1024,
    sampler="random",
)
REPEATS = 200


def depth_image(width: int, height: int) -> Cloud:
    """Like the `sensor_msgs/PointCloud2` of a depth camera."""
    row, column = np.mgrid[0:height, 0:width]
    depth = 1.0 + 0.1 * np.sin(9.0 * column / width) * np.cos(7.0 * row / height)
    focal = 600.0 * width / 640.0
    values = np.zeros((height * width, POINT_STEP // 4), "<f4")
    values[:, 0] = ((column - width / 2) / focal * depth).ravel()
    values[:, 1] = ((row - height / 2) / focal * depth).ravel()
    values[:, 2] = depth.ravel()
    values[np.random.default_rng(0).random(height * width) < 0.08, :3] = np.nan
    return Cloud(
        height=height,
        width=width,
        fields=[Field(name, 4 * index) for index, name in enumerate("xyz")],
        is_bigendian=False,
        point_step=POINT_STEP,
        row_step=POINT_STEP * width,
        data=values.tobytes(),
    )


def times_ms(work: Callable[[], object]) -> dict[str, float]:
    """Median of the thread's time, and percentiles of the wall's [ms]."""
    work()
    cpu, wall = [], []
    for _ in range(REPEATS):
        cpu_s, wall_s = time.thread_time(), time.perf_counter()
        work()
        cpu.append(time.thread_time() - cpu_s)
        wall.append(time.perf_counter() - wall_s)
    return {
        "cpu_ms": 1e3 * float(np.median(cpu)),
        "p50_ms": 1e3 * float(np.median(wall)),
        "p99_ms": 1e3 * float(np.percentile(wall, 99)),
    }


def chain(width: int, height: int) -> list[dict[str, Any]]:
    """The chain, stage by stage and as a whole for every sampler; thinned as the runner does, and not thinned."""
    cloud, turned = depth_image(width, height), np.eye(4)
    turned[:3, 3] = 0.01
    rows = []
    for max_points in sorted({min(MAX_POINTS, width * height), width * height}):
        points = decode(cloud, max_points=max_points)
        ungridded = replace(SPEC, voxel_m=0.0, sampler="stride")
        stages: dict[str, Callable[[], object]] = {
            "decode": lambda: decode(cloud, max_points=max_points),  # noqa: B023 - called at once
            "mask, transform, crop": lambda: preprocess(points, ungridded, turned),  # noqa: B023
        }
        for sampler in SAMPLERS:
            spec = replace(SPEC, sampler=sampler)
            stages[f"all, {sampler}"] = lambda spec=spec: preprocess(
                decode(cloud, max_points=max_points),  # noqa: B023
                spec,
                turned,
            )
        rows += [
            {"points": width * height, "kept": len(points), "stage": stage} | times_ms(work)
            for stage, work in stages.items()
        ]
    return rows


def cropped(width: int, height: int) -> Points:
    """What is left of a depth image in the crop box."""
    points = decode(depth_image(width, height))
    low, high = np.array(SPEC.crop_min, np.float32), np.array(SPEC.crop_max, np.float32)
    return points[((points >= low) & (points <= high)).all(axis=1)]


def voxel_grids() -> list[dict[str, Any]]:
    """The runner's grid and those of Open3D: time, and whether the points are those that a policy was trained on."""
    corner = np.array(SPEC.crop_min, np.float32)

    def ours(points: Points) -> Points:
        spec = replace(SPEC, sampler="stride", num_points=occupied_voxels(points))
        return preprocess(points, spec)

    def legacy(points: Points) -> Points:
        cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points.astype(np.float64)))
        return np.asarray(cloud.voxel_down_sample(SPEC.voxel_m).points, np.float32)

    def tensor(points: Points) -> Points:
        cloud = open3d.t.geometry.PointCloud(open3d.core.Tensor.from_numpy(points - corner))
        return cloud.voxel_down_sample(SPEC.voxel_m).point.positions.numpy() + corner

    few, many = cropped(100, 100), cropped(320, 240)
    spec = replace(SPEC, sampler="stride", num_points=occupied_voxels(few))
    batch, present = torch.from_numpy(few)[None], torch.ones(1, len(few), dtype=torch.bool)
    trained_on = CloudChain(spec, len(few), torch.device("cpu"))(batch, present)[0].numpy()
    every_voxel = replace(SPEC, sampler="stride", num_points=1)
    rows = []
    for name, grid, timed in (
        ("ours, from the corner of the crop box", ours, lambda: preprocess(many, every_voxel)),
        ("Open3D, from the corner of the cloud", legacy, lambda: legacy(many)),
        ("Open3D tensors, from the corner of the crop box", tensor, lambda: tensor(many)),
    ):
        found = grid(few)
        same = {
            "points of training": _same(found, trained_on),
            "to the bit": np.array_equal(found, trained_on),
        }
        rows.append({"grid": name} | same | {"points": len(many)} | times_ms(timed))
    return rows


def occupied_voxels(points: Points) -> int:
    """In how many voxels there are points."""
    cells = ((points - np.array(SPEC.crop_min, np.float32)) / SPEC.voxel_m).astype(np.int64)
    return len(np.unique(cells, axis=0))


def _same(found: Points, expected: Points) -> bool:
    """Whether they are the same points to a micrometre, in any order."""
    if len(found) != len(expected):
        return False
    tree = open3d.geometry.KDTreeFlann(np.ascontiguousarray(expected.T, np.float64))
    return all(tree.search_knn_vector_3d(point, 1)[2][0] < 1e-12 for point in found.astype(np.float64))


def main() -> int:
    """Measure, report."""
    keep_ticks_short()  # as the runner does
    chains = [row for width, height in IMAGES for row in chain(width, height)]
    grids = voxel_grids()
    write("cloud_chain", [*chains, *grids])
    print(table(chains), table(grids), sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
