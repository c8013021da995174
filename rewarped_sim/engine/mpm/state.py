"""Where a particle's numbers lie in a slot of the trajectory: 24 reals, x v C F, one particle after the other.

Only the functions here know the layout. All of a particle's fields share two cache lines, which is what a CPU wants.
"""

from functools import cache
from types import SimpleNamespace

import warp as wp

from rewarped_sim.engine.scalars import Scalars

PARTICLE_SIZE = 24
"""Reals per particle."""
X, V, C, F = 0, 3, 6, 15
"""Offsets of position [m], velocity [m/s], affine velocity [1/s] and deformation gradient."""


@cache
def state_functions(scalars: Scalars) -> SimpleNamespace:
    """Build `load_vec3`, `load_mat33`, `store_vec3`, `store_mat33` on rows of a (rows, particles * 24) array."""
    real, vec3, mat33 = scalars.real, scalars.vec3, scalars.mat33

    @wp.func
    def load_vec3(state: wp.array2d(dtype=real), row: int, at: int):
        return vec3(state[row, at], state[row, at + 1], state[row, at + 2])

    @wp.func
    def store_vec3(state: wp.array2d(dtype=real), row: int, at: int, value: vec3):
        for i in range(3):
            state[row, at + i] = value[i]

    @wp.func
    def load_mat33(state: wp.array2d(dtype=real), row: int, at: int):
        value = mat33()
        for i in range(3):
            for j in range(3):
                value[i, j] = state[row, at + 3 * i + j]
        return value

    @wp.func
    def store_mat33(state: wp.array2d(dtype=real), row: int, at: int, value: mat33):
        for i in range(3):
            for j in range(3):
                state[row, at + 3 * i + j] = value[i, j]

    return SimpleNamespace(
        load_vec3=load_vec3, store_vec3=store_vec3, load_mat33=load_mat33, store_mat33=store_mat33
    )
