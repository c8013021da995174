"""The smallest engine behind ports: a mass on a cubic spring with friction, its adjoint by hand.

v' = v + dt (u - c v - x^3), x' = x + dt v'
"""

import torch
import warp as wp

from rewarped_sim.torch_bridge.engine import Engine, Port, shared, view

DT = 0.1
FRICTION = 0.3
FASTEST = 50.0
"""Above this speed an env reports a fault."""


@wp.kernel(enable_backward=False)
def advance(
    slot: int,
    x: wp.array3d(dtype=float),
    v: wp.array3d(dtype=float),
    u: wp.array2d(dtype=float),
    c: wp.array2d(dtype=float),
    faults: wp.array2d(dtype=int),
):
    env = wp.tid()
    before = x[slot, 0, env]
    speed = v[slot, 0, env]
    speed += DT * (u[slot, env] - c[slot, env] * speed - before * before * before)
    x[slot, 1, env] = before + DT * speed
    v[slot, 1, env] = speed
    faults[env, 0] = wp.where(wp.abs(speed) > FASTEST, 1, 0)


@wp.kernel(enable_backward=False)
def advance_adj(
    slot: int,
    x: wp.array3d(dtype=float),
    v: wp.array3d(dtype=float),
    c: wp.array2d(dtype=float),
    x_bar: wp.array1d(dtype=float),
    v_bar: wp.array1d(dtype=float),
    u_bar: wp.array1d(dtype=float),
    c_bar: wp.array1d(dtype=float),
):
    env = wp.tid()
    before = x[slot, 0, env]
    speed_bar = v_bar[env] + DT * x_bar[env]
    u_bar[env] = DT * speed_bar
    c_bar[env] = -DT * v[slot, 0, env] * speed_bar
    x_bar[env] = x_bar[env] - DT * 3.0 * before * before * speed_bar
    v_bar[env] = (1.0 - DT * c[slot, env]) * speed_bar


class PointMass(Engine):
    """State `x` and `v`, control `u`, constant `c`; all (num_envs,). `steps` counts on without physics."""

    fault_names = ("too_fast",)

    def __init__(self, num_slots: int, num_envs: int, *, parameter_gradient: bool = True) -> None:
        def zeros(*shape, dtype=float):
            return wp.zeros(shape, dtype=dtype, device="cpu")

        self._num_envs = num_envs
        self._x, self._v = zeros(num_slots, 2, num_envs), zeros(num_slots, 2, num_envs)
        self._u, self._c = zeros(num_slots, num_envs), zeros(num_slots, num_envs)
        self._bars = [zeros(num_envs) for _ in range(4)]
        self._faults = zeros(num_envs, 1, dtype=int)
        self.faults = view(self._faults)
        x, v = view(self._x), view(self._v)
        x_bar, v_bar, u_bar, c_bar = (shared(view(bar), num_slots) for bar in self._bars)
        self.ports = (
            Port("x", x[:, 0], result=x[:, 1], value_bar=x_bar, result_bar=x_bar),
            Port("v", v[:, 0], result=v[:, 1], value_bar=v_bar, result_bar=v_bar),
            Port("u", view(self._u), value_bar=u_bar),
            Port(
                "c",
                view(self._c),
                default=torch.tensor(FRICTION),
                value_bar=c_bar,
                gradient_option="" if parameter_gradient else "parameter_gradient",
            ),
        )
        self.forwards = self.checks = 0

    def forward(self, slot):
        self.forwards += 1
        arguments = [slot, self._x, self._v, self._u, self._c, self._faults]
        wp.launch(advance, self._num_envs, arguments, device="cpu")

    def backward(self, slot):
        arguments = [slot, self._x, self._v, self._c, *self._bars]
        wp.launch(advance_adj, self._num_envs, arguments, device="cpu")

    def describe(self):
        return "a mass on a spring"

    def check(self):
        self.checks += 1

    def follow(self, inputs):
        return {"steps": inputs["steps"] + 1} if "steps" in inputs else {}


def expected(x, v, controls, c):
    """States (steps, num_envs) by torch's own differentiation, in the precision of the inputs."""
    states = []
    for u in controls:
        v = v + DT * (u - c * v - x**3)
        x = x + DT * v
        states.append((x, v))
    xs, vs = zip(*states, strict=True)
    return torch.stack(xs), torch.stack(vs)
