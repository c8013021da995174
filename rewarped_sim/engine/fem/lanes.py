"""Environments side by side: the same arithmetic on a register full of them.

A tetrahedron is the same in all environments, only its corners are elsewhere. With the environment as the last index of
every array, a CPU thread therefore works on as many at once as a vector register holds, and a GPU gives neighbouring
threads neighbouring numbers. The kernels are written in C++ with a type `lanes` that is a vector of the compiler on a
CPU and one number on a GPU; all else about them is the same.
"""

from typing import Any

import warp as wp

from rewarped_sim.engine.scalars import Scalars

CACHE_LINE_BYTES = 64
"""Of a CPU: what is loaded at once, and the widest vector register."""

_TYPE = """
#if defined(__CUDA_ARCH__)
    typedef REAL lanes;
#else
    typedef REAL lanes __attribute__((vector_size(CACHE_LINE), aligned(alignof(REAL))));
#endif
    // Environments from `lane` on of a quantity, `width` environments apart from the next.
    auto at = [](const wp::array_t<REAL>& values, int index, int width, int lane) -> lanes& {
        return *reinterpret_cast<lanes*>(values.data + size_t(index) * width + lane);
    };
    auto all = [](REAL value) -> lanes { return lanes{} + value; };
    auto root = [](const lanes& a) -> lanes {
#if defined(__CUDA_ARCH__)
        return wp::sqrt(a);
#else
        return __builtin_elementwise_sqrt(a);
#endif
    };
    auto above = [](const lanes& a, const lanes& b) -> lanes { return a > b ? a : b; };
"""


def lanes_of(scalars: Scalars, device: wp.Device) -> int:
    """Environments that one thread works on."""
    return CACHE_LINE_BYTES // wp.types.type_size_in_bytes(scalars.real) if device.is_cpu else 1


def native(code: str, scalars: Scalars) -> Any:
    """Decorator for the declaration of a function whose body is this C++, with `lanes` and `REAL` defined."""
    text = _TYPE + code
    return wp.func_native(
        text.replace("REAL", f"wp::{scalars.real.__name__}").replace("CACHE_LINE", str(CACHE_LINE_BYTES))
    )
