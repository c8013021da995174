"""Forces of stable neo-Hookean tetrahedra with a volumetric activation, and their adjoint.

With F the deformation gradient, R its rate, J = det F, C = dJ/dF its cofactors, I = F : F and an activation a (Smith,
de Goes, Kim: Stable neo-Hookean flesh simulation, 2018; without an activation it is stress-free at rest):

    energy   mu / 2 (I - 3 - log(I + 1)) + lam / 2 (J - alpha + a)^2,   alpha = 1 + mu / lam - mu / (4 lam)
    stress   P = m F + s C + k R,   m = mu (1 - 1 / (I + 1)),   s = lam (J - alpha + a) + k C : R

k being the damping. A tetrahedron of rest volume V and inverse rest edges B pulls its corners 1, 2, 3 with the columns
of -V P B^T and its corner 0 with minus their sum. If g are the adjoints of these four forces and W = sum g_i (dF/dx_i),
the adjoint of the force is that of L = -V P : W, whose slopes are, A x B being the bilinear form with C = F x F / 2:

    dL/dF = -V (m W + 2 m' (F : W) F + lam (C : W) C + F x M),   M = s W + k (C : W) R
    dL/dR = -V k (W + (C : W) C),   dL/da = -V lam (C : W)
"""

from functools import cache
from types import SimpleNamespace

import warp as wp

from rewarped_sim.engine.fem.body import body_struct
from rewarped_sim.engine.fem.lanes import native
from rewarped_sim.engine.scalars import Scalars

# Positions and velocities of the corners, then the deformation gradient F and its rate R, row by row.
_DEFORMATION = """
    const int* corner = &body.corners.data[tet][0];
    const wp::mat_t<3, 3, REAL>& rest = body.rest_inverse.data[tet];
    const REAL volume = body.volumes.data[tet];
    // Column j of the gradient of a quantity that is linear between its values at the corners.
    auto by_rest = [&](const lanes (&q)[4], int j) -> lanes {
        return (q[1] - q[0]) * rest.data[0][j] + (q[2] - q[0]) * rest.data[1][j] + (q[3] - q[0]) * rest.data[2][j];
    };
    auto dot = [](const lanes (&a)[3][3], const lanes (&b)[3][3]) -> lanes {
        lanes sum = a[0][0] * b[0][0];
#pragma unroll
        for (int i = 1; i < 9; ++i) {
            sum = sum + a[i / 3][i % 3] * b[i / 3][i % 3];
        }
        return sum;
    };
    lanes F[3][3], R[3][3], C[3][3];
    const int first = row * body.num_vertices;
#pragma unroll
    for (int i = 0; i < 3; ++i) {
        lanes x[4], v[4];
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            x[c] = at(state, (first + corner[c]) * 6 + i, body.width, env);
            v[c] = at(state, (first + corner[c]) * 6 + 3 + i, body.width, env);
        }
#pragma unroll
        for (int j = 0; j < 3; ++j) {
            F[i][j] = by_rest(x, j);
            R[i][j] = by_rest(v, j);
        }
    }
#pragma unroll
    for (int i = 0; i < 3; ++i) {
#pragma unroll
        for (int j = 0; j < 3; ++j) {
            const int p = (i + 1) % 3, q = (i + 2) % 3, r = (j + 1) % 3, s = (j + 2) % 3;
            C[i][j] = F[p][r] * F[q][s] - F[p][s] * F[q][r];
        }
    }
    const lanes J = F[0][0] * C[0][0] + F[0][1] * C[0][1] + F[0][2] * C[0][2];
    const lanes relief = REAL(1.0) / (dot(F, F) + REAL(1.0));
    const lanes m = body.mu - body.mu * relief;
    const lanes a = at(activation, a_row * body.num_tets + tet, body.width, env);
    const lanes s = body.lam * (J - body.rest_ratio + a) + body.damping * dot(C, R);
"""
_FORCES = """
#pragma unroll
    for (int i = 0; i < 3; ++i) {
        lanes P[3];
#pragma unroll
        for (int j = 0; j < 3; ++j) {
            P[j] = (F[i][j] * m + C[i][j] * s + R[i][j] * body.damping) * -volume;
        }
        lanes sum = all(REAL(0.0));
#pragma unroll
        for (int c = 1; c < 4; ++c) {
            const lanes pull = P[0] * rest.data[c - 1][0] + P[1] * rest.data[c - 1][1] + P[2] * rest.data[c - 1][2];
            at(forces, (tet * 4 + c) * 3 + i, width, lane) = pull;
            sum = sum + pull;
        }
        at(forces, tet * 12 + i, width, lane) = -sum;
    }
"""
_ADJOINT = """
    lanes W[3][3], M[3][3];
#pragma unroll
    for (int i = 0; i < 3; ++i) {
        lanes g[4];
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            const int own = corner[c] * 6 + i;
            g[c] = (at(state_bar, own + 3, body.width, env) + body.dt * at(state_bar, own, body.width, env))
                * (body.dt * body.inverse_masses.data[corner[c]]);
        }
#pragma unroll
        for (int j = 0; j < 3; ++j) {
            W[i][j] = by_rest(g, j);
        }
    }
    const lanes CW = dot(C, W), kCW = body.damping * CW, lCW = body.lam * CW;
    const lanes m_slope = REAL(2.0) * body.mu * relief * relief * dot(F, W);
#pragma unroll
    for (int i = 0; i < 9; ++i) {
        M[i / 3][i % 3] = s * W[i / 3][i % 3] + kCW * R[i / 3][i % 3];
    }
    lanes& a_bar = at(activation_bar, tet, body.width, env);
    const lanes here = lCW * -volume;
    a_bar = last ? here : a_bar + here;
#pragma unroll
    for (int i = 0; i < 3; ++i) {
        lanes F_bar[3], R_bar[3];
#pragma unroll
        for (int j = 0; j < 3; ++j) {
            const int p = (i + 1) % 3, q = (i + 2) % 3, r = (j + 1) % 3, t = (j + 2) % 3;
            const lanes FxM = F[p][r] * M[q][t] - F[p][t] * M[q][r] + F[q][t] * M[p][r] - F[q][r] * M[p][t];
            F_bar[j] = (m * W[i][j] + m_slope * F[i][j] + lCW * C[i][j] + FxM) * -volume;
            R_bar[j] = (body.damping * W[i][j] + kCW * C[i][j]) * -volume;
        }
        lanes x_sum = all(REAL(0.0)), v_sum = x_sum;
#pragma unroll
        for (int c = 1; c < 4; ++c) {
            const REAL* b = rest.data[c - 1];
            const lanes x_bar = F_bar[0] * b[0] + F_bar[1] * b[1] + F_bar[2] * b[2];
            const lanes v_bar = R_bar[0] * b[0] + R_bar[1] * b[1] + R_bar[2] * b[2];
            at(corner_bar, (tet * 4 + c) * 6 + i, width, lane) = x_bar;
            at(corner_bar, (tet * 4 + c) * 6 + 3 + i, width, lane) = v_bar;
            x_sum = x_sum + x_bar;
            v_sum = v_sum + v_bar;
        }
        at(corner_bar, tet * 24 + i, width, lane) = -x_sum;
        at(corner_bar, tet * 24 + 3 + i, width, lane) = -v_sum;
    }
"""


@cache
def elasticity_kernels(scalars: Scalars) -> SimpleNamespace:
    """Build `pull`, the forces of tetrahedra on their corners in a substep, and `pull_adj`.

    One thread per tetrahedron and group of environments. forces: (tets, 4, 3, envs) of a shard's own; `pull_adj` takes
    the adjoint of the next state and gives the part of this state's adjoint that comes through the forces, corner_bar:
    (tets, 4, 6, envs), and adds up the activation's.
    """
    real, Body = scalars.real, body_struct(scalars)

    @native(_DEFORMATION + _FORCES, scalars)
    def corner_forces(
        body: Body, tet: int, row: int, env: int, lane: int, width: int,
        state: wp.array(dtype=real), activation: wp.array(dtype=real), a_row: int, forces: wp.array(dtype=real),
    ): ...  # fmt: skip

    @native(_DEFORMATION + _ADJOINT, scalars)
    def corner_adjoints(
        body: Body, tet: int, row: int, env: int, lane: int, width: int, last: bool,
        state: wp.array(dtype=real), activation: wp.array(dtype=real), a_row: int,
        state_bar: wp.array(dtype=real), activation_bar: wp.array(dtype=real), corner_bar: wp.array(dtype=real),
    ): ...  # fmt: skip

    @wp.kernel(enable_backward=False, module="unique")
    def pull(
        first_env: int,
        groups: int,
        n: int,
        body: Body,
        slot: wp.array(dtype=int),
        state: wp.array(dtype=real),
        activation: wp.array(dtype=real),
        # out
        forces: wp.array(dtype=real),
    ):
        tet, group = wp.tid()
        row = slot[0] * (body.num_substeps + 1) + n
        lane = group * body.lanes
        corner_forces(
            body, tet, row, first_env + lane, lane, groups * body.lanes,
            state, activation, slot[0], forces,
        )  # fmt: skip

    @wp.kernel(enable_backward=False, module="unique")
    def pull_adj(
        first_env: int,
        groups: int,
        n: int,
        body: Body,
        slot: wp.array(dtype=int),
        state: wp.array(dtype=real),
        activation: wp.array(dtype=real),
        state_bar: wp.array(dtype=real),
        # out
        activation_bar: wp.array(dtype=real),
        corner_bar: wp.array(dtype=real),
    ):
        tet, group = wp.tid()
        row = slot[0] * (body.num_substeps + 1) + n
        lane = group * body.lanes
        corner_adjoints(
            body, tet, row, first_env + lane, lane, groups * body.lanes, n == body.num_substeps - 1,
            state, activation, slot[0], state_bar, activation_bar, corner_bar,
        )  # fmt: skip

    return SimpleNamespace(pull=pull, pull_adj=pull_adj)
