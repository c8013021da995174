"""Driven tools: a tree of joints that moves as told, its shapes' poses at every substep, and the way back.

All poses of a control step are computed in one launch. At substep n of S the joint coordinates are
q_n = q + (n / S) dq. A joint is described by its axis in the parent's frame after a fixed offset; a body's frame
sits at its joint. The adjoint needs no differentiated rotation code: a wrench (force, torque) on a posed shape maps
to its joints by the geometric Jacobian transpose, exactly.

The tree is always evaluated in float64: a tool's velocity is the difference of two poses a substep apart, which float32
would leave with three digits. What kernels read is rounded to their precision at the end.
"""

from collections.abc import Sequence
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
CYLINDER = 4
CONE = 5

SHAPE_KINDS = {
    "sphere": SPHERE,
    "capsule": CAPSULE,
    "box": BOX,
    "plane": PLANE,
    "cylinder": CYLINDER,
    "cone": CONE,
}
SHAPE_SIZES = {"sphere": 1, "capsule": 2, "box": 3, "plane": 0, "cylinder": 2, "cone": 2}

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
    """`sphere` (radius), `capsule` and `cylinder` (radius, half length along local z), `cone` (radius of the base at
    z = -half length, half length; apex at z = +half length), `box` (half extents), `plane` (solid below z = 0)."""
    size: tuple[float, ...]
    body: int = -1
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
        if not all(0.0 < size < float("inf") for size in self.size):
            raise ValueError(f"shape {self.name!r}: sizes must be > 0 and finite, got {self.size}")
        if not np.linalg.norm(self.quaternion) > 0.0:
            raise ValueError(f"shape {self.name!r}: quaternion must not be zero, got {self.quaternion}")


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
            if not np.linalg.norm(joint.quaternion) > 0.0:
                raise ValueError(f"joint {joint.name!r}: quaternion must not be zero, got {joint.quaternion}")
        for shape in self.shapes:
            if not -1 <= shape.body < len(self.joints):
                raise ValueError(f"shape {shape.name!r}: no body {shape.body}; joints: {len(self.joints)}")

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names in the order of the joint coordinates."""
        return tuple(joint.name for joint in self.joints)


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """A point that is fixed to a joint's body and moves with it."""

    body: int
    """Index of the joint; -1 is the world."""
    position: Vec3
    """In the body's frame [m]."""


def rotation_matrix(quaternion: Quaternion | np.ndarray) -> np.ndarray:
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
    """A `Tool` with anchors on a device, in one precision."""

    def __init__(
        self, tool: Tool, scalars: Scalars, device: wp.Device, anchors: Sequence[Anchor] = ()
    ) -> None:
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
        self.num_anchors = len(anchors)
        count = self.num_anchors
        self.anchor_body = array([anchor.body for anchor in anchors], wp.int32, count)
        self.anchor_pos = array([anchor.position for anchor in anchors], wp.vec3d, count)


class ToolPoses:
    """Poses of every shape at every substep boundary, [substep, env, shape], their rates, and the wrenches on them.

    Rows have room for `num_shapes` shapes: the tool's come first, those of bodies that move freely after them. In the
    substep that starts at n a point fixed to the shape, at q in its frame, moves from pos + rot q with the mean
    velocity lin + spin q [m/s].
    """

    def __init__(
        self,
        model: ToolModel,
        num_envs: int,
        num_substeps: int,
        num_shapes: int,
        scalars: Scalars,
        device: wp.Device,
    ) -> None:
        boundaries = (num_substeps + 1) * num_envs
        bodies = boundaries * max(model.num_joints, 1)
        shapes = boundaries * max(num_shapes, 1)
        anchors = boundaries * max(model.num_anchors, 1)
        self.num_shapes = num_shapes
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
        self.anchor = wp.zeros(anchors, dtype=wp.vec3d, device=device)
        self.anchor_bar = wp.zeros(anchors, dtype=wp.vec3d, device=device)


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
        shape_stride: int,
        num_anchors: int,
        joint_kind: wp.array(dtype=int),
        joint_parent: wp.array(dtype=int),
        joint_axis: wp.array(dtype=wp.vec3d),
        joint_pos: wp.array(dtype=wp.vec3d),
        joint_rot: wp.array(dtype=wp.mat33d),
        shape_body: wp.array(dtype=int),
        shape_pos: wp.array(dtype=wp.vec3d),
        shape_rot: wp.array(dtype=wp.mat33d),
        anchor_body: wp.array(dtype=int),
        anchor_pos: wp.array(dtype=wp.vec3d),
        # in
        slot: wp.array(dtype=int),
        joint_q: wp.array3d(dtype=real),
        joint_dq: wp.array3d(dtype=real),
        # out
        body_pos_out: wp.array(dtype=wp.vec3d),
        body_rot_out: wp.array(dtype=wp.mat33d),
        pos_out: wp.array(dtype=wp.vec3d),
        rot_out: wp.array(dtype=wp.mat33d),
        anchor_out: wp.array(dtype=wp.vec3d),
    ):
        substep, local_env = wp.tid()
        env = first_env + local_env
        fraction = wp.float64(substep) / wp.float64(num_substeps)
        bodies = (substep * num_envs + env) * num_joints
        shapes = (substep * num_envs + env) * shape_stride
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
        for a in range(num_anchors):
            point = anchor_pos[a]
            body = anchor_body[a]
            if body >= 0:
                point = body_pos_out[bodies + body] + body_rot_out[bodies + body] * point
            anchor_out[(substep * num_envs + env) * num_anchors + a] = point

    @wp.kernel(enable_backward=False, module="unique")
    def motion(
        first_env: int,
        num_envs: int,
        num_substeps: int,
        num_shapes: int,
        shape_stride: int,
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
            i = (substep * num_envs + first_env + local_env) * shape_stride + s
            pos_out[i] = vec3(exact_pos[i])
            rot_out[i] = mat33(exact_rot[i])
            if substep < num_substeps:
                following = i + num_envs * shape_stride
                lin_out[i] = vec3(rate * (exact_pos[following] - exact_pos[i]))
                spin_out[i] = mat33(rate * (exact_rot[following] - exact_rot[i]))

    @wp.kernel(enable_backward=False, module="unique")
    def clear_wrenches(
        first_env: int,
        num_envs: int,
        num_shapes: int,
        shape_stride: int,
        num_anchors: int,
        force_out: wp.array(dtype=vec3),
        torque_out: wp.array(dtype=vec3),
        anchor_bar_out: wp.array(dtype=wp.vec3d),
    ):
        substep, local_env = wp.tid()
        row = substep * num_envs + first_env + local_env
        for s in range(num_shapes):
            force_out[row * shape_stride + s] = vec3()
            torque_out[row * shape_stride + s] = vec3()
        for a in range(num_anchors):
            anchor_bar_out[row * num_anchors + a] = wp.vec3d()

    @wp.func
    def carries(joint_parent: wp.array(dtype=int), joint: int, body: int):
        """Whether a joint moves a body: whether it is the body's own or one of its ancestors."""
        ancestor = int(body)
        while ancestor > joint:
            ancestor = joint_parent[ancestor]
        return ancestor == joint

    @wp.func
    def along_joint(kind: int, axis: wp.vec3d, arm: wp.vec3d, force: wp.vec3d, torque: wp.vec3d):
        """Generalised force of a wrench that acts at `arm` from the joint's origin."""
        moved = wp.dot(axis, force)
        if kind != PRISMATIC:
            moved = wp.dot(axis, torque + wp.cross(arm, force))
        return moved

    @wp.kernel(enable_backward=False, module="unique")
    def pose_adj(
        # model
        first_env: int,
        num_envs: int,
        num_substeps: int,
        num_joints: int,
        num_shapes: int,
        shape_stride: int,
        num_anchors: int,
        joint_kind: wp.array(dtype=int),
        joint_parent: wp.array(dtype=int),
        joint_axis: wp.array(dtype=wp.vec3d),
        shape_body: wp.array(dtype=int),
        anchor_body: wp.array(dtype=int),
        # in
        body_pos: wp.array(dtype=wp.vec3d),
        body_rot: wp.array(dtype=wp.mat33d),
        pos: wp.array(dtype=wp.vec3d),
        force: wp.array(dtype=vec3),
        torque: wp.array(dtype=vec3),
        anchor: wp.array(dtype=wp.vec3d),
        anchor_bar: wp.array(dtype=wp.vec3d),
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
            shapes = (substep * num_envs + env) * shape_stride
            anchors = (substep * num_envs + env) * num_anchors
            axis = body_rot[bodies + joint] * joint_axis[joint]
            origin = body_pos[bodies + joint]
            moved = wp.float64(0.0)
            for s in range(num_shapes):
                if carries(joint_parent, joint, shape_body[s]):
                    f = wp.vec3d(force[shapes + s])
                    t = wp.vec3d(torque[shapes + s])
                    moved += along_joint(joint_kind[joint], axis, pos[shapes + s] - origin, f, t)
            for a in range(num_anchors):
                if carries(joint_parent, joint, anchor_body[a]):
                    f = anchor_bar[anchors + a]
                    moved += along_joint(joint_kind[joint], axis, anchor[anchors + a] - origin, f, wp.vec3d())
            q_bar += moved
            dq_bar += moved * (wp.float64(substep) / wp.float64(num_substeps))
        joint_q_bar_out[env, joint] = real(q_bar)
        joint_dq_bar_out[env, joint] = real(dq_bar)

    return SimpleNamespace(pose=pose, motion=motion, clear_wrenches=clear_wrenches, pose_adj=pose_adj)
