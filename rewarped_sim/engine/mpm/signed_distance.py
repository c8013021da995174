"""Signed distances of rigid shapes, their outward normals, and the adjoint of the normal.

Everything is in the shape's own frame: exact distance to the surface, negative inside. Where several surface points
are equally near, as on the axis of a capsule, the normal is one of theirs or their mean, and its adjoint is zero.

Cylinder and cone are one solid of revolution, the frustum: between heights -h and h its radius runs from r to r or
to 0. Distance and normal are those of its profile in (rho, z), rho the distance to the axis. The normal turns about
the axis at the rate n_rho / rho, and within the profile only where a rim or the apex is nearest, at the rate 1 / d.
"""

from functools import cache
from types import SimpleNamespace

import warp as wp

from rewarped_sim.engine.kinematics import BOX, CAPSULE, CONE, CYLINDER, SPHERE
from rewarped_sim.engine.scalars import Scalars


@cache
def signed_distance_functions(scalars: Scalars) -> SimpleNamespace:
    """Build `signed_distance(kind, size, q) -> (d, n)` and `normal_adj(kind, size, q, n, n_bar) -> q_bar`."""
    real, vec3, vec4 = scalars.real, scalars.vec3, scalars.vec4
    tiny = wp.constant(real(1.0e-9))

    @wp.func
    def reciprocal(length: real):
        """1 / length; 0 at length 0, where there is no direction."""
        result = real(0.0)
        if length > tiny:
            result = real(1.0) / length
        return result

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
    def frustum(kind: int, size: vec3, rho: real, z: real):
        """Distance, normal and nearest rim (d, n_rho, n_z, radius of the rim or -1) in the profile."""
        half = size[1]
        top = size[0]
        if kind == CONE:
            top = real(0.0)
        edge = wp.sqrt(real(4.0) * half * half + (size[0] - top) * (size[0] - top))
        side_rho = real(2.0) * half / edge  # normal of the side
        side_z = (size[0] - top) / edge
        above_side = (rho - size[0]) * side_rho + (z + half) * side_z
        along_side = (z + half) * side_rho - (rho - size[0]) * side_z  # 0 at the lower rim
        above_end = wp.abs(z) - half
        rim = size[0]
        if z > real(0.0):
            rim = top

        inside = wp.max(above_side, above_end) <= real(0.0)
        result = vec4(above_side, side_rho, side_z, real(-1.0))
        if (inside and above_end > above_side) or (above_end > real(0.0) and rho < rim):
            result = vec4(above_end, real(0.0), wp.sign(z), real(-1.0))
        elif not inside and (along_side < real(0.0) or along_side > edge):
            rim = size[0]
            rim_z = -half
            if along_side > edge:
                rim = top
                rim_z = half
            d = wp.sqrt((rho - rim) * (rho - rim) + (z - rim_z) * (z - rim_z))
            result = vec4(d, (rho - rim) * reciprocal(d), (z - rim_z) * reciprocal(d), rim)
        return result

    @wp.func
    def signed_distance(kind: int, size: vec3, q: vec3):
        """Distance and outward normal (d, n) at the point q of the shape's frame."""
        d = q[2]
        n = vec3(real(0.0), real(0.0), real(1.0))
        if kind == SPHERE or kind == CAPSULE:
            w = q - axis_point(kind, size, q)
            length = wp.length(w)
            d = length - size[0]
            n = reciprocal(length) * w
        elif kind == CYLINDER or kind == CONE:
            rho = wp.sqrt(q[0] * q[0] + q[1] * q[1])
            near = frustum(kind, size, rho, q[2])
            d = near[0]
            outward = near[1] * reciprocal(rho)
            n = vec3(outward * q[0], outward * q[1], near[2])
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
            q_bar = reciprocal(wp.length(w)) * (n_bar - wp.dot(n, n_bar) * n)
            if kind == CAPSULE and wp.abs(q[2]) < size[1]:
                q_bar = vec3(q_bar[0], q_bar[1], real(0.0))
        elif kind == CYLINDER or kind == CONE:
            rho = wp.sqrt(q[0] * q[0] + q[1] * q[1])
            near = frustum(kind, size, rho, q[2])
            tilt = -near[2] * reciprocal(rho)
            tangent = vec3(tilt * q[0], tilt * q[1], near[1])
            within = wp.dot(tangent, n_bar) * tangent
            around = n_bar - wp.dot(n, n_bar) * n - within
            if near[3] < real(0.0):
                q_bar = (near[1] * reciprocal(rho)) * around
            else:
                q_bar = reciprocal(near[0]) * (within + (real(1.0) - near[3] * reciprocal(rho)) * around)
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
