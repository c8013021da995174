"""Weakly compressible fluid without viscosity: tau = lambda J (J - 1) I, F' = J^(1/3) I, and its exact adjoint."""

from functools import cache
from types import SimpleNamespace

import warp as wp

from rewarped_sim.engine.scalars import Scalars

MIN_VOLUME_RATIO = 0.05
"""J is floored here before the cube root, with zero gradient: below it a particle is not water any more."""


@cache
def fluid_functions(scalars: Scalars) -> SimpleNamespace:
    """Build `law(F, lam) -> (F', tau)` and `law_adj(F, lam, F'_bar, tau_bar) -> (F_bar, lam_bar)`."""
    real, vec3, mat33 = scalars.real, scalars.vec3, scalars.mat33
    floor = wp.constant(real(MIN_VOLUME_RATIO))

    @wp.func
    def law(F: mat33, lam: real):
        J = wp.max(wp.determinant(F), floor)
        stretch = wp.pow(J, real(1.0) / real(3.0))
        pressure = lam * J * (J - real(1.0))
        return wp.diag(vec3(stretch, stretch, stretch)), wp.diag(vec3(pressure, pressure, pressure))

    @wp.func
    def law_adj(F: mat33, lam: real, F_bar: mat33, tau_bar: mat33):
        J = wp.determinant(F)
        kept = wp.max(J, floor)
        lam_bar = wp.trace(tau_bar) * kept * (kept - real(1.0))
        J_bar = real(0.0)
        if floor < J:
            J_bar = wp.trace(F_bar) / (real(3.0) * wp.pow(J, real(2.0) / real(3.0)))
            J_bar += wp.trace(tau_bar) * lam * (real(2.0) * J - real(1.0))
        # dJ/dF is the cofactor matrix; its rows are cross products, which need no inverse.
        r0 = vec3(F[0, 0], F[0, 1], F[0, 2])
        r1 = vec3(F[1, 0], F[1, 1], F[1, 2])
        r2 = vec3(F[2, 0], F[2, 1], F[2, 2])
        cofactor = wp.matrix_from_rows(wp.cross(r1, r2), wp.cross(r2, r0), wp.cross(r0, r1))
        return J_bar * cofactor, lam_bar

    return SimpleNamespace(law=law, law_adj=law_adj)
