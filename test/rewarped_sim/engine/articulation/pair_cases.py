"""Contact of shapes evaluated on arrays of poses, with the adjoint; random and named poses."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import warp as wp

from rewarped_sim.engine.articulation.pairs import NUM_CANDIDATES, pair_functions
from rewarped_sim.engine.scalars import FLOAT64

SIZES = {"sphere": (0.12, 0, 0), "capsule": (0.08, 0.2, 0), "box": (0.12, 0.16, 0.2)}
OTHER_SIZES = {"sphere": (0.09, 0, 0), "capsule": (0.1, 0.15, 0), "box": (0.1, 0.22, 0.14)}
IDENTITY = (0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Poses:
    """Poses of two shapes each: positions (n, 3), quaternions (n, 4); and their sizes (3,)."""

    pos_a: np.ndarray
    rot_a: np.ndarray
    pos_b: np.ndarray
    rot_b: np.ndarray
    size_a: tuple[float, float, float]
    size_b: tuple[float, float, float]

    def __len__(self):
        return len(self.pos_a)

    def swapped(self):
        return Poses(self.pos_b, self.rot_b, self.pos_a, self.rot_a, self.size_b, self.size_a)

    def moved(self, turn, shift):
        """All of it turned about the world's origin, then shifted."""
        turns = np.broadcast_to(turn, self.rot_a.shape)
        return replace(
            self,
            pos_a=rotate(turns, self.pos_a) + shift,
            rot_a=multiply(turns, self.rot_a),
            pos_b=rotate(turns, self.pos_b) + shift,
            rot_b=multiply(turns, self.rot_b),
        )

    def where(self, mask):
        return replace(
            self,
            **{name: getattr(self, name)[mask] for name in ("pos_a", "rot_a", "pos_b", "rot_b")},
        )


def multiply(p, q):
    """Product of quaternions x y z w, (n, 4)."""
    pv, pw, qv, qw = p[:, :3], p[:, 3:], q[:, :3], q[:, 3:]
    return np.hstack([pw * qv + qw * pv + np.cross(pv, qv), pw * qw - (pv * qv).sum(1, keepdims=True)])


def rotate(q, x):
    """Points (n, 3) turned by quaternions (n, 4)."""
    twice = 2 * np.cross(q[:, :3], x)
    return x + q[:, 3:] * twice + np.cross(q[:, :3], twice)


def about(axis, angle):
    """Quaternions of turns about one axis by angles (n,)."""
    angle = np.atleast_1d(angle)[:, None] / 2
    return np.hstack([np.sin(angle) * np.asarray(axis, float), np.cos(angle)])


def random_quaternions(rng, count):
    q = rng.normal(size=(count, 4))
    return q / np.linalg.norm(q, axis=1, keepdims=True)


def random_poses(kinds, rng, count, spread=0.35):
    """Poses at all distances up to `spread`, most of them overlapping."""
    direction = rng.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    pos_b = rng.normal(size=(count, 3))
    pos_a = pos_b + direction * rng.uniform(0.3 * spread, spread, (count, 1))
    turns = random_quaternions(rng, count), random_quaternions(rng, count)
    return Poses(pos_a, turns[0], pos_b, turns[1], SIZES[kinds[0]], OTHER_SIZES[kinds[1]])


def path(kinds, *, shift=None, rot_a=None, rot_b=None, size_a=None, size_b=None):
    """Poses with b at the origin; what is not given stays put."""
    given = [x for x in (shift, rot_a, rot_b) if x is not None]
    count = max(len(np.atleast_2d(x)) for x in given)
    rows = [
        np.array(np.broadcast_to(default if x is None else x, (count, len(default))))
        for x, default in ((shift, (0.0, 0.0, 0.0)), (rot_a, IDENTITY), (rot_b, IDENTITY))
    ]
    return Poses(
        rows[0],
        rows[1],
        np.zeros((count, 3)),
        rows[2],
        size_a or SIZES[kinds[0]],
        size_b or OTHER_SIZES[kinds[1]],
    )


@cache
def contact_kernel(kinds, scalars=FLOAT64):
    contact = pair_functions(scalars)[kinds]
    real, vec3, quat = scalars.real, scalars.vec3, scalars.quat

    @wp.kernel(module="unique")
    def contacts(
        count: int,
        size_a: vec3,
        size_b: vec3,
        pos_a: wp.array(dtype=vec3),
        rot_a: wp.array(dtype=quat),
        pos_b: wp.array(dtype=vec3),
        rot_b: wp.array(dtype=quat),
        gap_out: wp.array(dtype=real),
        normal_out: wp.array(dtype=vec3),
        point_out: wp.array(dtype=vec3),
    ):
        t = wp.tid()
        i = t // count
        gap, normal, point = contact(t % count, size_a, pos_a[i], rot_a[i], size_b, pos_b[i], rot_b[i])
        gap_out[t] = gap
        normal_out[t] = normal
        point_out[t] = point

    return contacts


@dataclass(frozen=True)
class Contacts:
    """gap (n, candidates), normal and point (n, candidates, 3)."""

    gap: np.ndarray
    normal: np.ndarray
    point: np.ndarray

    @property
    def depth(self):
        return np.maximum(-self.gap, 0.0)

    def force(self):
        """What springs of stiffness 1 push a with, (n, 3)."""
        return (self.depth[..., None] * self.normal).sum(1)

    def wrench(self, origin):
        """That and its torque about points (n, 3), (n, 6)."""
        force = self.depth[..., None] * self.normal
        return np.hstack([force.sum(1), np.cross(self.point - origin[:, None], force).sum(1)])


def _arrays(kinds, poses, scalars, gradient):
    def array(values, dtype):
        return wp.array(values.astype(scalars.numpy), dtype=dtype, device="cpu", requires_grad=gradient)

    inputs = [
        array(poses.pos_a, scalars.vec3),
        array(poses.rot_a, scalars.quat),
        array(poses.pos_b, scalars.vec3),
        array(poses.rot_b, scalars.quat),
    ]
    size = len(poses) * NUM_CANDIDATES[kinds]
    outputs = [
        wp.full(size, np.nan, dtype=dtype, device="cpu", requires_grad=gradient)
        for dtype in (scalars.real, scalars.vec3, scalars.vec3)
    ]
    head = [NUM_CANDIDATES[kinds], scalars.vec3(*poses.size_a), scalars.vec3(*poses.size_b)]
    return head, inputs, outputs


def contacts(kinds, poses, scalars=FLOAT64):
    head, inputs, outputs = _arrays(kinds, poses, scalars, gradient=False)
    size = len(poses) * NUM_CANDIDATES[kinds]
    wp.launch(contact_kernel(kinds, scalars), size, [*head, *inputs], outputs, device="cpu")
    shape = (len(poses), NUM_CANDIDATES[kinds])
    gap, normal, point = (out.numpy() for out in outputs)
    return Contacts(gap.reshape(shape), normal.reshape(*shape, 3), point.reshape(*shape, 3))


def contacts_adj(kinds, poses, gap_bar, normal_bar, point_bar, scalars=FLOAT64):
    """Adjoints of pos_a, rot_a, pos_b, rot_b by Warp's reverse mode."""
    head, inputs, outputs = _arrays(kinds, poses, scalars, gradient=True)
    size = len(poses) * NUM_CANDIDATES[kinds]
    for out, bar in zip(outputs, (gap_bar, normal_bar, point_bar), strict=True):
        out.grad.assign(bar.reshape(size, -1).squeeze().reshape(out.grad.numpy().shape).astype(scalars.numpy))
    wp.launch(
        contact_kernel(kinds, scalars),
        size,
        [*head, *inputs],
        outputs,
        adj_inputs=[*head, *(array.grad for array in inputs)],
        adj_outputs=[out.grad for out in outputs],
        adjoint=True,
        device="cpu",
    )
    return [array.grad.numpy() for array in inputs]
