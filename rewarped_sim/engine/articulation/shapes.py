"""Shapes that touch each other: how far they reach, and where the nearest points of their cores lie.

A sphere is a point and a radius, a capsule a segment and a radius: what is nearest to their cores is nearest to them.
A box is its own core.
"""

import math
from functools import cache
from types import SimpleNamespace

import warp as wp

from rewarped_sim.engine.articulation.model import Geom
from rewarped_sim.engine.scalars import Scalars

PULL = 1.0e-3
"""Nearest points of cores minimise their squared distance and PULL times their squared distances from given points."""


def bounding_radius(geom: Geom) -> float:
    """Radius of the sphere about a shape's centre that holds it [m]."""
    return math.hypot(*geom.size) if geom.kind == "box" else math.fsum(geom.size)


@cache
def shape_functions(scalars: Scalars) -> SimpleNamespace:
    """Build what the functions of pairs share: entries of vectors, round cores, the distance to a box."""
    real, vec3, mat33, quat = scalars.real, scalars.vec3, scalars.mat33, scalars.quat
    tiny = wp.constant(real(1.0e-9))  # [m]; below it there is no direction
    half = wp.constant(real(0.5))
    pull = wp.constant(real(PULL))

    # Entries by an index known only at run time are chosen, not addressed: no local memory on a GPU.
    @wp.func
    def entry(v: vec3, i: int):
        return wp.where(i == 0, v[0], wp.where(i == 1, v[1], v[2]))

    @wp.func
    def with_entry(v: vec3, i: int, value: real):
        return vec3(
            wp.where(i == 0, value, v[0]), wp.where(i == 1, value, v[1]), wp.where(i == 2, value, v[2])
        )

    @wp.func
    def row(m: mat33, i: int):
        return vec3(
            entry(vec3(m[0, 0], m[1, 0], m[2, 0]), i),
            entry(vec3(m[0, 1], m[1, 1], m[2, 1]), i),
            entry(vec3(m[0, 2], m[1, 2], m[2, 2]), i),
        )

    @wp.func
    def clamp_each(x: vec3, bound: vec3):
        return vec3(
            wp.clamp(x[0], -bound[0], bound[0]),
            wp.clamp(x[1], -bound[1], bound[1]),
            wp.clamp(x[2], -bound[2], bound[2]),
        )

    @wp.func
    def core_axis(rot: quat):
        """Direction of a capsule's core: its z."""
        return wp.quat_rotate(rot, vec3(real(0.0), real(0.0), real(1.0)))

    @wp.func
    def round_contact(p: vec3, radius_a: real, q: vec3, radius_b: real):
        """Contact of balls about p and q; upwards where p and q coincide, with no derivative made up."""
        d = wp.length(p - q)
        normal = vec3(real(0.0), real(0.0), real(1.0))
        if d > tiny:
            normal = (p - q) / d
        gap = d - radius_a - radius_b
        return gap, normal, half * (p + q + (radius_b - radius_a) * normal)

    @wp.func
    def box_distance(size: vec3, x: vec3):
        """Signed distance and outward normal at a point of the box's frame; inside, of the nearest face."""
        outside = x - clamp_each(x, size)
        d = wp.length(outside)
        normal = vec3()
        if d > tiny:
            normal = outside / d
        else:
            over = vec3(wp.abs(x[0]) - size[0], wp.abs(x[1]) - size[1], wp.abs(x[2]) - size[2])
            if over[0] >= over[1] and over[0] >= over[2]:
                d = over[0]
                normal = vec3(wp.sign(x[0]), real(0.0), real(0.0))
            elif over[1] >= over[2]:
                d = over[1]
                normal = vec3(real(0.0), wp.sign(x[1]), real(0.0))
            else:
                d = over[2]
                normal = vec3(real(0.0), real(0.0), wp.sign(x[2]))
        return d, normal

    @wp.func
    def nearest_of_cores(
        between: vec3, u: vec3, length_u: real, middle_u: real, v: vec3, length_v: real, middle_v: real
    ):
        """Where two segments are nearest: coordinates (s, t) along their unit directions u and v; see `PULL`.

        between: from the second's centre to the first's. Minimises |between + s u - t v|^2 and the pull: without
        bounds, then within one after the other. Ericson, Real-Time Collision Detection, 2005, 5.1.9.
        """
        c = wp.dot(u, v)
        across = wp.cross(u, v)
        stiff = real(1.0) + pull
        at_u = pull * middle_u - wp.dot(u, between)
        at_v = pull * middle_v + wp.dot(v, between)
        # (1 + pull) at_u + c at_v over (1 + pull)^2 - c^2, without cancellation where u and v are nearly parallel.
        s = pull * (at_u + middle_u + c * middle_v) - wp.dot(u - c * v, between)
        s = wp.clamp(s / (wp.dot(across, across) + pull * (stiff + real(1.0))), -length_u, length_u)
        t = wp.clamp((at_v + c * s) / stiff, -length_v, length_v)
        s = wp.clamp((at_u + c * t) / stiff, -length_u, length_u)
        return s, t

    return SimpleNamespace(
        entry=entry,
        with_entry=with_entry,
        row=row,
        clamp_each=clamp_each,
        core_axis=core_axis,
        round_contact=round_contact,
        box_distance=box_distance,
        nearest_of_cores=nearest_of_cores,
    )
