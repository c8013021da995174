"""Which engine simulates which model."""

from __future__ import annotations

import torch

from rewarped_sim.engine.articulation.model import ArticulationModel
from rewarped_sim.engine.articulation.solver import slot_bytes
from rewarped_sim.engine.fem.model import FemModel
from rewarped_sim.engine.mpm.model import MpmModel
from rewarped_sim.engine.trajectory import plan_storage
from rewarped_sim.torch_bridge.articulation import ArticulationEngine
from rewarped_sim.torch_bridge.bridge import Bridge, free_memory
from rewarped_sim.torch_bridge.engine import Engine
from rewarped_sim.torch_bridge.fem import FemEngine
from rewarped_sim.torch_bridge.mpm import MpmEngine

AnyModel = MpmModel | ArticulationModel | FemModel
"""What a task may build."""
ENGINES = {MpmModel: MpmEngine, ArticulationModel: ArticulationEngine, FemModel: FemEngine}
MEMORY_SHARE = 0.5
"""Share of the free memory that a stored window may take before steps are recomputed instead."""


def make_bridge(
    model: AnyModel,
    *,
    num_envs: int,
    device: torch.device,
    horizon: int,
    storage: str = "auto",
    parameter_gradient: bool = False,
    num_threads: int | None = None,
) -> Bridge:
    """A batch of one model's environments behind torch tensors.

    horizon: control steps that one window may hold; 0 builds a forward-only simulator.
    storage: `auto`, `store` or `recompute`.
    parameter_gradient: whether gradients also flow into the engine's constants (`materials` or `parameters`).
    """
    per_slot, per_state = _memory(model)
    plan = plan_storage(
        bytes_per_slot=num_envs * per_slot,
        bytes_per_checkpoint=num_envs * per_state,
        horizon=horizon,
        policy=storage,
        budget_bytes=int(MEMORY_SHARE * free_memory(device)),
    )

    def build(num_slots: int) -> Engine:
        return ENGINES[type(model)](
            model,  # type: ignore[arg-type]
            num_envs=num_envs,
            num_slots=num_slots,
            device=device,
            requires_grad=horizon > 0,
            parameter_gradient=parameter_gradient and horizon > 0,
            num_threads=num_threads,
        )

    return Bridge(build, plan=plan, num_envs=num_envs, device=device)


def _memory(model: AnyModel) -> tuple[int, int]:
    """Bytes of an environment's control step, and of its state."""
    if isinstance(model, (MpmModel, FemModel)):
        return model.bytes_per_env_slot, model.bytes_per_env_state
    return slot_bytes(model), 4 * (model.num_coordinates + model.num_dofs)
