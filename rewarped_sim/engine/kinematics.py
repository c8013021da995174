"""Driven tools: a tree of joints that moves as told, its shapes' poses at every substep, and the way back.

All poses of a control step are computed in one launch. At substep n of S the joint coordinates are
q_n = q + (n / S) dq. A joint is described by its axis in the parent's frame after a fixed offset; a body's frame
sits at its joint. The adjoint needs no differentiated rotation code: a wrench (force, torque) on a posed shape maps
to its joints by the geometric Jacobian transpose, exactly.

The tree is always evaluated in float64: a tool's velocity is the difference of two poses a substep apart, which float32
would leave with three digits. What kernels read is rounded to their precision at the end.
"""

from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace

import numpy as np
import warp as wp

from rewarped_sim.engine.scalars import Scalars

PRISMATIC = 0
REVOLUTE = 1
SPHERE = 0
CAPSULE = 1
BOX = 2
PLANE = 3

SHAPE_KINDS = {"sphere": SPHERE, "capsule": CAPSULE, "box": BOX, "plane": PLANE}
SHAPE_SIZES = {"sphere": 1, "capsule": 2, "box": 3, "plane": 0}

Vec3 = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]
IDENTITY: Quaternion = (0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Joint:
    """One degree of freedom; its child body's frame moves with it."""

    name: str
    kind: str
    """`prismatic` (coordinate in metres) or `revolute` (radians)."""
    axis: Vec3
    """Unit axis in the joint's own frame."""
    parent: int = -1
    """Index of the parent joint, which must come earlier in the tree; -1 is the world."""
    position: Vec3 = (0.0, 0.0, 0.0)
    """Origin of the joint's frame in its parent's frame [m]."""
    quaternion: Quaternion = IDENTITY
    """Orientation of the joint's frame in its parent's frame, x y z w."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A rigid shape fixed to a joint's body."""

    name: str
    kind: str
    """`sphere` (radius), `capsule` (radius, half length along local z), `box` (half extents), `plane` (z >= 0)."""
    size: tuple[float, ...]
    body: int
    """Index of the joint whose body carries the shape; -1 is the world."""
    position: Vec3 = (0.0, 0.0, 0.0)
    """Origin in the body's frame [m]."""
    quaternion: Quaternion = IDENTITY
    """Orientation in the body's frame, x y z w."""
    color: Vec3 = (0.7, 0.7, 0.75)

    def __post_init__(self) -> None:
        if self.kind not in SHAPE_KINDS:
            raise ValueError(f"shape {self.name!r}: unknown kind {self.kind!r}; known: {sorted(SHAPE_KINDS)}")
        if len(self.size) != SHAPE_SIZES[self.kind]:
            raise ValueError(
                f"shape {self.name!r}: a {self.kind} takes {SHAPE_SIZES[self.kind]} sizes, got {self.size}"
            )


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A driven tree of joints with shapes; parents come before children."""

    joints: tuple[Joint, ...] = ()
    shapes: tuple[Shape, ...] = field(default=())

    def __post_init__(self) -> None:
        for index, joint in enumerate(self.joints):
            if joint.kind not in ("prismatic", "revolute"):
                raise ValueError(
                    f"joint {joint.name!r}: unknown kind {joint.kind!r}; known: prismatic, revolute"
                )
            if not -1 <= joint.parent < index:
                raise ValueError(f"joint {joint.name!r}: parent {joint.parent} must come before it ({index})")
            if abs(np.linalg.norm(joint.axis) - 1.0) > 1e-6:
                raise ValueError(f"joint {joint.name!r}: axis must have length 1, got {joint.axis}")
        for shape in self.shapes:
            if not -1 <= shape.body < len(self.joints):
                raise ValueError(f"shape {shape.name!r}: no body {shape.body}; joints: {len(self.joints)}")

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names in the order of the joint coordinates."""
        return tuple(joint.name for joint in self.joints)


def rotation_matrix(quaternion: Quaternion) -> np.ndarray:
    """Rotation matrix (3, 3) of a quaternion x y z w, normalised first."""
    x, y, z, w = np.asarray(quaternion, dtype=np.float64) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


class ToolModel:
    """A `Tool` on a device, in one precision."""

    def __init__(self, tool: Tool, scalars: Scalars, device: wp.Device) -> None:
        joints, shapes = tool.joints, tool.shapes

        def array(values: list, dtype: type, count: int) -> wp.array:
            # Warp arrays of length 0 cannot be indexed in a kernel's signature: keep one unused element.
            return (
                wp.array(values, dtype=dtype, device=device)
                if count
                else wp.zeros(1, dtype=dtype, device=device)
            )

        self.num_joints = len(joints)
        self.num_shapes = len(shapes)
        count = self.num_joints
        self.joint_kind = array([int(joint.kind == "revolute") for joint in joints], wp.int32, count)
        self.joint_parent = array([joint.parent for joint in joints], wp.int32, count)
        self.joint_axis = array([joint.axis for joint in joints], wp.vec3d, count)
        self.joint_pos = array([joint.position for joint in joints], wp.vec3d, count)
        self.joint_rot = array([rotation_matrix(joint.quaternion) for joint in joints], wp.mat33d, count)
        count = self.num_shapes
        self.shape_kind = array([SHAPE_KINDS[shape.kind] for shape in shapes], wp.int32, count)
        self.shape_body = array([shape.body for shape in shapes], wp.int32, count)
        self.shape_size = array([(*shape.size, 0.0, 0.0, 0.0)[:3] for shape in shapes], scalars.vec3, count)
        self.shape_pos = array([shape.position for shape in shapes], wp.vec3d, count)
        self.shape_rot = array([rotation_matrix(shape.quaternion) for shape in shapes], wp.mat33d, count)


class ToolPoses:
    """Poses of every shape at every substep boundary, [substep, env, shape], their rates, and the wrenches on them.

    In the substep that starts at n a point fixed to the shape, at q in its frame, moves from pos + rot q with the mean
    velocity lin + spin q [m/s].
    """

    def __init__(
        self, model: ToolModel, num_envs: int, num_substeps: int, scalars: Scalars, device: wp.Device
    ) -> None:
        boundaries = (num_substeps + 1) * num_envs
        bodies = boundaries * max(model.num_joints, 1)
        shapes = boundaries * max(model.num_shapes, 1)
        self.body_pos = wp.zeros(bodies, dtype=wp.vec3d, device=device)
        self.body_rot = wp.zeros(bodies, dtype=wp.mat33d, device=device)
        self.exact_pos = wp.zeros(shapes, dtype=wp.vec3d, device=device)
        self.exact_rot = wp.zeros(shapes, dtype=wp.mat33d, device=device)
        self.pos = wp.zeros(shapes, dtype=scalars.vec3, device=device)
        self.rot = wp.zeros(shapes, dtype=scalars.mat33, device=device)
        self.lin = wp.zeros(shapes, dtype=scalars.vec3, device=device)
        self.spin = wp.zeros(shapes, dtype=scalars.mat33, device=device)
        self.force = wp.zeros(shapes, dtype=scalars.vec3, device=device)
        self.torque = wp.zeros(shapes, dtype=scalars.vec3, device=device)


@cache
def kinematics_kernels(scalars: Scalars) -> SimpleNamespace:
    """Build `pose` (joint coordinates to poses), `motion` (poses to rates), `clear_wrenches` and `pose_adj`."""
    real, vec3, mat33 = scalars.real, scalars.vec3, scalars.mat33

    @wp.func
    def rotation(axis: wp.vec3d, angle: wp.float64):
        """Rodrigues' formula."""
        K = wp.skew(axis)
        return (
            wp.identity(3, dtype=wp.float64) + wp.sin(angle) * K + (wp.float64(1.0) - wp.cos(angle)) * (K * K)
        )

    @wp.kernel(enable_backward=False, module="unique")
    def pose(
        # model
        first_env: int,
        num_envs: int,
        num_substeps: int,
        num_joints: int,
        num_shapes: int,
        joint_kind: wp.array(dtype=int),
        joint_parent: wp.array(dtype=int),
        joint_axis: wp.array(dtype=wp.vec3d),
        joint_pos: wp.array(dtype=wp.vec3d),
        joint_rot: wp.array(dtype=wp.mat33d),
        shape_body: wp.array(dtype=int),
        shape_pos: wp.array(dtype=wp.vec3d),
        shape_rot: wp.array(dtype=wp.mat33d),
        # in
        slot: wp.array(dtype=int),
        joint_q: wp.array3d(dtype=real),
        joint_dq: wp.array3d(dtype=real),
        # out
        body_pos_out: wp.array(dtype=wp.vec3d),
        body_rot_out: wp.array(dtype=wp.mat33d),
        pos_out: wp.array(dtype=wp.vec3d),
        rot_out: wp.array(dtype=wp.mat33d),
    ):
        substep, local_env = wp.tid()
        env = first_env + local_env
        fraction = wp.float64(substep) / wp.float64(num_substeps)
        bodies = (substep * num_envs + env) * num_joints
        shapes = (substep * num_envs + env) * num_shapes
        for j in range(num_joints):
            origin = joint_pos[j]
            frame = joint_rot[j]
            parent = joint_parent[j]
            if parent >= 0:
                parent_rot = body_rot_out[bodies + parent]
                origin = body_pos_out[bodies + parent] + parent_rot * origin
                frame = parent_rot * frame
            q = wp.float64(joint_q[slot[0], env, j]) + fraction * wp.float64(joint_dq[slot[0], env, j])
            if joint_kind[j] == PRISMATIC:
                origin = origin + frame * (q * joint_axis[j])
            else:
                frame = frame * rotation(joint_axis[j], q)
            body_pos_out[bodies + j] = origin
            body_rot_out[bodies + j] = frame
        for s in range(num_shapes):
            origin = shape_pos[s]
            frame = shape_rot[s]
            body = shape_body[s]
            if body >= 0:
                body_rot = body_rot_out[bodies + body]
                origin = body_pos_out[bodies + body] + body_rot * origin
                frame = body_rot * frame
            pos_out[shapes + s] = origin
            rot_out[shapes + s] = frame

    @wp.kernel(enable_backward=False, module="unique")
    def motion(
        first_env: int,
        num_envs: int,
        num_substeps: int,
        num_shapes: int,
        dt: real,
        exact_pos: wp.array(dtype=wp.vec3d),
        exact_rot: wp.array(dtype=wp.mat33d),
        # out
        pos_out: wp.array(dtype=vec3),
        rot_out: wp.array(dtype=mat33),
        lin_out: wp.array(dtype=vec3),
        spin_out: wp.array(dtype=mat33),
    ):
        substep, local_env = wp.tid()
        rate = wp.float64(1.0) / wp.float64(dt)
        for s in range(num_shapes):
            i = (substep * num_envs + first_env + local_env) * num_shapes + s
            pos_out[i] = vec3(exact_pos[i])
            rot_out[i] = mat33(exact_rot[i])
            if substep < num_substeps:
                following = i + num_envs * num_shapes
                lin_out[i] = vec3(rate * (exact_pos[following] - exact_pos[i]))
                spin_out[i] = mat33(rate * (exact_rot[following] - exact_rot[i]))

    @wp.kernel(enable_backward=False, module="unique")
    def clear_wrenches(
        first_env: int,
        num_envs: int,
        num_shapes: int,
        force_out: wp.array(dtype=vec3),
        torque_out: wp.array(dtype=vec3),
    ):
        substep, local_env = wp.tid()
        for s in range(num_shapes):
            i = (substep * num_envs + first_env + local_env) * num_shapes + s
            force_out[i] = vec3()
            torque_out[i] = vec3()

    @wp.kernel(enable_backward=False, module="unique")
    def pose_adj(
        # model
        first_env: int,
        num_envs: int,
        num_substeps: int,
        num_joints: int,
        num_shapes: int,
        joint_kind: wp.array(dtype=int),
        joint_parent: wp.array(dtype=int),
        joint_axis: wp.array(dtype=wp.vec3d),
        shape_body: wp.array(dtype=int),
        # in
        body_pos: wp.array(dtype=wp.vec3d),
        body_rot: wp.array(dtype=wp.mat33d),
        pos: wp.array(dtype=wp.vec3d),
        force: wp.array(dtype=vec3),
        torque: wp.array(dtype=vec3),
        # out
        joint_q_bar_out: wp.array2d(dtype=real),
        joint_dq_bar_out: wp.array2d(dtype=real),
    ):
        # One thread per env and joint keeps the sum over substeps in one order, whatever the device. The wrenches at
        # both ends of a substep nearly cancel, hence float64 again.
        local_env, joint = wp.tid()
        env = first_env + local_env
        q_bar = wp.float64(0.0)
        dq_bar = wp.float64(0.0)
        for substep in range(num_substeps + 1):
            bodies = (substep * num_envs + env) * num_joints
            shapes = (substep * num_envs + env) * num_shapes
            axis = body_rot[bodies + joint] * joint_axis[joint]
            anchor = body_pos[bodies + joint]
            moved = wp.float64(0.0)
            for s in range(num_shapes):
                body = shape_body[s]
                while body > joint:
                    body = joint_parent[body]
                if body == joint:
                    f = wp.vec3d(force[shapes + s])
                    if joint_kind[joint] == PRISMATIC:
                        moved += wp.dot(axis, f)
                    else:
                        arm = pos[shapes + s] - anchor
                        moved += wp.dot(axis, wp.vec3d(torque[shapes + s]) + wp.cross(arm, f))
            q_bar += moved
            dq_bar += moved * (wp.float64(substep) / wp.float64(num_substeps))
        joint_q_bar_out[env, joint] = real(q_bar)
        joint_dq_bar_out[env, joint] = real(dq_bar)

    return SimpleNamespace(pose=pose, motion=motion, clear_wrenches=clear_wrenches, pose_adj=pose_adj)
