"""Where a camera stands and where it looks: its optical frame, as REP 103 has it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float, float]
"""[m]"""

POSITION: Point = (0.5, -0.35, 1.15)
LOOK_AT: Point = (0.5, 0.45, 0.15)
FOV_DEG = 50.0
"""From here, a camera sees the whole unit cube in which the tasks with particles play, and its tool from the front."""


def optical_axes(position: Point, look_at: Point) -> NDArray[np.float64]:
    """A camera's x (right), y (down) and z (forward) in the world, (3, 3), one in each row."""
    forward = np.subtract(look_at, position, dtype=np.float64)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    if np.linalg.norm(right) < 1e-9:  # straight up or down: x of the world is to the right
        right = np.array([1.0, 0.0, 0.0])
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward])


def optical_pose(position: Point, look_at: Point) -> tuple[float, ...]:
    """Pose of the optical frame in the world: x y z [m], quaternion x y z w with w >= 0."""
    (m00, m01, m02), (m10, m11, m12), (m20, m21, m22) = optical_axes(position, look_at).T
    # Each row is the quaternion times four of its own components; the longest row loses no digits.
    rows = np.array(
        [
            [1 + m00 - m11 - m22, m01 + m10, m02 + m20, m21 - m12],
            [m01 + m10, 1 - m00 + m11 - m22, m12 + m21, m02 - m20],
            [m02 + m20, m12 + m21, 1 - m00 - m11 + m22, m10 - m01],
            [m21 - m12, m02 - m20, m10 - m01, 1 + m00 + m11 + m22],
        ]
    )
    longest = rows[np.argmax(np.diag(rows))]
    quaternion = longest / np.linalg.norm(longest)
    return (*position, *(np.copysign(1.0, quaternion[3]) * quaternion).tolist())
