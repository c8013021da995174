"""The material point engine behind ports."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rewarped_sim.engine.mpm.bodies import BODY_SIZE
from rewarped_sim.engine.mpm.grid import FAULTS
from rewarped_sim.engine.mpm.model import MpmModel
from rewarped_sim.engine.mpm.solver import MpmSolver
from rewarped_sim.engine.mpm.state import PARTICLE_SIZE, C, F, V, X
from rewarped_sim.torch_bridge.engine import Engine, Port, shared, view

_FIELDS = {"x": (X, 3), "v": (V, 3), "C": (C, 9), "F": (F, 9)}


class MpmEngine(Engine):
    """Ports of particles and what moves among them.

    State: `particles` (num_envs, num_particles, 24); `bodies` (num_envs, bodies, 13), where there are any; `joint_q`
    (num_envs, joints) of the driven tool. Control: `joint_dq`, its change. Constants: `materials` (num_envs, parts,
    len(MATERIAL_FIELDS)).
    """

    fault_names = FAULTS

    def __init__(
        self,
        model: MpmModel,
        *,
        num_envs: int,
        num_slots: int,
        device: torch.device,
        requires_grad: bool,
        parameter_gradient: bool,
        num_threads: int | None,
    ) -> None:
        self._model = model
        self._solver = solver = MpmSolver(
            model,
            num_envs=num_envs,
            num_slots=num_slots,
            requires_grad=requires_grad,
            material_gradient=parameter_gradient,
            device=str(device),
            num_threads=num_threads,
        )
        self.faults = view(solver.faults)
        own = torch.tensor(model.material_table, dtype=torch.float32, device=device)

        def by_slot(bar: Tensor | None) -> Tensor | None:
            return None if bar is None else shared(bar, num_slots)

        bars: dict[str, Tensor | None] = dict.fromkeys(("q", "dq", "materials", "first", "result"))
        particles = (num_envs, model.num_particles, PARTICLE_SIZE)
        if requires_grad:
            state_bar = view(solver.state_bar).view(2, *particles)
            bars |= {"first": state_bar[0], "result": state_bar[solver.result_row]}
            bars |= {"q": view(solver.joint_q_bar), "dq": view(solver.joint_dq_bar)}
            if parameter_gradient:
                bars["materials"] = view(solver.material_bar)
        rows = view(solver.state).view(num_slots, model.num_substeps + 1, *particles)
        ports = [
            Port(
                "particles",
                rows[:, 0],
                result=rows[:, -1],
                value_bar=by_slot(bars["first"]),
                result_bar=by_slot(bars["result"]),
            ),
            Port("joint_q", view(solver.joint_q), value_bar=by_slot(bars["q"])),
            Port("joint_dq", view(solver.joint_dq), value_bar=by_slot(bars["dq"])),
            Port(
                "materials",
                view(solver.material_table).view(num_slots, num_envs, *own.shape),
                default=own,
                value_bar=by_slot(bars["materials"]),
                gradient_option="" if parameter_gradient else "material_gradient",
            ),
        ]
        if model.bodies:
            shape = (num_slots, model.num_substeps + 1, num_envs, len(model.bodies), BODY_SIZE)
            bodies, body_bars = view(solver.bodies).view(shape), view(solver.bodies_bar).view(shape)
            first, last = body_bars[:, 0], body_bars[:, -1]
            ports.insert(
                1, Port("bodies", bodies[:, 0], result=bodies[:, -1], value_bar=first, result_bar=last)
            )
        self.ports = tuple(ports)

    def forward(self, slot: int) -> None:
        self._solver.forward(slot)

    def backward(self, slot: int) -> None:
        self._solver.backward(slot)

    def check(self) -> None:
        """Raise `BlockPoolError` where particles touched more of the grid than there is room for."""
        self._solver.check()

    def follow(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The driven tool is where it was told to go."""
        return {"joint_q": inputs["joint_q"] + inputs["joint_dq"]}

    def named(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Particles as x, v, C and F."""
        particles = state["particles"]
        fields = {
            name: particles[..., at : at + size].reshape(
                *particles.shape[:2], *((3,) if size == 3 else (3, 3))
            )
            for name, (at, size) in _FIELDS.items()
        }
        return fields | {name: value for name, value in state.items() if name != "particles"}

    def from_named(self, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        particles = torch.cat([named[name].flatten(2) for name in _FIELDS], dim=2)
        return {"particles": particles} | {k: v for k, v in named.items() if k not in _FIELDS}

    def describe(self) -> str:
        model = self._model
        return (
            f"{model.num_particles} particles, {model.num_substeps} substeps on a {model.grid_size}^3 grid "
            f"(CFL {model.cfl:.2f})"
        )
