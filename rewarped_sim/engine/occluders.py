"""Where a scene's rigid shapes are in every env, on the device: what may stand in a camera's way."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import warp as wp

from rewarped_sim.engine.kinematics import (
    SHAPE_KINDS,
    Tool,
    ToolModel,
    kinematics_kernels,
    rotation_matrix,
)
from rewarped_sim.engine.mpm.bodies import Body
from rewarped_sim.engine.scalars import FLOAT32


class ShapePoses(NamedTuple):
    """Poses of every shape in every env, [env * num_shapes + shape]."""

    position: wp.array
    """vec3d [m]"""
    rotation: wp.array
    """mat33d, from the shape's frame to the world."""


@wp.kernel(enable_backward=False, module="unique")
def _place_free(
    # model
    shape_stride: int,
    first_shape: int,
    shape_body: wp.array(dtype=int),
    shape_pos: wp.array(dtype=wp.vec3d),
    shape_rot: wp.array(dtype=wp.mat33d),
    # in
    bodies: wp.array3d(dtype=float),
    # out
    pos_out: wp.array(dtype=wp.vec3d),
    rot_out: wp.array(dtype=wp.mat33d),
):
    env, s = wp.tid()
    b = shape_body[s]
    centre = wp.vec3d(wp.vec3(bodies[env, b, 0], bodies[env, b, 1], bodies[env, b, 2]))
    q = wp.quat(bodies[env, b, 3], bodies[env, b, 4], bodies[env, b, 5], bodies[env, b, 6])
    turn = wp.mat33d(wp.quat_to_matrix(q))
    i = env * shape_stride + first_shape + s
    pos_out[i] = centre + turn * shape_pos[s]
    rot_out[i] = turn * shape_rot[s]


class Occluders:
    """The shapes of a driven tool, and after them those of bodies that move freely."""

    def __init__(self, tool: Tool, bodies: Sequence[Body], device: wp.Device) -> None:
        self._device = device
        free = [(index, shape) for index, body in enumerate(bodies) for shape in body.shapes]
        shapes = [*tool.shapes, *(shape for _, shape in free)]
        self._tool = ToolModel(tool, FLOAT32, self._device)
        self._num_free = len(free)
        self.num_shapes = len(shapes)
        self.kind = self._array([SHAPE_KINDS[shape.kind] for shape in shapes], wp.int32)
        self.size = self._array([(*shape.size, 0.0, 0.0, 0.0)[:3] for shape in shapes], wp.vec3f)
        self.reach = self._array([reach(shape.kind, shape.size) for shape in shapes], wp.float32)
        """Radius of the ball about a shape's origin that holds all of it [m]."""
        self._free_body = self._array([index for index, _ in free], wp.int32)
        self._free_pos = self._array([shape.position for _, shape in free], wp.vec3d)
        self._free_rot = self._array([rotation_matrix(shape.quaternion) for _, shape in free], wp.mat33d)
        self._slot = wp.zeros(1, dtype=wp.int32, device=self._device)

    def poses(self, joint_q: wp.array, bodies: wp.array | None) -> ShapePoses:
        """Where the shapes are.

        joint_q: (1, num_envs, joints) [m or rad]. bodies: (num_envs, bodies, 13) as in the state of the MPM engine, or
        None where there are none.
        """
        num_envs, tool, stride = joint_q.shape[1], self._tool, self.num_shapes
        position = wp.empty(num_envs * max(stride, 1), dtype=wp.vec3d, device=self._device)
        rotation = wp.empty(num_envs * max(stride, 1), dtype=wp.mat33d, device=self._device)
        count = num_envs * max(tool.num_joints, 1)
        wp.launch(
            kinematics_kernels(FLOAT32).pose,
            dim=(1, num_envs),  # the first of two boundaries of substeps: nothing has moved yet
            inputs=[
                0, num_envs, 1, tool.num_joints, tool.num_shapes, stride, tool.num_anchors,
                tool.joint_kind, tool.joint_parent, tool.joint_axis, tool.joint_pos, tool.joint_rot,
                tool.shape_body, tool.shape_pos, tool.shape_rot, tool.anchor_body, tool.anchor_pos,
                self._slot, joint_q, joint_q,
                wp.empty(count, dtype=wp.vec3d, device=self._device),
                wp.empty(count, dtype=wp.mat33d, device=self._device),
                position, rotation, wp.empty(1, dtype=wp.vec3d, device=self._device),
            ],
            device=self._device,
        )  # fmt: skip
        if self._num_free and bodies is not None:
            wp.launch(
                _place_free,
                dim=(num_envs, self._num_free),
                inputs=[
                    stride, tool.num_shapes, self._free_body, self._free_pos, self._free_rot,
                    bodies, position, rotation,
                ],
                device=self._device,
            )  # fmt: skip
        return ShapePoses(position, rotation)

    def _array(self, values: list, dtype: type) -> wp.array:
        if not values:  # arrays of length 0 cannot be indexed in a kernel's signature
            return wp.zeros(1, dtype=dtype, device=self._device)
        return wp.array(values, dtype=dtype, device=self._device)


def reach(kind: str, size: Sequence[float]) -> float:
    """Radius of the ball about a shape's origin that holds all of it [m]; infinite for a plane."""
    if kind == "plane":
        return float("inf")
    if kind == "capsule":
        return sum(size)
    return float(np.linalg.norm(size))
