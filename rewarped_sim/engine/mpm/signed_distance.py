"""Signed distances of rigid shapes, their outward normals, and the adjoint of the normal.

Everything is in the shape's own frame: distance to the surface, negative inside.
"""

from functools import cache
from types import SimpleNamespace

import warp as wp

from rewarped_sim.engine.kinematics import BOX, CAPSULE, SPHERE
from rewarped_sim.engine.scalars import Scalars


@cache
def signed_distance_functions(scalars: Scalars) -> SimpleNamespace:
    """Build `signed_distance(kind, size, q) -> (d, n)` and `normal_adj(kind, size, q, n, n_bar) -> q_bar`."""
    real, vec3, vec4 = scalars.real, scalars.vec3, scalars.vec4
    tiny = wp.constant(real(1.0e-9))

    @wp.func
    def axis_point(kind: int, size: vec3, q: vec3):
        """The point of a sphere's or capsule's core that is nearest to q."""
        z = real(0.0)
        if kind == CAPSULE:
            z = wp.clamp(q[2], -size[1], size[1])
        return vec3(real(0.0), real(0.0), z)

    @wp.func
    def box_outside(size: vec3, q: vec3):
        """Vector from the nearest point of the box to q; zero inside."""
        return vec3(
            q[0] - wp.clamp(q[0], -size[0], size[0]),
            q[1] - wp.clamp(q[1], -size[1], size[1]),
            q[2] - wp.clamp(q[2], -size[2], size[2]),
        )

    @wp.func
    def signed_distance(kind: int, size: vec3, q: vec3):
        """Distance and outward normal (d, n) at the point q of the shape's frame."""
        d = q[2]
        n = vec3(real(0.0), real(0.0), real(1.0))
        if kind == SPHERE or kind == CAPSULE:
            w = q - axis_point(kind, size, q)
            length = wp.length(w)
            d = length - size[0]
            n = w / wp.max(length, tiny)
        elif kind == BOX:
            w = box_outside(size, q)
            d = wp.length(w)
            if d > real(0.0):
                n = w / d
            else:
                gap = vec3(wp.abs(q[0]) - size[0], wp.abs(q[1]) - size[1], wp.abs(q[2]) - size[2])
                d = wp.max(gap[0], wp.max(gap[1], gap[2]))
                n = vec3(real(0.0), real(0.0), wp.sign(q[2]))
                if gap[0] == d:
                    n = vec3(wp.sign(q[0]), real(0.0), real(0.0))
                elif gap[1] == d:
                    n = vec3(real(0.0), wp.sign(q[1]), real(0.0))
        return vec4(d, n[0], n[1], n[2])

    @wp.func
    def normal_adj(kind: int, size: vec3, q: vec3, n: vec3, n_bar: vec3):
        """Adjoint of the normal with respect to q: (I - n n^T) / length on the directions in which n can turn."""
        q_bar = vec3()
        if kind == SPHERE or kind == CAPSULE:
            w = q - axis_point(kind, size, q)
            q_bar = (n_bar - wp.dot(n, n_bar) * n) / wp.max(wp.length(w), tiny)
            if kind == CAPSULE and wp.abs(q[2]) < size[1]:
                q_bar = vec3(q_bar[0], q_bar[1], real(0.0))
        elif kind == BOX:
            w = box_outside(size, q)
            length = wp.length(w)
            if length > real(0.0):
                q_bar = (n_bar - wp.dot(n, n_bar) * n) / length
                for i in range(3):
                    if w[i] == real(0.0):
                        q_bar[i] = real(0.0)
        return q_bar

    return SimpleNamespace(signed_distance=signed_distance, normal_adj=normal_adj)
