"""Motion of vertices: what pulls at them, the ground, gravity, a step of symplectic Euler; and the adjoint.

    v' = v + dt (f(x, v) / mass + gravity),   x' = x + dt v'

With x_bar, v_bar the adjoints of x', v', those of x, v are x_bar, v_bar + dt x_bar, and what comes back through f,
whose own adjoint is dt / mass (v_bar + dt x_bar).
"""

from functools import cache
from types import SimpleNamespace

import warp as wp

from rewarped_sim.engine.fem.body import body_struct
from rewarped_sim.engine.fem.contact import contact_code
from rewarped_sim.engine.fem.lanes import native
from rewarped_sim.engine.scalars import Scalars

_OWN_STATE = """
    const int own = (row * body.num_vertices + vertex) * 6;
    const lanes z = at(state, own + 2, body.width, env);
    const lanes vx = at(state, own + 3, body.width, env);
    const lanes vy = at(state, own + 4, body.width, env);
    const lanes vz = at(state, own + 5, body.width, env);
    const int first = body.first_corner.data[vertex], end = body.first_corner.data[vertex + 1];
"""
_STEP = """
    lanes force[3] = {-grip * vx, -grip * vy, push};
    for (int i = first; i < end; ++i) {
        const int corner = body.vertex_corners.data[i] * 3;
#pragma unroll
        for (int k = 0; k < 3; ++k) {
            force[k] = force[k] + at(forces, corner + k, width, lane);
        }
    }
    const int next = own + body.num_vertices * 6;
    const REAL dt_by_mass = body.dt * body.inverse_masses.data[vertex];
#pragma unroll
    for (int k = 0; k < 3; ++k) {
        const lanes v = at(state, own + 3 + k, body.width, env) + force[k] * dt_by_mass + body.dt * body.gravity[k];
        at(state, next + 3 + k, body.width, env) = v;
        at(state, next + k, body.width, env) = at(state, own + k, body.width, env) + v * body.dt;
    }
"""
_STEP_ADJ = """
    const int bar = vertex * 6;
    lanes x_bar[3], v_bar[3], f_bar[3];
#pragma unroll
    for (int k = 0; k < 3; ++k) {
        x_bar[k] = at(state_bar, bar + k, body.width, env);
        v_bar[k] = at(state_bar, bar + 3 + k, body.width, env) + x_bar[k] * body.dt;
        f_bar[k] = v_bar[k] * (body.dt * body.inverse_masses.data[vertex]);
    }
    const lanes grip_bar = -(f_bar[0] * vx + f_bar[1] * vy);
    const lanes push_bar = f_bar[2] + grip_bar * grip_by_push;
    x_bar[2] = x_bar[2] - (depth > zero ? push_bar * push_by_depth : zero);
    v_bar[0] = v_bar[0] - grip * f_bar[0] + grip_bar * grip_by_slip * vx;
    v_bar[1] = v_bar[1] - grip * f_bar[1] + grip_bar * grip_by_slip * vy;
    v_bar[2] = v_bar[2] - (vz < zero ? push_bar * push_by_approach : zero);
    for (int i = first; i < end; ++i) {
        const int corner = body.vertex_corners.data[i] * 6;
#pragma unroll
        for (int k = 0; k < 3; ++k) {
            x_bar[k] = x_bar[k] + at(corner_bar, corner + k, width, lane);
            v_bar[k] = v_bar[k] + at(corner_bar, corner + 3 + k, width, lane);
        }
    }
#pragma unroll
    for (int k = 0; k < 3; ++k) {
        at(state_bar, bar + k, body.width, env) = x_bar[k];
        at(state_bar, bar + 3 + k, body.width, env) = v_bar[k];
    }
"""


@cache
def motion_kernels(scalars: Scalars, law: str) -> SimpleNamespace:
    """Build `move`, the step of vertices that are pulled by `forces`, and `move_adj`.

    One thread per vertex and group of environments. forces and corner_bar are those of `elasticity_kernels`. state_bar
    (vertices, 6, envs) is the adjoint of the next state before, and of this state after `move_adj`.
    """
    real, Body = scalars.real, body_struct(scalars)

    @native(_OWN_STATE + contact_code(law) + _STEP, scalars)
    def step(
        body: Body, vertex: int, row: int, env: int, lane: int, width: int,
        forces: wp.array(dtype=real), state: wp.array(dtype=real),
    ): ...  # fmt: skip

    @native(_OWN_STATE + contact_code(law) + _STEP_ADJ, scalars)
    def step_adj(
        body: Body, vertex: int, row: int, env: int, lane: int, width: int,
        state: wp.array(dtype=real), corner_bar: wp.array(dtype=real), state_bar: wp.array(dtype=real),
    ): ...  # fmt: skip

    @wp.kernel(enable_backward=False, module="unique")
    def move(
        first_env: int,
        groups: int,
        n: int,
        body: Body,
        slot: wp.array(dtype=int),
        forces: wp.array(dtype=real),
        # in, row n; out, row n + 1
        state: wp.array(dtype=real),
    ):
        vertex, group = wp.tid()
        row = slot[0] * (body.num_substeps + 1) + n
        lane = group * body.lanes
        step(body, vertex, row, first_env + lane, lane, groups * body.lanes, forces, state)

    @wp.kernel(enable_backward=False, module="unique")
    def move_adj(
        first_env: int,
        groups: int,
        n: int,
        body: Body,
        slot: wp.array(dtype=int),
        state: wp.array(dtype=real),
        corner_bar: wp.array(dtype=real),
        # in and out
        state_bar: wp.array(dtype=real),
    ):
        vertex, group = wp.tid()
        row = slot[0] * (body.num_substeps + 1) + n
        lane = group * body.lanes
        step_adj(body, vertex, row, first_env + lane, lane, groups * body.lanes, state, corner_bar, state_bar)

    return SimpleNamespace(move=move, move_adj=move_adj)
