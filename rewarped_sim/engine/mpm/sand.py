"""Flow rule of sand: Drucker-Prager with cohesion (Klar et al. 2016).

With t = tr e - 3 c, cohesion c as a volumetric strain per axis, and friction alpha:

    t >= 0   apex: the grains come apart, e' = c I, that is k = 1 and h = c - tr(e) / 3
    t < 0    cone: k = max(1 + A t / |dev e|, 0),   A = alpha (3 lambda + 2 mu) / (2 mu),   h = 0

See `hencky` for what k and h are.
"""

import math
from functools import cache
from types import SimpleNamespace

import warp as wp

from rewarped_sim.engine.mpm.flow import flow_struct
from rewarped_sim.engine.scalars import Scalars


def friction_of(angle_deg: float) -> float:
    """The alpha of a friction angle: the cone through the compressive corners of Mohr-Coulomb's pyramid."""
    sine = math.sin(math.radians(angle_deg))
    return math.sqrt(2.0 / 3.0) * 2.0 * sine / (3.0 - sine)


@cache
def sand_functions(scalars: Scalars) -> SimpleNamespace:
    """Build `flow(length, tr, mu, lam, friction, cohesion) -> Flow`."""
    real = scalars.real
    Flow = flow_struct(scalars)

    @wp.func
    def flow(length: real, tr: real, mu: real, lam: real, friction: real, cohesion: real):
        result = Flow()
        t = tr - real(3.0) * cohesion
        stiffness = (real(3.0) * lam + real(2.0) * mu) / (real(2.0) * mu)
        steepness = friction * stiffness
        if t >= real(0.0):
            result.k = real(1.0)
            result.h = cohesion - tr / real(3.0)
            result.h_trace = real(-1.0) / real(3.0)
            result.h_cohesion = real(1.0)
        elif length + steepness * t > real(0.0):
            result.k = real(1.0) + steepness * t / length
            result.k_length = -steepness * t / (length * length)
            result.k_trace = steepness / length
            by_steepness = t / length
            result.k_mu = by_steepness * friction * real(-1.5) * lam / (mu * mu)
            result.k_lam = by_steepness * friction * real(1.5) / mu
            result.k_friction = by_steepness * stiffness
            result.k_cohesion = real(-3.0) * steepness / length
        return result

    return SimpleNamespace(flow=flow)
