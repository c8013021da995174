"""The soft-body engine behind ports."""

from __future__ import annotations

import torch

from rewarped_sim.engine.fem.model import FemModel
from rewarped_sim.engine.fem.solver import FemSolver
from rewarped_sim.torch_bridge.engine import Engine, Port, shared, view


class FemEngine(Engine):
    """Ports of a soft body.

    State: `vertices` (num_envs, num_vertices, 6), positions and velocities. Control: `activation` (num_envs, num_tets).
    """

    def __init__(
        self,
        model: FemModel,
        *,
        num_envs: int,
        num_slots: int,
        device: torch.device,
        requires_grad: bool,
        parameter_gradient: bool,
        num_threads: int | None,
    ) -> None:
        if parameter_gradient:
            raise ValueError("parameter_gradient: a soft body's constants have no gradients")
        self._model = model
        self._solver = solver = FemSolver(
            model,
            num_envs=num_envs,
            num_slots=num_slots,
            requires_grad=requires_grad,
            device=str(device),
            num_threads=num_threads,
        )
        state_bar = shared(view(solver.state_bar), num_slots) if requires_grad else None
        activation_bar = shared(view(solver.activation_bar), num_slots) if requires_grad else None
        rows = view(solver.state).unflatten(0, (num_slots, model.num_substeps + 1))
        self.ports = (
            Port("vertices", rows[:, 0], result=rows[:, -1], value_bar=state_bar, result_bar=state_bar),
            Port("activation", view(solver.activation), value_bar=activation_bar),
        )

    def forward(self, slot: int) -> None:
        self._solver.forward(slot)

    def backward(self, slot: int) -> None:
        self._solver.backward(slot)

    def describe(self) -> str:
        model = self._model
        return f"{model.num_vertices} vertices, {model.num_tets} tetrahedra, {model.num_substeps} substeps"
