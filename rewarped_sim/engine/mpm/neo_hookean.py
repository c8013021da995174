"""Compressible neo-Hookean solid: tau = mu (F F^T - I) + lambda log J I, F' = F, and its exact adjoint."""

from functools import cache
from types import SimpleNamespace

import warp as wp

from rewarped_sim.engine.scalars import Scalars

MIN_VOLUME_RATIO = 0.05
"""J is floored here before the logarithm, with zero gradient."""


@cache
def neo_hookean_functions(scalars: Scalars) -> SimpleNamespace:
    """Build `law(F, mu, lam) -> tau` and `law_adj(F, mu, lam, tau_bar) -> (F_bar, mu_bar, lam_bar)`."""
    real, mat33 = scalars.real, scalars.mat33
    floor = wp.constant(real(MIN_VOLUME_RATIO))

    @wp.func
    def law(F: mat33, mu: real, lam: real):
        I = wp.identity(3, dtype=real)  # noqa: E741 - the identity matrix of the formula
        volumetric = lam * wp.log(wp.max(wp.determinant(F), floor))
        return mu * (F * wp.transpose(F) - I) + volumetric * I

    @wp.func
    def law_adj(F: mat33, mu: real, lam: real, tau_bar: mat33):
        I = wp.identity(3, dtype=real)  # noqa: E741
        J = wp.determinant(F)
        tr_bar = wp.trace(tau_bar)
        F_bar = mu * ((tau_bar + wp.transpose(tau_bar)) * F)
        if J > floor:
            F_bar += (lam * tr_bar) * wp.transpose(wp.inverse(F))
        mu_bar = wp.ddot(tau_bar, F * wp.transpose(F) - I)
        return F_bar, mu_bar, tr_bar * wp.log(wp.max(J, floor))

    return SimpleNamespace(law=law, law_adj=law_adj)
