"""Rigid bodies that push particles and are pushed back.

A body's shapes act on grid nodes by the same contact law as driven tools. What a node of mass m loses, m (v - v'),
the body gains, and the moment of it about its centre: momentum and angular momentum of the whole are conserved to
round-off. Springs tie a body to points of the driven tree, as an impedance-controlled arm holds its tool.

Per substep, with the impulses P and H of nodes, springs and floor (H about the centre of mass):

    v' = v + g dt + P / m,   L' = L + H,   x' = x + dt v',   q' = normalize(q + dt/2 (w', 0) q),   w = I^-1 L

(semi-implicit Euler; L is kept rather than w, which conserves it exactly). The state holds x, q (x y z w), v, L in
world axes, about the centre of mass. The exchange is explicit: it is stable while a body is not much lighter than the
particles in its contact layer, which `MpmModel` checks.

These kernels are small: their adjoints are Warp's own. Only what reaches the grid nodes is written by hand (`grid`).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace

import numpy as np
import warp as wp

from rewarped_sim.engine.kinematics import SHAPE_KINDS, Shape, Vec3, rotation_matrix
from rewarped_sim.engine.scalars import Scalars

BODY_SIZE = 13
"""Reals per body: centre of mass [m], quaternion x y z w, velocity [m/s], angular momentum [kg m^2/s]."""
SLIP_SPEED = 0.05
"""Below this speed floor friction on a body fades out [m/s]."""
FREE: Vec3 = (1.0, 1.0, 1.0)
HELD: Vec3 = (0.0, 0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Body:
    """A rigid body; its frame is at its centre of mass, along its principal axes."""

    name: str
    mass: float
    """[kg]"""
    inertia: Vec3
    """Principal moments of inertia [kg m^2]."""
    shapes: tuple[Shape, ...]
    """Posed in the body's frame; their `body` is not used."""
    linear_axes: Vec3 = FREE
    """1 where the body may move along this axis of the world, 0 where it is held."""
    angular_axes: Vec3 = FREE
    """The same for turning: `FREE`, `HELD` or one axis of the world (a hinge through the centre of mass)."""
    gravity_scale: float = 1.0
    """Share of the scene's gravity that acts on the body."""
    floor_stiffness: float = 0.0
    """Of the contact between the body's own corners and the floor [N/m]; 0: the floor does not hold it."""
    floor_damping: float = 0.0
    """Of the same contact [N s/m]."""
    floor_friction: float = 0.5
    """Coulomb coefficient of the same contact."""

    def __post_init__(self) -> None:
        where = f"body {self.name!r}"
        if not self.mass > 0.0:
            raise ValueError(f"{where}: mass must be > 0, got {self.mass}")
        if not min(self.inertia) > 0.0:
            raise ValueError(f"{where}: inertia must be > 0 about every axis, got {self.inertia}")
        for shape in self.shapes:
            if shape.kind == "plane":
                raise ValueError(
                    f"{where}: shape {shape.name!r}: a plane has no end, and no body can carry it; choices: "
                    f"{sorted(set(SHAPE_KINDS) - {'plane'})}"
                )
        for name in ("linear_axes", "angular_axes"):
            if not set(getattr(self, name)) <= {0.0, 1.0}:
                raise ValueError(f"{where}: {name} takes a 0 or a 1 per axis, got {getattr(self, name)}")
        if sum(self.angular_axes) == 2:
            raise ValueError(f"{where}: angular_axes may free all axes, none or one, got {self.angular_axes}")
        for name in ("floor_stiffness", "floor_damping", "floor_friction"):
            if not getattr(self, name) >= 0.0:
                raise ValueError(f"{where}: {name} must be >= 0, got {getattr(self, name)}")

    @property
    def floor_points(self) -> list[tuple[np.ndarray, float]]:
        """What of the body can touch the floor: (centre in the body's frame [m], radius [m]) of small spheres."""
        return [point for shape in self.shapes for point in _floor_points(shape)]

    def contact_layer(self, depth: float) -> float:
        """Volume within `depth` [m] of the body's surface [m^3]."""
        return depth * sum(_area(shape) for shape in self.shapes)


@dataclass(frozen=True, kw_only=True)
class Spring:
    """A spring and damper between a point of a driven joint's body and a point of a free body."""

    body: int
    """Index of the free body."""
    joint: int
    """Index of the joint that drives the other end; -1 is the world."""
    anchor: Vec3
    """The driven end, in the joint's frame [m]."""
    point: Vec3 = (0.0, 0.0, 0.0)
    """The body's end, in its frame [m]."""
    stiffness: float
    """[N/m]"""
    damping: float = 0.0
    """[N s/m]"""

    def __post_init__(self) -> None:
        for name in ("stiffness", "damping"):
            if not getattr(self, name) >= 0.0:
                raise ValueError(
                    f"spring of body {self.body}: {name} must be >= 0, got {getattr(self, name)}"
                )


def _floor_points(shape: Shape) -> list[tuple[np.ndarray, float]]:
    turn, origin = rotation_matrix(shape.quaternion), np.array(shape.position)
    size = (*shape.size, 0.0, 0.0)
    if shape.kind == "sphere":
        local, radius = np.zeros((1, 3)), size[0]
    elif shape.kind == "capsule":
        local, radius = np.array([[0.0, 0.0, -size[1]], [0.0, 0.0, size[1]]]), size[0]
    elif shape.kind == "box":
        local, radius = np.array(list(itertools.product(*((-s, s) for s in shape.size)))), 0.0
    else:
        angles = np.linspace(0.0, 2.0 * math.pi, 8, endpoint=False)
        rim = size[0] * np.stack([np.cos(angles), np.sin(angles), np.zeros(8)], axis=1)
        top = rim if shape.kind == "cylinder" else np.zeros((1, 3))
        up = np.array([0.0, 0.0, size[1]])
        local = np.concatenate([rim - up, top + up])
        radius = 0.0
    return [(origin + turn @ point, radius) for point in local]


def _area(shape: Shape) -> float:
    r, h = (*shape.size, 0.0, 0.0)[:2]
    if shape.kind == "box":
        a, b, c = shape.size
        return 8.0 * (a * b + b * c + c * a)
    return {
        "sphere": 4.0 * math.pi * r * r,
        "capsule": 4.0 * math.pi * r * (r + h),
        "cylinder": 2.0 * math.pi * r * (r + 2.0 * h),
        "cone": math.pi * r * (r + math.hypot(r, 2.0 * h)),
    }[shape.kind]


class BodyModel:
    """Bodies and springs on a device, in one precision."""

    def __init__(
        self, bodies: Sequence[Body], springs: Sequence[Spring], scalars: Scalars, device: wp.Device
    ) -> None:
        def array(values: list, dtype: type) -> wp.array:
            return (
                wp.array(values, dtype=dtype, device=device) if values else wp.zeros(1, dtype, device=device)
            )

        real, vec3 = scalars.real, scalars.vec3
        shapes = [(index, shape) for index, body in enumerate(bodies) for shape in body.shapes]
        points = [(index, *point) for index, body in enumerate(bodies) for point in body.floor_points]
        points = [point for point in points if bodies[point[0]].floor_stiffness > 0.0]
        self.num_bodies = len(bodies)
        self.mass = array([body.mass for body in bodies], real)
        self.inertia = array([body.inertia for body in bodies], vec3)
        self.linear_axes = array([body.linear_axes for body in bodies], vec3)
        self.angular_axes = array([body.angular_axes for body in bodies], vec3)
        self.gravity_scale = array([body.gravity_scale for body in bodies], real)
        self.floor_law = array(
            [(body.floor_stiffness, body.floor_damping, body.floor_friction) for body in bodies], vec3
        )
        self.num_shapes = len(shapes)
        self.shape_body = array([index for index, _ in shapes], wp.int32)
        self.shape_kind = [SHAPE_KINDS[shape.kind] for _, shape in shapes]
        self.shape_size = [(*shape.size, 0.0, 0.0, 0.0)[:3] for _, shape in shapes]
        self.shape_pos = array([shape.position for _, shape in shapes], vec3)
        self.shape_rot = array([rotation_matrix(shape.quaternion) for _, shape in shapes], scalars.mat33)
        self.num_points = len(points)
        self.point_body = array([index for index, _, _ in points], wp.int32)
        self.point_pos = array([position for _, position, _ in points], vec3)
        self.point_radius = array([radius for _, _, radius in points], real)
        self.num_springs = len(springs)
        self.spring_body = array([spring.body for spring in springs], wp.int32)
        self.spring_point = array([spring.point for spring in springs], vec3)
        self.spring_stiffness = array([spring.stiffness for spring in springs], real)
        self.spring_damping = array([spring.damping for spring in springs], real)


class BodyMotion:
    """What bodies and nodes tell each other in each substep, [substep, env, body], and the adjoints of that."""

    def __init__(
        self, num_bodies: int, num_envs: int, num_substeps: int, scalars: Scalars, device: wp.Device
    ) -> None:
        def rows() -> wp.array:
            return wp.zeros(num_substeps * num_envs * max(num_bodies, 1), dtype=scalars.vec3, device=device)

        self.centre, self.centre_bar = rows(), rows()
        self.velocity, self.velocity_bar = rows(), rows()
        self.spin, self.spin_bar = rows(), rows()
        self.turn_bar = rows()
        """Adjoint of the orientation: a torque about the centre."""
        self.impulse, self.impulse_bar = rows(), rows()
        """What nodes, springs and floor gave the body in the substep [N s]."""
        self.moment, self.moment_bar = rows(), rows()
        """Moment of the impulse about the centre of mass."""


@cache
def body_kernels(scalars: Scalars) -> SimpleNamespace:
    """Build `clear_impulses`, `clear_adjoints`, `twist`, `place`, `spring`, `floor`, `advance` and `turn_adj`.

    `twist`, `spring`, `floor` and `advance` are differentiable: they are launched backwards as they are.
    """
    real, vec3, mat33, quat = scalars.real, scalars.vec3, scalars.mat33, scalars.quat
    slip_speed_sq = wp.constant(real(SLIP_SPEED**2))

    @wp.func
    def load(state: wp.array2d(dtype=real), row: int, at: int):
        return vec3(state[row, at], state[row, at + 1], state[row, at + 2])

    @wp.func
    def orientation(state: wp.array2d(dtype=real), row: int, at: int):
        return quat(state[row, at + 3], state[row, at + 4], state[row, at + 5], state[row, at + 6])

    @wp.func
    def angular_velocity(q: quat, inertia: vec3, axes: vec3, momentum: vec3):
        free = wp.quat_rotate(q, wp.cw_div(wp.quat_rotate_inv(q, momentum), inertia))
        about = wp.quat_rotate_inv(q, axes)
        hinged = (
            wp.dot(axes, momentum) / wp.max(wp.dot(about, wp.cw_mul(inertia, about)), real(1.0e-20)) * axes
        )
        w = hinged  # one axis, or none
        if axes[0] + axes[1] + axes[2] > real(2.0):
            w = free
        return w

    @wp.kernel(enable_backward=False, module="unique")
    def clear_impulses(
        first_env: int,
        num_envs: int,
        num_bodies: int,
        impulse_out: wp.array(dtype=vec3),
        moment_out: wp.array(dtype=vec3),
    ):
        substep, local_env, body = wp.tid()
        i = (substep * num_envs + first_env + local_env) * num_bodies + body
        impulse_out[i] = vec3()
        moment_out[i] = vec3()

    @wp.kernel(enable_backward=False, module="unique")
    def clear_adjoints(
        first_env: int,
        num_envs: int,
        num_substeps: int,
        num_bodies: int,
        slot: wp.array(dtype=int),
        centre_bar_out: wp.array(dtype=vec3),
        velocity_bar_out: wp.array(dtype=vec3),
        spin_bar_out: wp.array(dtype=vec3),
        turn_bar_out: wp.array(dtype=vec3),
        impulse_bar_out: wp.array(dtype=vec3),
        moment_bar_out: wp.array(dtype=vec3),
        state_bar_out: wp.array2d(dtype=real),
    ):
        substep, local_env, body = wp.tid()
        env = first_env + local_env
        i = (substep * num_envs + env) * num_bodies + body
        centre_bar_out[i] = vec3()
        velocity_bar_out[i] = vec3()
        spin_bar_out[i] = vec3()
        turn_bar_out[i] = vec3()
        impulse_bar_out[i] = vec3()
        moment_bar_out[i] = vec3()
        for k in range(BODY_SIZE):
            state_bar_out[
                slot[0] * (num_substeps + 1) + substep, (env * num_bodies + body) * BODY_SIZE + k
            ] = real(0.0)

    @wp.kernel(module="unique")
    def twist(
        first_env: int,
        num_envs: int,
        num_substeps: int,
        num_bodies: int,
        first_substep: int,
        inertia: wp.array(dtype=vec3),
        angular_axes: wp.array(dtype=vec3),
        slot: wp.array(dtype=int),
        state: wp.array2d(dtype=real),
        # out
        centre_out: wp.array(dtype=vec3),
        velocity_out: wp.array(dtype=vec3),
        spin_out: wp.array(dtype=vec3),
    ):
        k, local_env, body = wp.tid()
        env = first_env + local_env
        substep = first_substep + k
        row = slot[0] * (num_substeps + 1) + substep
        i = (substep * num_envs + env) * num_bodies + body
        at = (env * num_bodies + body) * BODY_SIZE
        centre_out[i] = load(state, row, at)
        velocity_out[i] = load(state, row, at + 7)
        spin_out[i] = angular_velocity(
            orientation(state, row, at), inertia[body], angular_axes[body], load(state, row, at + 10)
        )

    @wp.kernel(enable_backward=False, module="unique")
    def place(
        first_env: int,
        num_envs: int,
        num_substeps: int,
        num_bodies: int,
        first_substep: int,
        first_shape: int,
        shape_stride: int,
        shape_body: wp.array(dtype=int),
        shape_pos: wp.array(dtype=vec3),
        shape_rot: wp.array(dtype=mat33),
        slot: wp.array(dtype=int),
        state: wp.array2d(dtype=real),
        velocity: wp.array(dtype=vec3),
        spin: wp.array(dtype=vec3),
        # out: poses and rates of the bodies' shapes
        pos_out: wp.array(dtype=vec3),
        rot_out: wp.array(dtype=mat33),
        lin_out: wp.array(dtype=vec3),
        spin_out: wp.array(dtype=mat33),
    ):
        k, local_env, s = wp.tid()
        env = first_env + local_env
        substep = first_substep + k
        body = shape_body[s]
        row = slot[0] * (num_substeps + 1) + substep
        i = (substep * num_envs + env) * num_bodies + body
        at = (env * num_bodies + body) * BODY_SIZE
        turn = wp.quat_to_matrix(orientation(state, row, at))
        arm = turn * shape_pos[s]
        rot = turn * shape_rot[s]
        out = (substep * num_envs + env) * shape_stride + first_shape + s
        pos_out[out] = load(state, row, at) + arm
        rot_out[out] = rot
        lin_out[out] = velocity[i] + wp.cross(spin[i], arm)
        spin_out[out] = wp.skew(spin[i]) * rot

    @wp.kernel(module="unique")
    def spring(
        first_env: int,
        num_envs: int,
        num_substeps: int,
        num_bodies: int,
        num_springs: int,
        substep: int,
        dt: real,
        spring_body: wp.array(dtype=int),
        spring_point: wp.array(dtype=vec3),
        stiffness: wp.array(dtype=real),
        damping: wp.array(dtype=real),
        slot: wp.array(dtype=int),
        anchor: wp.array(dtype=wp.vec3d),
        state: wp.array2d(dtype=real),
        velocity: wp.array(dtype=vec3),
        spin: wp.array(dtype=vec3),
        # out
        impulse_out: wp.array(dtype=vec3),
        moment_out: wp.array(dtype=vec3),
    ):
        local_env, s = wp.tid()
        env = first_env + local_env
        body = spring_body[s]
        row = slot[0] * (num_substeps + 1) + substep
        i = (substep * num_envs + env) * num_bodies + body
        at = (env * num_bodies + body) * BODY_SIZE
        a = anchor[(substep * num_envs + env) * num_springs + s]
        b = anchor[((substep + 1) * num_envs + env) * num_springs + s]
        target = vec3(real(b[0]), real(b[1]), real(b[2]))
        moved = b - a
        target_step = vec3(real(moved[0]), real(moved[1]), real(moved[2]))
        arm = wp.quat_rotate(orientation(state, row, at), spring_point[s])
        point_velocity = velocity[i] + wp.cross(spin[i], arm)
        pull = dt * stiffness[s] * (target - load(state, row, at) - arm) + damping[s] * (
            target_step - dt * point_velocity
        )
        wp.atomic_add(impulse_out, i, pull)
        wp.atomic_add(moment_out, i, wp.cross(arm, pull))

    @wp.kernel(module="unique")
    def floor(
        first_env: int,
        num_envs: int,
        num_substeps: int,
        num_bodies: int,
        substep: int,
        dt: real,
        floor_height: real,
        point_body: wp.array(dtype=int),
        point_pos: wp.array(dtype=vec3),
        point_radius: wp.array(dtype=real),
        law: wp.array(dtype=vec3),
        slot: wp.array(dtype=int),
        state: wp.array2d(dtype=real),
        velocity: wp.array(dtype=vec3),
        spin: wp.array(dtype=vec3),
        # out
        impulse_out: wp.array(dtype=vec3),
        moment_out: wp.array(dtype=vec3),
    ):
        local_env, p = wp.tid()
        env = first_env + local_env
        body = point_body[p]
        row = slot[0] * (num_substeps + 1) + substep
        i = (substep * num_envs + env) * num_bodies + body
        at = (env * num_bodies + body) * BODY_SIZE
        down = vec3(real(0.0), real(0.0), -point_radius[p])
        arm = wp.quat_rotate(orientation(state, row, at), point_pos[p]) + down
        depth = floor_height - state[row, at + 2] - arm[2]
        if depth > real(0.0):
            k = law[body]
            v = velocity[i] + wp.cross(spin[i], arm)
            push = wp.max(k[0] * depth - k[1] * v[2], real(0.0))
            drag = k[2] * push / wp.sqrt(v[0] * v[0] + v[1] * v[1] + slip_speed_sq)
            force = dt * vec3(-drag * v[0], -drag * v[1], push)
            wp.atomic_add(impulse_out, i, force)
            wp.atomic_add(moment_out, i, wp.cross(arm, force))

    @wp.kernel(module="unique")
    def advance(
        first_env: int,
        num_envs: int,
        num_substeps: int,
        num_bodies: int,
        substep: int,
        dt: real,
        gravity: vec3,
        mass: wp.array(dtype=real),
        inertia: wp.array(dtype=vec3),
        linear_axes: wp.array(dtype=vec3),
        angular_axes: wp.array(dtype=vec3),
        gravity_scale: wp.array(dtype=real),
        slot: wp.array(dtype=int),
        impulse: wp.array(dtype=vec3),
        moment: wp.array(dtype=vec3),
        # in (row n) and out (row n + 1)
        state: wp.array2d(dtype=real),
    ):
        local_env, body = wp.tid()
        env = first_env + local_env
        row = slot[0] * (num_substeps + 1) + substep
        i = (substep * num_envs + env) * num_bodies + body
        at = (env * num_bodies + body) * BODY_SIZE
        push = (dt * gravity_scale[body]) * gravity + impulse[i] / mass[body]
        v = wp.cw_mul(linear_axes[body], load(state, row, at + 7) + push)
        momentum = wp.cw_mul(angular_axes[body], load(state, row, at + 10) + moment[i])
        x = load(state, row, at) + dt * v
        for k in range(3):
            state[row + 1, at + k] = x[k]
            state[row + 1, at + 7 + k] = v[k]
            state[row + 1, at + 10 + k] = momentum[k]
        # Read back, because on the way back the moments are those of the control step that ran last; the state stays.
        kept = load(state, row + 1, at + 10)
        q = orientation(state, row, at)
        w = angular_velocity(q, inertia[body], angular_axes[body], kept)
        turned = wp.normalize(q + (real(0.5) * dt) * (quat(w[0], w[1], w[2], real(0.0)) * q))
        for k in range(4):
            state[row + 1, at + 3 + k] = turned[k]

    @wp.kernel(enable_backward=False, module="unique")
    def turn_adj(
        first_env: int,
        num_envs: int,
        num_substeps: int,
        num_bodies: int,
        substep: int,
        slot: wp.array(dtype=int),
        state: wp.array2d(dtype=real),
        turn_bar: wp.array(dtype=vec3),
        # in and out
        state_bar: wp.array2d(dtype=real),
    ):
        # A turn by a small t moves q by (t, 0) q / 2, at right angles to q.
        local_env, body = wp.tid()
        env = first_env + local_env
        row = slot[0] * (num_substeps + 1) + substep
        at = (env * num_bodies + body) * BODY_SIZE
        t = turn_bar[(substep * num_envs + env) * num_bodies + body]
        q_bar = real(2.0) * (quat(t[0], t[1], t[2], real(0.0)) * orientation(state, row, at))
        for k in range(4):
            state_bar[row, at + 3 + k] = state_bar[row, at + 3 + k] + q_bar[k]

    return SimpleNamespace(
        clear_impulses=clear_impulses,
        clear_adjoints=clear_adjoints,
        twist=twist,
        place=place,
        spring=spring,
        floor=floor,
        advance=advance,
        turn_adj=turn_adj,
    )
