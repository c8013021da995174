"""Fixed-corotated solid (Stomakhin et al. 2012): tau = 2 mu (F - R) F^T + lambda J (J - 1) I, F' = F, and its adjoint.

With F = U S V^T the stress is U t(S) U^T, t_i = 2 mu (s_i^2 - s_i) + lambda J (J - 1). Its adjoint in the singular
bases has the divided differences (t_j - t_i) / (s_j - s_i) = 2 mu (s_i + s_j - 1), which know nothing of repeated
values, and (t_j - t_i) / (s_i + s_j), whose denominator vanishes only for a particle on the way to being inside out;
it is floored.
"""

from functools import cache
from types import SimpleNamespace

import warp as wp

from rewarped_sim.engine.scalars import Scalars

MIN_STRETCH_SUM = 0.02
"""s_i + s_j is floored here in the adjoint, which keeps the gradient of an inverted particle bounded."""


@cache
def corotated_functions(scalars: Scalars) -> SimpleNamespace:
    """Build `law(F, mu, lam) -> tau` and `law_adj(F, mu, lam, tau_bar) -> (F_bar, mu_bar, lam_bar)`."""
    real, vec3, mat33 = scalars.real, scalars.vec3, scalars.mat33
    min_sum = wp.constant(real(MIN_STRETCH_SUM))

    @wp.func
    def law(F: mat33, mu: real, lam: real):
        U, s, _ = wp.svd3(F)
        J = s[0] * s[1] * s[2]
        shear = real(2.0) * mu * (wp.cw_mul(s, s) - s)
        pressure = lam * J * (J - real(1.0))
        return U * wp.diag(shear + vec3(pressure, pressure, pressure)) * wp.transpose(U)

    @wp.func
    def pair(i: int, j: int, H: mat33, B: mat33, s: vec3, mu: real):
        gamma = real(2.0) * mu * (s[i] + s[j] - real(1.0))
        skew = gamma * (s[j] - s[i]) / wp.max(s[i] + s[j], min_sum)
        both = real(0.5) * (B[i, j] + B[j, i])
        H[i, j] = (gamma + skew) * both
        H[j, i] = (gamma - skew) * both
        return H

    @wp.func
    def law_adj(F: mat33, mu: real, lam: real, tau_bar: mat33):
        U, s, V = wp.svd3(F)
        B = wp.transpose(U) * tau_bar * U
        J = s[0] * s[1] * s[2]
        tr_bar = B[0, 0] + B[1, 1] + B[2, 2]
        J_bar = lam * (real(2.0) * J - real(1.0)) * tr_bar
        H = mat33()
        for i in range(3):
            H[i, i] = real(2.0) * mu * (real(2.0) * s[i] - real(1.0)) * B[i, i]
        H[0, 0] += J_bar * s[1] * s[2]
        H[1, 1] += J_bar * s[2] * s[0]
        H[2, 2] += J_bar * s[0] * s[1]
        H = pair(0, 1, H, B, s, mu)
        H = pair(0, 2, H, B, s, mu)
        H = pair(1, 2, H, B, s, mu)
        t_bar = vec3(B[0, 0], B[1, 1], B[2, 2])
        mu_bar = real(2.0) * wp.dot(t_bar, wp.cw_mul(s, s) - s)
        return U * H * wp.transpose(V), mu_bar, tr_bar * J * (J - real(1.0))

    return SimpleNamespace(law=law, law_adj=law_adj)
