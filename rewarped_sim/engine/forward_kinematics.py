"""Where a driven tool's shapes are for given joint coordinates: on the host, in float64, for drawing and checking."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rewarped_sim.engine.kinematics import Joint, Tool, rotation_matrix

Pose = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Position (3,) [m] and quaternion x y z w (4,)."""

WORLD: Pose = (np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]))


def body_poses(tool: Tool, joint_q: Sequence[float]) -> list[Pose]:
    """Pose of each joint's body in the world, as `kinematics` computes it on the device.

    joint_q: one coordinate per joint [m or rad]; any other number of them is a ValueError.
    """
    if len(joint_q) != len(tool.joints):
        raise ValueError(f"joint_q: expected {len(tool.joints)} coordinates, got {len(joint_q)}")
    poses: list[Pose] = []
    for joint, q in zip(tool.joints, joint_q, strict=True):
        parent = poses[joint.parent] if joint.parent >= 0 else WORLD
        frame = compose(parent, (np.array(joint.position), np.array(joint.quaternion)))
        poses.append(compose(frame, _motion(joint, q)))
    return poses


def shape_poses(tool: Tool, joint_q: Sequence[float]) -> list[Pose]:
    """Pose of each of the tool's shapes in the world; arguments as for `body_poses`."""
    bodies = body_poses(tool, joint_q)
    return [
        compose(
            bodies[shape.body] if shape.body >= 0 else WORLD,
            (np.array(shape.position), np.array(shape.quaternion)),
        )
        for shape in tool.shapes
    ]


def compose(outer: Pose, inner: Pose) -> Pose:
    """Pose in the world of what has the pose `inner` in the frame `outer`; its quaternion has length 1."""
    position = outer[0] + rotation_matrix(tuple(outer[1])) @ inner[0]
    (*a, a_w), (*b, b_w) = outer[1], inner[1]
    vector = a_w * np.array(b) + b_w * np.array(a) + np.cross(a, b)
    quaternion = np.array([*vector, a_w * b_w - np.dot(a, b)])
    return position, quaternion / np.linalg.norm(quaternion)


def _motion(joint: Joint, q: float) -> Pose:
    """What the joint adds to its frame at coordinate q."""
    axis = np.array(joint.axis)
    if joint.kind == "prismatic":
        return q * axis, WORLD[1]
    return WORLD[0], np.array([*(np.sin(q / 2.0) * axis), np.cos(q / 2.0)])
