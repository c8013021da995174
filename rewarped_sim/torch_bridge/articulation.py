"""The articulation engine behind ports."""

from __future__ import annotations

import torch
from torch import Tensor

from rewarped_sim.engine.articulation.model import ArticulationModel
from rewarped_sim.engine.articulation.parameters import default_parameters
from rewarped_sim.engine.articulation.solver import ArticulationSolver
from rewarped_sim.torch_bridge.engine import Engine, Port, shared, view


class ArticulationEngine(Engine):
    """Ports of a system of joints, all (num_envs, n).

    State: `joint_q` (coordinates), `joint_qd` (dofs). Controls: generalised forces `joint_f` and drives' targets
    `joint_target` (dofs), `activation` (muscles, where there are any). Constants: `parameters`.
    """

    def __init__(
        self,
        model: ArticulationModel,
        *,
        num_envs: int,
        num_slots: int,
        device: torch.device,
        requires_grad: bool,
        parameter_gradient: bool,
        num_threads: int | None,
    ) -> None:
        self._model = model
        self._solver = solver = ArticulationSolver(
            model,
            num_envs=num_envs,
            num_slots=num_slots,
            requires_grad=requires_grad,
            device=str(device),
            num_threads=num_threads,
        )
        rows = model.num_substeps + 1
        nothing = torch.zeros(model.num_dofs, device=device)

        def bar(name: str) -> Tensor | None:
            return shared(view(getattr(solver, f"{name}_bar")), num_slots) if requires_grad else None

        def state(name: str) -> Port:
            by_row = view(getattr(solver, name)).unflatten(0, (num_slots, rows))
            both = bar(name)  # one buffer holds the adjoint of what comes out, then that of what went in
            return Port(name, by_row[:, 0], result=by_row[:, -1], value_bar=both, result_bar=both)

        def control(name: str, default: Tensor | None = None) -> Port:
            return Port(name, view(getattr(solver, name)), default=default, value_bar=bar(name))

        own = torch.tensor(default_parameters(model), dtype=torch.float32, device=device)
        ports = [state("joint_q"), state("joint_qd"), control("joint_f", nothing)]
        ports.append(control("joint_target", nothing))
        if model.muscles:
            ports.append(control("activation"))
        ports.append(
            Port(
                "parameters",
                view(solver.parameters),
                default=own,
                value_bar=bar("parameters"),
                gradient_option="" if parameter_gradient else "parameter_gradient",
            )
        )
        self.ports = tuple(ports)

    def forward(self, slot: int) -> None:
        self._solver.forward(slot)

    def backward(self, slot: int) -> None:
        self._solver.backward(slot)

    def describe(self) -> str:
        model = self._model
        return (
            f"{len(model.bodies)} bodies, {model.num_dofs} degrees of freedom, {model.num_substeps} substeps"
        )
