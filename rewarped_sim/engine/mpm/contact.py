"""What a posed rigid shape does to the velocity of a grid node near it, and the adjoint of that.

Signed distances are to the shape's surface, normals point outwards, both in the shape's frame. Contact law per node
and shape: influence s = min(exp(-softness d), 1), acting while s > 0.1 or d <= 0. With the velocity
v_b = (X_next X^-1 x - x) / dt of the body point (`lin + spin q`, see `kinematics.ToolPoses`), u = v - v_b loses its
inward normal part, its tangent is scaled by Coulomb friction to u_t, and v' = v_b + (1 - s) u + s u_t (as in
PlasticineLab).
"""

from functools import cache
from types import SimpleNamespace

import warp as wp

from rewarped_sim.engine.mpm.signed_distance import signed_distance_functions
from rewarped_sim.engine.scalars import Scalars

MIN_INFLUENCE = 0.1
"""Below this influence a shape does not act on a node."""


@cache
def contact_functions(scalars: Scalars) -> SimpleNamespace:
    """Build `influence_of`, `contact` and `contact_adj`."""
    real, vec3, mat33 = scalars.real, scalars.vec3, scalars.mat33
    min_influence = wp.constant(real(MIN_INFLUENCE))
    geometry = signed_distance_functions(scalars)
    signed_distance, normal_adj = geometry.signed_distance, geometry.normal_adj

    @wp.func
    def influence_of(d: real, softness: real):
        """s, or zero where the shape does not act."""
        s = wp.min(wp.exp(-softness * d), real(1.0))
        if s <= min_influence:
            s = real(0.0)
        return s

    @wp.func
    def contact(
        v: vec3, x: vec3, kind: int, size: vec3, pos: vec3, rot: mat33, lin: vec3, spin: mat33,
        softness: real, friction: real,
    ):  # fmt: skip
        """Velocity of the node at x after one shape."""
        q = wp.transpose(rot) * (x - pos)
        dn = signed_distance(kind, size, q)
        s = influence_of(dn[0], softness)
        v_new = v
        if s > real(0.0):
            n = rot * vec3(dn[1], dn[2], dn[3])
            body_v = lin + spin * q
            u = v - body_v
            c = wp.dot(u, n)
            tangent = u - wp.min(c, real(0.0)) * n
            length_sq = wp.dot(tangent, tangent)
            if c < real(0.0) and length_sq > real(1.0e-30):
                tangent = tangent * wp.max(real(1.0) + c * friction / wp.sqrt(length_sq), real(0.0))
            v_new = body_v + (real(1.0) - s) * u + s * tangent
        return v_new

    @wp.struct
    class ContactAdjoint:
        v_bar: vec3
        force: vec3  # adjoint of the pose at the start, as a wrench about the shape's origin
        torque: vec3
        next_force: vec3  # the same at the end of the substep
        next_torque: vec3

    @wp.func
    def contact_adj(
        v: vec3, x: vec3, kind: int, size: vec3, pos: vec3, rot: mat33, lin: vec3, spin: mat33,
        softness: real, friction: real, dt: real, v_new_bar: vec3,
    ):  # fmt: skip
        """Adjoint of `contact` with respect to v and both poses."""
        result = ContactAdjoint()
        result.v_bar = v_new_bar
        q = wp.transpose(rot) * (x - pos)
        dn = signed_distance(kind, size, q)
        s = influence_of(dn[0], softness)
        if s > real(0.0):
            n_local = vec3(dn[1], dn[2], dn[3])
            n = rot * n_local
            body_v = lin + spin * q
            u = v - body_v
            c = wp.dot(u, n)
            sliding = u - wp.min(c, real(0.0)) * n
            length_sq = wp.dot(sliding, sliding)
            tangent = sliding

            # v_new = body_v + (1 - s) u + s tangent
            body_v_bar = v_new_bar
            u_bar = (real(1.0) - s) * v_new_bar
            tangent_bar = s * v_new_bar
            sliding_bar = tangent_bar
            c_bar = real(0.0)
            n_bar = vec3()
            if c < real(0.0) and length_sq > real(1.0e-30):
                length = wp.sqrt(length_sq)
                scale = real(1.0) + c * friction / length
                if scale > real(0.0):
                    along = wp.dot(sliding, tangent_bar)
                    sliding_bar = (
                        scale * tangent_bar - (along * c * friction / (length_sq * length)) * sliding
                    )
                    c_bar = along * friction / length
                    tangent = scale * sliding
                else:
                    sliding_bar = vec3()
                    tangent = vec3()
            u_bar += sliding_bar
            if c < real(0.0):
                c_bar -= wp.dot(n, sliding_bar)
                n_bar -= c * sliding_bar
            s_bar = wp.dot(v_new_bar, tangent - u)

            u_bar += c_bar * n
            n_bar += c_bar * u
            result.v_bar = u_bar
            body_v_bar = body_v_bar - u_bar

            # body_v = (next_pos + next_rot q - x) / dt, with x fixed
            next_rot = rot + dt * spin
            moved_bar = body_v_bar / dt
            result.next_force = moved_bar
            result.next_torque = wp.cross(next_rot * q, moved_bar)
            q_bar = wp.transpose(next_rot) * moved_bar

            d_bar = real(0.0)
            if dn[0] > real(0.0):
                d_bar = -softness * s * s_bar
            q_bar += d_bar * n_local
            q_bar += normal_adj(kind, size, q, n_local, wp.transpose(rot) * n_bar)

            # n = rot n_local, q = rot^T (x - pos): a turn of the frame turns n along and q against it
            turned = rot * q_bar
            result.force = -turned
            result.torque = wp.cross(n, n_bar) - wp.cross(x - pos, turned)
        return result

    return SimpleNamespace(
        influence_of=influence_of,
        contact=contact,
        contact_adj=contact_adj,
        ContactAdjoint=ContactAdjoint,
    )
