"""Contact of spheres and capsules with each other and with boxes.

A sphere touches in one point. A capsule touches in up to two points, so that it can lie still, or in one: candidates
0 and 1 are the ends of the stretch along which it lies beside the other shape, candidate 2 is where the two are
nearest. The pair at the ends has a weight w: 1 for a stretch longer than the sum of radii (against a box: than the
diameter), 0 for one that has shrunk to a point; between capsules times 2 cos(angle) - 1, but not below 0. The ends'
depths count w times, and the nearest point's counts less w times the deeper end's. So forces are continuous however
one case turns into the other, and no overlap counts twice. The nearest point is pulled a little towards the middle of
the stretch (`PULL`): it would run from end to end of shapes that tilt against each other.

Kinks, where a derivative jumps and the force does not: ends of the stretch pass from one shape's to the other's; the
nearest point passes from a core's end to its side, or from a box's face to its edge; the weight starts or stops to
change. Jumps of the normal: where cores meet, that is at a depth of the sum of radii; within a box, where two faces
are equally near to the core.
"""

from functools import cache
from types import SimpleNamespace

import warp as wp

from rewarped_sim.engine.articulation.shapes import PULL, shape_functions
from rewarped_sim.engine.scalars import Scalars


@cache
def round_pair_functions(scalars: Scalars) -> SimpleNamespace:
    """Build `contact` of the five pairs with a round shape; see `pairs`."""
    real, vec3, quat = scalars.real, scalars.vec3, scalars.quat
    shapes = shape_functions(scalars)
    core_axis, round_contact, box_distance = shapes.core_axis, shapes.round_contact, shapes.box_distance
    clamp_each, nearest_of_cores = shapes.clamp_each, shapes.nearest_of_cores
    half = wp.constant(real(0.5))
    pull = wp.constant(real(PULL))
    steep = wp.constant(real(1.0e-6))  # least slope of a core against a box's axis
    round_off = wp.constant(
        real(1.0e-6)
    )  # [m]; so the nearest point does not flicker where an end is nearest

    @wp.func
    def sphere_sphere(
        candidate: int,
        size_a: vec3,
        pos_a: vec3,
        rot_a: quat,
        size_b: vec3,
        pos_b: vec3,
        rot_b: quat,
    ):
        gap, normal, point = round_contact(pos_a, size_a[0], pos_b, size_b[0])
        return gap, normal, point

    @wp.func
    def sphere_capsule(
        candidate: int,
        size_a: vec3,
        pos_a: vec3,
        rot_a: quat,
        size_b: vec3,
        pos_b: vec3,
        rot_b: quat,
    ):
        v = core_axis(rot_b)
        t = wp.clamp(wp.dot(v, pos_a - pos_b), -size_b[1], size_b[1])
        gap, normal, point = round_contact(pos_a, size_a[0], pos_b + t * v, size_b[0])
        return gap, normal, point

    @wp.func
    def sphere_box(
        candidate: int,
        size_a: vec3,
        pos_a: vec3,
        rot_a: quat,
        size_b: vec3,
        pos_b: vec3,
        rot_b: quat,
    ):
        d, outward = box_distance(size_b, wp.quat_rotate_inv(rot_b, pos_a - pos_b))
        normal = wp.quat_rotate(rot_b, outward)
        return d - size_a[0], normal, pos_a - half * (size_a[0] + d) * normal

    @wp.func
    def shared(candidate: int, weight: real, gap: real, gap_0: real, gap_1: real):
        """The gap that counts, of one of a capsule's three candidates."""
        counted = gap
        if candidate == 2:
            counted = gap + weight * (wp.max(wp.max(-gap_0, -gap_1), real(0.0)) + round_off)
        elif gap < real(0.0):
            counted = weight * gap
        return counted

    @wp.func
    def capsule_capsule(
        candidate: int,
        size_a: vec3,
        pos_a: vec3,
        rot_a: quat,
        size_b: vec3,
        pos_b: vec3,
        rot_b: quat,
    ):
        between = pos_a - pos_b
        u = core_axis(rot_a)
        v = core_axis(rot_b)
        if wp.dot(u, v) < real(0.0):
            v = -v
        # The stretch, measured along the cores' mean direction.
        mean = wp.normalize(u + v)
        slope = wp.dot(u, mean)  # and that of v
        centre = wp.dot(between, mean)
        low = wp.max(centre - size_a[1] * slope, -size_b[1] * slope)
        high = wp.min(centre + size_a[1] * slope, size_b[1] * slope)
        s_0 = wp.clamp((low - centre) / slope, -size_a[1], size_a[1])
        t_0 = wp.clamp(low / slope, -size_b[1], size_b[1])
        s_1 = wp.clamp((high - centre) / slope, -size_a[1], size_a[1])
        t_1 = wp.clamp(high / slope, -size_b[1], size_b[1])
        reach = size_a[0] + size_b[0]
        aligned = wp.max(real(2.0) * wp.dot(u, v) - real(1.0), real(0.0))
        weight = aligned * wp.clamp((high - low) / reach, real(0.0), real(1.0))
        gap_0 = wp.length(between + s_0 * u - t_0 * v) - reach
        gap_1 = wp.length(between + s_1 * u - t_1 * v) - reach
        s = s_0
        t = t_0
        if candidate == 1:
            s = s_1
            t = t_1
        elif candidate == 2:
            s, t = nearest_of_cores(
                between, u, size_a[1], half * (s_0 + s_1), v, size_b[1], half * (t_0 + t_1)
            )
        gap, normal, point = round_contact(pos_a + s * u, size_a[0], pos_b + t * v, size_b[0])
        return shared(candidate, weight, gap, gap_0, gap_1), normal, point

    @wp.func
    def slide(c: vec3, u: vec3, start: real, length: real, box: vec3):
        """From a point of a core over to the box and back, twice: an end that juts out comes back to the box."""
        over = clamp_each(c + start * u, box)
        once = wp.clamp(wp.dot(over - c, u), -length, length)
        again = clamp_each(c + once * u, box)
        return wp.clamp(wp.dot(again - c, u), -length, length)

    @wp.func
    def climb(c: vec3, u: vec3, t: real, middle: real, box: vec3):
        """Half the derivative along a core of its squared distance to a box and, weakly, to `middle`: grows with t."""
        x = c + t * u
        return wp.dot(u, x - clamp_each(x, box)) + pull * (t - middle)

    @wp.func
    def nearest_to_box(c: vec3, u: vec3, length: real, middle: real, box: vec3):
        """Where a core is nearest to a box; where it is everywhere equally near, `middle`.

        `climb` is linear between the points where the core passes a plane of a face. Of these, the last one before
        the minimum and the first one after it are found.
        """
        before = -length
        after = length
        climb_before = climb(c, u, before, middle, box)
        climb_after = climb(c, u, after, middle, box)
        result = real(0.0)
        if climb_before >= real(0.0):
            result = before
        elif climb_after <= real(0.0):
            result = after
        else:
            for i in range(6):
                k = i % 3
                side = wp.where(i < 3, box[k], -box[k])
                slope = wp.where(u[k] < real(0.0), wp.min(u[k], -steep), wp.max(u[k], steep))
                t = wp.clamp((side - c[k]) / slope, -length, length)
                rate = climb(c, u, t, middle, box)
                if rate <= real(0.0) and t > before:
                    before = t
                    climb_before = rate
                if rate > real(0.0) and t < after:
                    after = t
                    climb_after = rate
            result = before - climb_before * (after - before) / (climb_after - climb_before)
        return result

    @wp.func
    def capsule_box(
        candidate: int,
        size_a: vec3,
        pos_a: vec3,
        rot_a: quat,
        size_b: vec3,
        pos_b: vec3,
        rot_b: quat,
    ):
        c = wp.quat_rotate_inv(rot_b, pos_a - pos_b)
        u = wp.quat_rotate_inv(rot_b, core_axis(rot_a))
        t_0 = slide(c, u, -size_a[1], size_a[1], size_b)
        t_1 = slide(c, u, size_a[1], size_a[1], size_b)
        weight = wp.clamp(half * (t_1 - t_0) / size_a[0], real(0.0), real(1.0))
        d_0, outward_0 = box_distance(size_b, c + t_0 * u)
        d_1, outward_1 = box_distance(size_b, c + t_1 * u)
        d = d_0
        t = t_0
        outward = outward_0
        if candidate == 1:
            d = d_1
            t = t_1
            outward = outward_1
        elif candidate == 2:
            t = nearest_to_box(c, u, size_a[1], half * (t_0 + t_1), size_b)
            d, outward = box_distance(size_b, c + t * u)
        x = c + t * u - half * (size_a[0] + d) * outward
        gap = shared(candidate, weight, d - size_a[0], d_0 - size_a[0], d_1 - size_a[0])
        return gap, wp.quat_rotate(rot_b, outward), pos_b + wp.quat_rotate(rot_b, x)

    return SimpleNamespace(
        sphere_sphere=sphere_sphere,
        sphere_capsule=sphere_capsule,
        sphere_box=sphere_box,
        capsule_capsule=capsule_capsule,
        capsule_box=capsule_box,
    )
