"""Flow rule of dough: von Mises yield, as the published dough tasks run with.

With the deviator's norm n = |dev e| + 1e-5 and yield stress y: k = max(n - y / (2 mu), 0) / n, and no change of volume.
See `hencky` for what k is.
"""

from functools import cache
from types import SimpleNamespace

import warp as wp

from rewarped_sim.engine.mpm.flow import flow_struct
from rewarped_sim.engine.scalars import Scalars


@cache
def von_mises_functions(scalars: Scalars) -> SimpleNamespace:
    """Build `flow(length, mu, yield_stress) -> Flow`."""
    real = scalars.real
    Flow = flow_struct(scalars)

    @wp.func
    def flow(length: real, mu: real, yield_stress: real):
        result = Flow()
        n = length + real(1.0e-5)
        elastic = yield_stress / (real(2.0) * mu)
        if n > elastic:
            result.k = (n - elastic) / n
            result.k_length = elastic / (n * n)
            result.k_mu = elastic / (n * mu)
            result.k_yield = real(-1.0) / (real(2.0) * mu * n)
        return result

    return SimpleNamespace(flow=flow)
