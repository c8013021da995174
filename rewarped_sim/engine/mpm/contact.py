"""What a posed rigid shape does to the velocity of a grid node near it, and the adjoint of that.

With distance d, outward normal n and the velocity v_b of the shape's point at the node, u = v - v_b becomes

    v' = v_b + (1 - s) u + s f (u - c' n),   c' the part of c = u . n that approaches the shape,

where s is the shape's influence at this distance and f what Coulomb friction mu leaves of the slip. Two laws:

* `published` (as in PlasticineLab): s = min(exp(-softness d), 1), acting while s > 0.1 or d <= 0;
  c' = min(c, 0); f = max(1 + mu c' / l, 0) with slip speed l. The influence jumps by a tenth at the cutoff, which no
  derivative sees, and c' and f have kinks;
* `smooth`: the same outside of narrow bands, continuously differentiable inside them. The influence is remapped by
  a cubic that vanishes at the cutoff and levels off at the surface; the onset of contact is a parabola over
  +-`APPROACH_BAND` m/s, the onset of sliding one over +-`SLIP_BAND` of the friction limit. A sticky floor (`grid`)
  takes hold of a node over the first of these bands.
"""

from functools import cache
from types import SimpleNamespace

import warp as wp

from rewarped_sim.engine.mpm.signed_distance import signed_distance_functions
from rewarped_sim.engine.scalars import Scalars

PUBLISHED = 0
SMOOTH = 1
CONTACT_LAWS = {"published": PUBLISHED, "smooth": SMOOTH}

MIN_INFLUENCE = 0.1
"""Below this influence, exp(-softness d), a shape does not act on a node."""
APPROACH_BAND = 0.05
"""Half width of the smooth law's onset of contact [m/s]."""
SLIP_BAND = 0.25
"""Half width of the smooth law's onset of sliding, as a share of the friction limit."""


@cache
def contact_functions(scalars: Scalars) -> SimpleNamespace:
    """Build `influence_of`, `contact`, `contact_adj` and `driven_adj`."""
    real, vec3, mat33 = scalars.real, scalars.vec3, scalars.mat33
    min_influence = wp.constant(real(MIN_INFLUENCE))
    approach_band = wp.constant(real(APPROACH_BAND))
    slip_band = wp.constant(real(SLIP_BAND))
    geometry = signed_distance_functions(scalars)
    signed_distance, normal_adj = geometry.signed_distance, geometry.normal_adj

    @wp.func
    def influence_of(d: real, softness: real, law: int):
        """(influence s, ds/dd) at distance d; zero where the shape does not act."""
        decay = wp.min(wp.exp(-softness * d), real(1.0))
        s = real(0.0)
        slope = real(0.0)
        if decay > min_influence:
            s = decay
            if d > real(0.0):
                slope = -softness * decay
            if law == SMOOTH:
                t = (decay - min_influence) / (real(1.0) - min_influence)
                s = t * t * (real(3.0) - real(2.0) * t)
                slope *= real(6.0) * t * (real(1.0) - t) / (real(1.0) - min_influence)
        return s, slope

    @wp.func
    def approach(c: real, law: int):
        """(part of the normal velocity c that contact takes away, never positive; its slope)."""
        taken = wp.min(c, real(0.0))
        slope = real(0.0)
        if c < real(0.0):
            slope = real(1.0)
        if law == SMOOTH and wp.abs(c) < approach_band:
            gap = approach_band - c
            taken = -gap * gap / (real(4.0) * approach_band)
            slope = gap / (real(2.0) * approach_band)
        return taken, slope

    @wp.func
    def slip_share(speed: real, limit: real, law: int):
        """(what friction leaves of a slip at speed > 0 under a limit >= 0, d/d speed, d/d limit)."""
        share = real(1.0) - limit / speed
        by_speed = limit / (speed * speed)
        by_limit = real(-1.0) / speed
        band = real(0.0)
        if law == SMOOTH:
            band = slip_band
        if speed < (real(1.0) + band) * limit:
            share = real(0.0)
            by_speed = real(0.0)
            by_limit = real(0.0)
            if speed > (real(1.0) - band) * limit:
                # With r = speed / limit, a = 1 - band: (r - a)^2 / (4 band r).
                r = speed / limit
                a = real(1.0) - band
                share = (r - a) * (r - a) / (real(4.0) * band * r)
                slope = (r - a) * (r + a) / (real(4.0) * band * r * r)
                by_speed = slope / limit
                by_limit = -slope * r / limit
        return share, by_speed, by_limit

    @wp.func
    def contact(
        v: vec3, x: vec3, kind: int, size: vec3, pos: vec3, rot: mat33, lin: vec3, spin: mat33,
        softness: real, friction: real, law: int,
    ):  # fmt: skip
        """Velocity of the node at x after one shape, whose points q move at lin + spin q."""
        q = wp.transpose(rot) * (x - pos)
        dn = signed_distance(kind, size, q)
        s, _ = influence_of(dn[0], softness, law)
        v_new = v
        if s > real(0.0):
            n = rot * vec3(dn[1], dn[2], dn[3])
            body_v = lin + spin * q
            u = v - body_v
            taken, _ = approach(wp.dot(u, n), law)
            slip = u - taken * n
            speed_sq = wp.dot(slip, slip)
            if taken < real(0.0) and speed_sq > real(1.0e-30):
                share, _, _ = slip_share(wp.sqrt(speed_sq), -friction * taken, law)
                slip = share * slip
            v_new = body_v + (real(1.0) - s) * u + s * slip
        return v_new

    @wp.struct
    class ContactAdjoint:
        v_bar: vec3
        body_v_bar: vec3  # adjoint of the velocity of the shape's point at the node
        force: vec3  # adjoint of the pose through distance and normal, as a wrench about the shape's origin
        torque: vec3

    @wp.func
    def contact_adj(
        v: vec3, x: vec3, kind: int, size: vec3, pos: vec3, rot: mat33, lin: vec3, spin: mat33,
        softness: real, friction: real, law: int, v_new_bar: vec3,
    ):  # fmt: skip
        """Adjoint of `contact` with respect to v, the point's velocity and the pose."""
        result = ContactAdjoint()
        result.v_bar = v_new_bar
        q = wp.transpose(rot) * (x - pos)
        dn = signed_distance(kind, size, q)
        s, s_slope = influence_of(dn[0], softness, law)
        if s > real(0.0):
            n_local = vec3(dn[1], dn[2], dn[3])
            n = rot * n_local
            u = v - (lin + spin * q)
            taken, taken_slope = approach(wp.dot(u, n), law)
            slip = u - taken * n
            speed_sq = wp.dot(slip, slip)

            kept_bar = s * v_new_bar
            slip_bar = kept_bar
            taken_bar = real(0.0)
            kept = slip
            if taken < real(0.0) and speed_sq > real(1.0e-30):
                speed = wp.sqrt(speed_sq)
                share, by_speed, by_limit = slip_share(speed, -friction * taken, law)
                along = wp.dot(slip, kept_bar)
                slip_bar = share * kept_bar + (along * by_speed / speed) * slip
                taken_bar = -friction * along * by_limit
                kept = share * slip
            s_bar = wp.dot(v_new_bar, kept - u)
            u_bar = (real(1.0) - s) * v_new_bar + slip_bar
            c_bar = (taken_bar - wp.dot(n, slip_bar)) * taken_slope
            u_bar += c_bar * n
            n_bar = c_bar * u - taken * slip_bar
            result.v_bar = u_bar
            result.body_v_bar = v_new_bar - u_bar

            # n = rot n_local, q = rot^T (x - pos): a turn of the frame turns n along and q against it
            q_bar = (s_bar * s_slope) * n_local
            q_bar += normal_adj(kind, size, q, n_local, wp.transpose(rot) * n_bar)
            turned = rot * q_bar
            result.force = -turned
            result.torque = wp.cross(n, n_bar) - wp.cross(x - pos, turned)
        return result

    @wp.struct
    class DrivenAdjoint:
        force: vec3  # adjoint of the pose at the start of the substep, as a wrench about the shape's origin
        torque: vec3
        next_force: vec3  # the same at its end
        next_torque: vec3

    @wp.func
    def driven_adj(x: vec3, pos: vec3, rot: mat33, spin: mat33, dt: real, body_v_bar: vec3):
        """Adjoint of a driven shape's point velocity (next_pos + next_rot q - x) / dt, q = rot^T (x - pos)."""
        result = DrivenAdjoint()
        arm = (rot + dt * spin) * (wp.transpose(rot) * (x - pos))
        moved_bar = body_v_bar / dt
        result.next_force = moved_bar
        result.next_torque = wp.cross(arm, moved_bar)
        turned = rot * (wp.transpose(rot + dt * spin) * moved_bar)
        result.force = -turned
        result.torque = -wp.cross(x - pos, turned)
        return result

    return SimpleNamespace(
        influence_of=influence_of,
        contact=contact,
        contact_adj=contact_adj,
        driven_adj=driven_adj,
    )
