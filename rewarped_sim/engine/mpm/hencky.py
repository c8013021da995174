"""Hencky-elastic materials that yield: dough and sand, and their exact adjoint.

With b = F F^T and e = 1/2 log b the law is

    tau = 2 mu e' + lambda tr(e') I,   e' = e - k dev(e) + h I,   F' = exp(e' - e) F,

where the flow rule of the material, `von_mises` or `sand`, gives k and h from |dev e| and tr e.

Two implementations of the same law:

* **without any decomposition**, for moderate strain. With s = tr(b)/3 and Z = (b - sI)(b + sI)^-1,
  log(b/s) = 2 atanh(Z), an odd power series in Z. It is a polynomial, hence smooth where singular values
  coincide, which is where dough spends its life, and four times cheaper than an SVD;
* **by SVD**, for large strain. Its adjoint uses divided differences, so that nothing blows up or is clamped away
  at repeated singular values (a textbook SVD adjoint divides by s_i^2 - s_j^2).

The series is used while |Z| <= 0.15 (Frobenius), where its truncation error is below 5e-9; while |Z| <= 0.02, as in
dough that has not yielded far, two of its terms do, with an error below 7e-10.
"""

from collections.abc import Set
from functools import cache
from types import SimpleNamespace

import warp as wp

from rewarped_sim.engine.mpm.flow import flow_struct
from rewarped_sim.engine.mpm.material_table import SAND, VON_MISES, material_table_functions
from rewarped_sim.engine.mpm.sand import sand_functions
from rewarped_sim.engine.mpm.von_mises import von_mises_functions
from rewarped_sim.engine.scalars import Scalars

SERIES_RADIUS = 0.15
"""Largest |Z| for which the power series stands in for the SVD."""
SHORT_RADIUS = 0.02
"""Largest |Z|, and largest plastic strain of one substep, for which its first two terms do."""
MIN_STRETCH = 0.01
"""Singular values are clamped here before the logarithm; the clamped direction has zero gradient."""


@cache
def hencky_functions(scalars: Scalars, laws: Set[int]) -> SimpleNamespace:
    """Build `law(F, material) -> (F', tau)` and `law_adj(F, material, F'_bar, tau_bar) -> (F_bar, LawAdjoint)`.

    laws: the flow rules to compile in, of `VON_MISES` and `SAND`.
    """
    real, vec3, mat33 = scalars.real, scalars.vec3, scalars.mat33
    radius_sq = wp.constant(real(SERIES_RADIUS**2))
    short_sq = wp.constant(real(SHORT_RADIUS**2))
    min_stretch = wp.constant(real(MIN_STRETCH))
    # As constants, because Warp rounds a literal, or a quotient of two, to float32 before it is cast.
    third, fifth, sixth, seventh = (wp.constant(real(1.0 / n)) for n in (3.0, 5.0, 6.0, 7.0))
    twenty_fourth, hundred_twentieth = (wp.constant(real(1.0 / n)) for n in (24.0, 120.0))
    table = material_table_functions(scalars)
    Material, LawAdjoint = table.Material, table.LawAdjoint
    Flow = flow_struct(scalars)
    von_mises_flow, sand_flow = von_mises_functions(scalars).flow, sand_functions(scalars).flow
    with_dough, with_sand = VON_MISES in laws, SAND in laws

    @wp.func
    def identity():
        return wp.identity(3, dtype=real)

    @wp.func
    def flow(length: real, tr: real, material: Material):
        result = Flow()
        if wp.static(with_dough):
            if material.law == VON_MISES:
                result = von_mises_flow(length, material.mu, material.yield_stress)
        if wp.static(with_sand):
            if material.law == SAND:
                result = sand_flow(
                    length, tr, material.mu, material.lam, material.friction, material.cohesion
                )
        return result

    @wp.func
    def constants_adj(f: Flow, k_bar: real, h_bar: real, e_new_bar_mu: real, e_new_bar_lam: real):
        """Adjoints of the constants: through the flow, and those of the stress itself."""
        result = LawAdjoint()
        result.mu = e_new_bar_mu + k_bar * f.k_mu
        result.lam = e_new_bar_lam + k_bar * f.k_lam
        result.yield_stress = k_bar * f.k_yield
        result.friction = k_bar * f.k_friction
        result.cohesion = k_bar * f.k_cohesion + h_bar * f.h_cohesion
        return result

    # ---- power series --------------------------------------------------------------------------------------

    @wp.func
    def half_log(s: real, Z: mat33):
        """Hencky strain e = 1/2 log b."""
        I = identity()  # noqa: E741 - the identity matrix of the formulas
        Z2 = Z * Z
        e = Z + third * (Z * Z2)
        if wp.ddot(Z, Z) > short_sq:
            e = Z * (I + Z2 * (third * I + Z2 * (fifth * I + seventh * Z2)))
        return e + (real(0.5) * wp.log(s)) * I

    @wp.func
    def series_law(F: mat33, s: real, Z: mat33, material: Material):
        I = identity()  # noqa: E741
        e = half_log(s, Z)
        tr = wp.trace(e)
        d = e - (tr / real(3.0)) * I
        length = wp.sqrt(wp.ddot(d, d) + real(1.0e-20))
        f = flow(length, tr, material)
        F_new = F
        if f.k > real(0.0) or f.h != real(0.0):
            Q = (-f.k) * d
            X = I + Q * (I + Q * (real(0.5) * I + sixth * Q))
            if wp.ddot(Q, Q) > short_sq:
                X = twenty_fourth * I + hundred_twentieth * Q
                X = I + Q * (I + Q * (real(0.5) * I + Q * (sixth * I + Q * X)))
            if f.h != real(0.0):
                X = wp.exp(f.h) * X
            F_new = X * F
            e = e + Q + f.h * I
        return F_new, real(2.0) * material.mu * e + (material.lam * (tr + real(3.0) * f.h)) * I

    @wp.func
    def series_law_adj(
        F: mat33, s: real, Z: mat33, inv: mat33, material: Material, F_bar: mat33, tau_bar: mat33,
    ):  # fmt: skip
        # Reverse sweep of series_law. All matrices built from Z or e are symmetric, and so are their adjoints.
        I = identity()  # noqa: E741
        e = half_log(s, Z)
        tr = wp.trace(e)
        d = e - (tr / real(3.0)) * I
        length = wp.sqrt(wp.ddot(d, d) + real(1.0e-20))
        f = flow(length, tr, material)
        tau_tr_bar = wp.trace(tau_bar)
        e_new_bar = material.mu * (tau_bar + wp.transpose(tau_bar)) + (material.lam * tau_tr_bar) * I
        e_bar = e_new_bar
        Ft_bar = F_bar
        k_bar = real(0.0)
        h_bar = real(0.0)
        Q = (-f.k) * d
        if f.k > real(0.0) or f.h != real(0.0):
            grow = real(1.0)
            if f.h != real(0.0):
                grow = wp.exp(f.h)
            X_bar = grow * (F_bar * wp.transpose(F))
            X_bar = real(0.5) * (X_bar + wp.transpose(X_bar))
            t1 = Q * X_bar
            X = I
            Q_bar = X_bar
            if wp.ddot(Q, Q) > short_sq:
                B4 = twenty_fourth * I + hundred_twentieth * Q
                B3 = sixth * I + Q * B4
                B2 = real(0.5) * I + Q * B3
                B1 = I + Q * B2
                X = I + Q * B1
                t2 = Q * t1
                t3 = Q * t2
                Q_bar = X_bar * B1 + t1 * B2 + t2 * B3 + t3 * B4 + hundred_twentieth * (Q * t3)
            else:
                B2 = real(0.5) * I + sixth * Q
                B1 = I + Q * B2
                X = I + Q * B1
                Q_bar = X_bar * B1 + t1 * B2 + sixth * (Q * t1)
            Ft_bar = grow * (X * F_bar)
            Q_bar = real(0.5) * (Q_bar + wp.transpose(Q_bar)) + e_new_bar
            k_bar = -wp.ddot(Q_bar, d)
            h_bar = wp.ddot(X_bar, X) + wp.trace(e_new_bar)
            d_bar = (-f.k) * Q_bar + (k_bar * f.k_length / length) * d
            tr_bar = k_bar * f.k_trace + h_bar * f.h_trace
            e_bar = e_bar + d_bar + (tr_bar - wp.trace(d_bar) / real(3.0)) * I
        constants = constants_adj(
            f,
            k_bar,
            h_bar,
            real(2.0) * wp.ddot(tau_bar, e + Q + f.h * I),
            tau_tr_bar * (tr + real(3.0) * f.h),
        )
        s_bar = real(0.5) * wp.trace(e_bar) / s
        Z2 = Z * Z
        a0 = Z * e_bar
        Z_bar = e_bar
        if wp.ddot(Z, Z) > short_sq:
            A2 = fifth * I + seventh * Z2
            A1 = third * I + Z2 * A2
            A0 = I + Z2 * A1
            a1 = Z2 * a0
            Z2_bar = a0 * A1 + a1 * A2 + seventh * (Z2 * a1)
            Z_bar = e_bar * A0 + Z2_bar * Z + Z * Z2_bar
        else:
            Z_bar = e_bar + third * (e_bar * Z2 + a0 * Z + Z * a0)
        # Z = (b - sI) inv, inv = (b + sI)^-1; they commute
        b_bar = Z_bar * inv
        M_bar = Z * b_bar
        s_bar = s_bar - wp.trace(b_bar) - wp.trace(M_bar)
        b_bar = b_bar - M_bar + (s_bar / real(3.0)) * I
        return Ft_bar + (b_bar + wp.transpose(b_bar)) * F, constants

    # ---- singular values -----------------------------------------------------------------------------------

    @wp.func
    def log_difference(a: real, b: real):
        """(log b - log a) / (b - a), without cancellation: atanh(x) / (x m) at the midpoint m."""
        m = real(0.5) * (a + b)
        x = real(0.5) * (b - a) / m
        x2 = x * x
        ratio = real(1.0) + x2 * (third + x2 * (fifth + x2 * (seventh + x2 / real(9.0))))
        if x2 > real(4.0e-4):
            ratio = real(0.5) * wp.log((real(1.0) + x) / (real(1.0) - x)) / x
        return ratio / m

    @wp.func
    def exp_difference(a: real, b: real):
        """(exp b - exp a) / (b - a), without cancellation: exp(m) sinh(h) / h."""
        h = real(0.5) * (b - a)
        h2 = h * h
        ratio = real(1.0) + h2 * (sixth + h2 * (hundred_twentieth + h2 / real(5040.0)))
        if h2 > real(4.0e-3):
            ratio = wp.sinh(h) / h
        return wp.exp(real(0.5) * (a + b)) * ratio

    @wp.func
    def log_stretch(stretch: vec3):
        return vec3(
            wp.log(wp.max(stretch[0], min_stretch)),
            wp.log(wp.max(stretch[1], min_stretch)),
            wp.log(wp.max(stretch[2], min_stretch)),
        )

    @wp.func
    def deviator(e: vec3):
        m = (e[0] + e[1] + e[2]) / real(3.0)
        return vec3(e[0] - m, e[1] - m, e[2] - m)

    @wp.func
    def svd_law(F: mat33, material: Material):
        U, stretch, V = wp.svd3(F)
        e = log_stretch(stretch)
        tr = e[0] + e[1] + e[2]
        d = deviator(e)
        f = flow(wp.length(d) + real(1.0e-10), tr, material)
        F_new = F
        if f.k > real(0.0) or f.h != real(0.0):
            e = e - f.k * d + vec3(f.h, f.h, f.h)
            F_new = U * wp.diag(vec3(wp.exp(e[0]), wp.exp(e[1]), wp.exp(e[2]))) * wp.transpose(V)
        pressure = material.lam * (e[0] + e[1] + e[2])
        t = real(2.0) * material.mu * e + vec3(pressure, pressure, pressure)
        return F_new, U * wp.diag(t) * wp.transpose(U)

    @wp.func
    def clamped_log_difference(a: real, b: real):
        low = wp.min(a, b)
        high = wp.max(a, b)
        slope = real(0.0)
        if low > min_stretch:
            slope = log_difference(a, b)
        elif high > min_stretch:
            slope = (wp.log(high) - wp.log(min_stretch)) / (high - low)
        return slope

    @wp.func
    def pair(
        i: int, j: int, H: mat33, A: mat33, B: mat33, stretch: vec3, e_new: vec3, k: real, plastic: bool, mu: real,
    ):  # fmt: skip
        """Off-diagonal entries H_ij, H_ji of the adjoint in the singular bases, from divided differences."""
        si = stretch[i]
        sj = stretch[j]
        # An inverted particle can bring s_i + s_j to zero; the floor keeps its gradient bounded.
        total = wp.max(si + sj, real(2.0) * min_stretch)
        slope = (real(1.0) - k) * clamped_log_difference(si, sj)
        alpha = real(1.0)
        beta = real(1.0)
        if plastic:
            alpha = exp_difference(e_new[i], e_new[j]) * slope
            beta = (wp.exp(e_new[i]) + wp.exp(e_new[j])) / total
        gamma = real(2.0) * mu * slope
        skew = gamma * (sj - si) / total
        both = B[i, j] + B[j, i]
        H[i, j] = real(0.5) * ((alpha + beta) * A[i, j] + (alpha - beta) * A[j, i] + (gamma + skew) * both)
        H[j, i] = real(0.5) * ((alpha + beta) * A[j, i] + (alpha - beta) * A[i, j] + (gamma - skew) * both)
        return H

    @wp.func
    def svd_law_adj(F: mat33, material: Material, F_bar: mat33, tau_bar: mat33):
        U, stretch, V = wp.svd3(F)
        A = wp.transpose(U) * F_bar * V
        B = wp.transpose(U) * tau_bar * U
        e = log_stretch(stretch)
        tr = e[0] + e[1] + e[2]
        d = deviator(e)
        length = wp.length(d) + real(1.0e-10)
        f = flow(length, tr, material)
        plastic = f.k > real(0.0) or f.h != real(0.0)
        e_new = e - f.k * d + vec3(f.h, f.h, f.h)
        t_bar = vec3(B[0, 0], B[1, 1], B[2, 2])
        tr_t_bar = t_bar[0] + t_bar[1] + t_bar[2]
        pressure_bar = material.lam * tr_t_bar
        e_bar = real(2.0) * material.mu * t_bar + vec3(pressure_bar, pressure_bar, pressure_bar)
        k_bar = real(0.0)
        h_bar = real(0.0)
        if plastic:
            e_bar = e_bar + vec3(
                A[0, 0] * wp.exp(e_new[0]), A[1, 1] * wp.exp(e_new[1]), A[2, 2] * wp.exp(e_new[2])
            )
            k_bar = -wp.dot(e_bar, d)
            h_bar = e_bar[0] + e_bar[1] + e_bar[2]
            d_bar = (-f.k) * e_bar + (k_bar * f.k_length / length) * d
            tr_bar = k_bar * f.k_trace + h_bar * f.h_trace
            e_bar = e_bar + deviator(d_bar) + vec3(tr_bar, tr_bar, tr_bar)
        constants = constants_adj(
            f, k_bar, h_bar, real(2.0) * wp.dot(t_bar, e_new), tr_t_bar * (e_new[0] + e_new[1] + e_new[2])
        )
        H = mat33()
        for i in range(3):
            if stretch[i] > min_stretch:
                H[i, i] = e_bar[i] / stretch[i]
            if not plastic:
                H[i, i] += A[i, i]
        H = pair(0, 1, H, A, B, stretch, e_new, f.k, plastic, material.mu)
        H = pair(0, 2, H, A, B, stretch, e_new, f.k, plastic, material.mu)
        H = pair(1, 2, H, A, B, stretch, e_new, f.k, plastic, material.mu)
        return U * H * wp.transpose(V), constants

    # ---- the law -------------------------------------------------------------------------------------------

    @wp.func
    def law(F: mat33, material: Material):
        I = identity()  # noqa: E741
        b = F * wp.transpose(F)
        s = wp.trace(b) / real(3.0)
        Z = (b - s * I) * wp.inverse(b + s * I)
        F_new = F
        tau = mat33()
        if wp.ddot(Z, Z) <= radius_sq and wp.determinant(F) > real(0.0):
            F_new, tau = series_law(F, s, Z, material)
        else:
            F_new, tau = svd_law(F, material)
        return F_new, tau

    @wp.func
    def law_adj(F: mat33, material: Material, F_bar: mat33, tau_bar: mat33):
        I = identity()  # noqa: E741
        b = F * wp.transpose(F)
        s = wp.trace(b) / real(3.0)
        inv = wp.inverse(b + s * I)
        Z = (b - s * I) * inv
        Ft_bar = mat33()
        constants = LawAdjoint()
        if wp.ddot(Z, Z) <= radius_sq and wp.determinant(F) > real(0.0):
            Ft_bar, constants = series_law_adj(F, s, Z, inv, material, F_bar, tau_bar)
        else:
            Ft_bar, constants = svd_law_adj(F, material, F_bar, tau_bar)
        return Ft_bar, constants

    return SimpleNamespace(law=law, law_adj=law_adj)
