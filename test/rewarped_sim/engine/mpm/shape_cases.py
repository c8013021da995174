"""Sizes of a shape of every kind, their signed distances and the adjoint of their normals, all in float64."""

from functools import cache

import warp as wp

from rewarped_sim.engine.kinematics import SHAPE_KINDS
from rewarped_sim.engine.mpm.signed_distance import signed_distance_functions
from rewarped_sim.engine.scalars import FLOAT64

SIZES = {
    "sphere": (0.3, 0, 0),
    "capsule": (0.2, 0.4, 0),
    "box": (0.2, 0.3, 0.4),
    "plane": (0, 0, 0),
    "cylinder": (0.3, 0.25, 0),
    "cone": (0.35, 0.35, 0),
}


@cache
def distance_kernel():
    signed_distance = signed_distance_functions(FLOAT64).signed_distance
    vec3, vec4 = FLOAT64.vec3, FLOAT64.vec4

    @wp.kernel(module="unique", enable_backward=False)
    def distance(kind: int, size: vec3, q: wp.array(dtype=vec3), out: wp.array(dtype=vec4)):
        i = wp.tid()
        out[i] = signed_distance(kind, size, q[i])

    return distance


def array(values, dtype=None):
    return wp.array(values, dtype=dtype or FLOAT64.vec3, device="cpu")


def distances(kind, q):
    """(d, n) at points q (count, 3) of the shape's frame, (count, 4)."""
    out = wp.zeros(len(q), dtype=FLOAT64.vec4, device="cpu")
    inputs = [SHAPE_KINDS[kind], FLOAT64.vec3(*SIZES[kind]), array(q), out]
    wp.launch(distance_kernel(), len(q), inputs, device="cpu")
    return out.numpy()


@cache
def normal_adj_kernel():
    functions = signed_distance_functions(FLOAT64)
    signed_distance, normal_adj = functions.signed_distance, functions.normal_adj
    vec3 = FLOAT64.vec3

    @wp.kernel(module="unique", enable_backward=False)
    def adjoint(
        kind: int, size: vec3, q: wp.array(dtype=vec3), n_bar: wp.array(dtype=vec3), out: wp.array(dtype=vec3)
    ):
        i = wp.tid()
        dn = signed_distance(kind, size, q[i])
        out[i] = normal_adj(kind, size, q[i], vec3(dn[1], dn[2], dn[3]), n_bar[i])

    return adjoint


def normals_adj(kind, q, n_bar):
    """Adjoint of the points q (count, 3) given that of the normals there, (count, 3)."""
    out = wp.zeros(len(q), dtype=FLOAT64.vec3, device="cpu")
    inputs = [SHAPE_KINDS[kind], FLOAT64.vec3(*SIZES[kind]), array(q), array(n_bar), out]
    wp.launch(normal_adj_kernel(), len(q), inputs, device="cpu")
    return out.numpy()
