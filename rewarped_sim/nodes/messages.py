"""From scenes and run figures to ROS messages and back: pure functions, no node."""

from __future__ import annotations

import array
import math
from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion, Vector3
from numpy.typing import NDArray
from rewarped_msgs.msg import TrainingStatus
from sensor_msgs.msg import CameraInfo, JointState, PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from rewarped_sim.meshes import PLANE_HALF_SIZE_M, local_mesh, rotation_matrix
from rewarped_sim.render import particle_colors
from rewarped_sim.run_control import RunState, RunStatus
from rewarped_sim.scene import SEE_THROUGH_OPACITY, Scene, SceneLines, SceneShape, SceneSurface
from rewarped_sim.sensor_model import SensorConfig

MAX_VIEWED_POINTS = 20_000
"""320 kB: fits the shared-memory segment that Fast DDS has by default (512 kB)."""


def cloud_message(scene: Scene, stamp: Time) -> PointCloud2:
    """Give what the scene's depth camera sees as x, y, z; where there is none, all particles and vertices in order."""
    points = scene.cloud
    if points is None:
        points = np.concatenate([scene.particles, *(surface.vertices for surface in scene.surfaces)])
    return _cloud(np.ascontiguousarray(points, np.float32), "xyz", scene.frame, stamp)


def organised_cloud_message(points: NDArray[np.float32], frame: str, stamp: Time) -> PointCloud2:
    """Give a picture's points (height, width, 3) as x, y, z, row by row; those that are missing are NaN."""
    return _cloud(points, "xyz", frame, stamp)


def camera_info_message(config: SensorConfig, stamp: Time) -> CameraInfo:
    """Give the intrinsics of a camera without distortion."""
    (fx, fy), (cx, cy) = config.focal, config.centre
    return CameraInfo(
        header=Header(stamp=stamp, frame_id=config.frame),
        height=config.height,
        width=config.width,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=[fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0],
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    )


def colored_cloud_message(
    scene: Scene, stamp: Time, color_range_m: tuple[float, float] | None = None
) -> PointCloud2:
    """Give particles as x, y, z, rgb for people to look at; every k-th one when there are very many."""
    colors = np.rint(255 * np.clip(particle_colors(scene, color_range_m), 0, 1)).astype(np.uint32)
    packed = (colors[:, 0] << 16 | colors[:, 1] << 8 | colors[:, 2]).view(np.float32)
    points = np.column_stack([scene.particles, packed]).astype(np.float32)
    stride = math.ceil(len(points) / MAX_VIEWED_POINTS) or 1
    return _cloud(np.ascontiguousarray(points[::stride]), ("x", "y", "z", "rgb"), scene.frame, stamp)


def shapes_message(scene: Scene, stamp: Time, *, first: bool = False) -> MarkerArray:
    """Give rigid shapes, skins of soft bodies and strings as markers.

    A capsule is a cylinder and two spheres; a cone and a skin are lists of triangles, strings a list of lines.
    first: what was shown before is of something else, and is to go.
    """
    header = Header(stamp=stamp, frame_id=scene.frame)
    markers = [Marker(header=header, action=Marker.DELETEALL)] if first else []
    markers += [marker for shape in scene.shapes for marker in _markers(shape, header)]
    markers += [_surface_marker(surface, header) for surface in scene.surfaces]
    return MarkerArray(markers=markers + [_lines_marker(lines, header) for lines in scene.lines])


def joint_state_message(
    names: Sequence[str], position: NDArray[np.float32], velocity: NDArray[np.float32], stamp: Time
) -> JointState:
    """Give joint positions [rad or m] and velocities [rad/s or m/s]."""
    return JointState(
        header=Header(stamp=stamp), name=list(names), position=position.tolist(), velocity=velocity.tolist()
    )


def goal_message(position: NDArray[np.float32], frame: str, stamp: Time) -> PoseStamped:
    """Give a position to go to [m]; its orientation is none."""
    x, y, z = (float(value) for value in position)
    header = Header(stamp=stamp, frame_id=frame)
    return PoseStamped(header=header, pose=Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(w=1.0)))


def status_message(status: RunStatus, stamp: Time) -> TrainingStatus:
    """Give the figures of a run."""
    values = {name: getattr(status, name) for name in RunStatus.__dataclass_fields__}
    values["state"] = int(status.state)
    return TrainingStatus(header=Header(stamp=stamp), **values)


def diagnostics_message(node: str, status: RunStatus, stamp: Time) -> DiagnosticArray:
    """Give the health of a run: error when it failed, warning when environments or updates were dropped."""
    level, summary = DiagnosticStatus.OK, status.state.name.lower()
    if status.state is RunState.FAILED:
        level, summary = DiagnosticStatus.ERROR, status.message
    elif status.nonfinite_envs or status.skipped_updates:
        level = DiagnosticStatus.WARN
        summary = (
            f"{summary}; {status.nonfinite_envs} environments and {status.skipped_updates} updates dropped"
        )
    names = (
        "task",
        "epoch",
        "planned_epochs",
        "env_steps",
        "env_steps_per_second",
        "episode_return",
        "eta_s",
    )
    names += ("nonfinite_envs", "skipped_updates", "out_dir")
    values = [KeyValue(key=name, value=str(getattr(status, name))) for name in names]
    health = DiagnosticStatus(
        level=level, name=f"{node}: training", message=summary, hardware_id=node, values=values
    )
    return DiagnosticArray(header=Header(stamp=stamp), status=[health])


def _cloud(points: NDArray[np.float32], names: Sequence[str], frame: str, stamp: Time) -> PointCloud2:
    """Pack float32 (..., N, len(names)). As `data`, a NumPy array would be a thousand times slower."""
    height, width = points.shape[:2] if points.ndim == 3 else (1, len(points))
    data = array.array("B")
    data.frombytes(points.tobytes())
    step = 4 * len(names)
    return PointCloud2(
        header=Header(stamp=stamp, frame_id=frame),
        height=height,
        width=width,
        fields=[
            PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
            for index, name in enumerate(names)
        ],
        is_bigendian=False,
        point_step=step,
        row_step=step * width,
        data=data,
        is_dense=bool(np.isfinite(points[..., :3]).all()),
    )


def _surface_marker(surface: SceneSurface, header: Header) -> Marker:
    """Give a soft body's skin as triangles."""
    red, green, blue = surface.color
    return Marker(
        header=header,
        ns=surface.name,
        type=Marker.TRIANGLE_LIST,
        action=Marker.ADD,
        pose=Pose(orientation=Quaternion(w=1.0)),
        scale=Vector3(x=1.0, y=1.0, z=1.0),
        color=ColorRGBA(r=float(red), g=float(green), b=float(blue), a=1.0),
        points=_points(surface.vertices[surface.triangles]),
    )


def _lines_marker(lines: SceneLines, header: Header) -> Marker:
    """Give strings as pairs of points, in their colours."""
    colors = [ColorRGBA(r=r, g=g, b=b, a=1.0) for r, g, b in lines.colors.astype(float).tolist()]
    return Marker(
        header=header,
        ns=lines.name,
        type=Marker.LINE_LIST,
        action=Marker.ADD,
        pose=Pose(orientation=Quaternion(w=1.0)),
        scale=Vector3(x=2.0 * lines.radius),
        points=_points(np.stack([lines.starts, lines.ends], axis=1)),
        colors=[color for color in colors for _ in range(2)],
    )


def _points(points: NDArray[np.float32]) -> list[Point]:
    """Give points (..., 3) as messages, in order."""
    return [Point(x=x, y=y, z=z) for x, y, z in points.reshape(-1, 3).astype(float).tolist()]


def _markers(shape: SceneShape, header: Header) -> list[Marker]:
    """Give the markers of one shape; ids count within the namespace that bears its name."""
    position = np.asarray(shape.position, float)
    corners: list[Point] = []
    axis = rotation_matrix(shape.quaternion)[:, 2].astype(float)
    if shape.kind == "sphere":
        diameter = 2 * shape.size[0]
        parts = [(Marker.SPHERE, position, (diameter, diameter, diameter))]
    elif shape.kind == "box":
        parts = [(Marker.CUBE, position, tuple(2 * half for half in shape.size))]
    elif shape.kind == "capsule":
        diameter, half_length = 2 * shape.size[0], shape.size[1]
        parts = [(Marker.CYLINDER, position, (diameter, diameter, 2 * half_length))]
        parts += [
            (Marker.SPHERE, position + side * half_length * axis, (diameter, diameter, diameter))
            for side in (-1.0, 1.0)
        ]
    elif shape.kind == "cylinder":
        diameter, half_length = 2 * shape.size[0], shape.size[1]
        parts = [(Marker.CYLINDER, position, (diameter, diameter, 2 * half_length))]
    elif shape.kind == "cone":
        mesh = local_mesh(shape)
        corners = _points(mesh.vertices[mesh.triangles])
        parts = [(Marker.TRIANGLE_LIST, position, (1.0, 1.0, 1.0))]
    elif shape.kind == "plane":
        thickness = 1e-3
        edge = 2 * PLANE_HALF_SIZE_M
        parts = [(Marker.CUBE, position - thickness / 2 * axis, (edge, edge, thickness))]
    else:
        raise ValueError(f"shape {shape.name!r}: unknown kind {shape.kind!r}")
    x, y, z, w = (float(value) for value in shape.quaternion)
    red, green, blue = (float(part) for part in shape.color)
    color = ColorRGBA(r=red, g=green, b=blue, a=SEE_THROUGH_OPACITY if shape.see_through else 1.0)
    return [
        Marker(
            header=header,
            ns=shape.name,
            id=index,
            type=kind,
            action=Marker.ADD,
            pose=Pose(
                position=Point(x=float(center[0]), y=float(center[1]), z=float(center[2])),
                orientation=Quaternion(x=x, y=y, z=z, w=w),
            ),
            scale=Vector3(x=float(scale[0]), y=float(scale[1]), z=float(scale[2])),
            color=color,
            points=corners,
        )
        for index, (kind, center, scale) in enumerate(parts)
    ]
