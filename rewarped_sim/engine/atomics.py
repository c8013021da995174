"""Adding four numbers to an array element that other threads add to as well.

Particles scatter momentum and mass, four reals, to 27 nodes each. `wp.atomic_add` of a vector is one atomic operation
per component; Hopper and later GPUs (sm_90) have one for an aligned float4.
"""

from functools import cache
from types import SimpleNamespace

import warp as wp

from rewarped_sim.engine.scalars import Scalars

_ADD_FLOAT4 = """
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    atomicAdd(reinterpret_cast<float4*>(array.data + index), make_float4(value[0], value[1], value[2], value[3]));
#else
    atomic_add(array, index, value);
#endif
"""


@wp.func_native(_ADD_FLOAT4)
def _add_float4(array: wp.array(dtype=wp.vec4f), index: int, value: wp.vec4f): ...


@wp.func
def _add_vector(array: wp.array(dtype=wp.vec4d), index: int, value: wp.vec4d):
    wp.atomic_add(array, index, value)


@cache
def atomic_functions(scalars: Scalars) -> SimpleNamespace:
    """Build `add4(array, index, value)`: add a vec4 to an element of a contiguous, 16-byte aligned vec4 array.

    The order of additions, and so their round-off, is free on a GPU. Not differentiable.
    """
    return SimpleNamespace(add4=_add_float4 if scalars.vec4 is wp.vec4f else _add_vector)
