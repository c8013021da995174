"""Where a ray meets a rigid shape: marched from surface to surface, by the shape's signed distance."""

import warp as wp

from rewarped_sim.engine.kinematics import PLANE
from rewarped_sim.engine.mpm.signed_distance import signed_distance_functions
from rewarped_sim.engine.scalars import FLOAT32

_signed_distance = signed_distance_functions(FLOAT32).signed_distance

TOUCH_M = wp.constant(1.0e-4)
"""Nearer to a surface than this, a ray has hit it."""
MAX_MARCHES = wp.constant(64)
"""A ray that has not hit by then grazes, and passes."""


@wp.func
def distance_to_shape(
    kind: int,
    size: wp.vec3,
    reach: float,
    pos: wp.vec3d,
    rot: wp.mat33d,
    eye: wp.vec3,
    ray: wp.vec3,
    end: float,
) -> float:
    """Way of a ray of unit length from the eye to a shape [m]; `end` where it meets none before.

    reach: radius of the ball about the shape's origin that holds all of it [m]; see `occluders.reach`.
    """
    turn = wp.mat33(wp.transpose(rot))
    origin = turn * (eye - wp.vec3(pos))
    direction = turn * ray
    met = end
    if kind == PLANE:  # at once: to march towards it at a low angle would take for ever
        if origin[2] <= 0.0:
            met = wp.min(0.0, end)
        elif direction[2] < 0.0:
            met = wp.min(-origin[2] / direction[2], end)
        return met
    abeam = -wp.dot(origin, direction)
    t = wp.max(abeam - reach, 0.0)
    last = wp.min(abeam + reach, end)
    if wp.length_sq(origin + abeam * direction) > reach * reach:
        last = -1.0
    march = int(0)
    while t < last and march < MAX_MARCHES:
        d = _signed_distance(kind, size, origin + t * direction)[0]
        if d < TOUCH_M:
            met = t
            march = MAX_MARCHES
        t += d
        march += 1
    return met
