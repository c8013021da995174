"""The one file where torch meets the engine: a control step of MPM as a differentiable torch function.

The particles' state is one packed tensor (num_envs, num_particles, 24) whose result aliases the trajectory slot that
the engine wrote; bodies are another, (num_envs, bodies, 13). With gradients every control step takes the next slot of
the window; `rewind` starts a new window.
"""

import os
from collections.abc import Mapping
from typing import Any

import torch
import warp as wp
from torch import Tensor

from rewarped_sim.engine.mpm.bodies import BODY_SIZE
from rewarped_sim.engine.mpm.material_table import MATERIAL_FIELDS
from rewarped_sim.engine.mpm.model import MpmModel
from rewarped_sim.engine.mpm.solver import MpmSolver
from rewarped_sim.engine.mpm.state import PARTICLE_SIZE
from rewarped_sim.engine.trajectory import StoragePlan, plan_storage

MEMORY_SHARE = 0.5
"""Share of the free memory that a stored window may take before steps are recomputed instead."""


class WindowError(RuntimeError):
    """A gradient was asked for outside of its window."""


class MpmBridge:
    """Batched MPM behind torch tensors.

    horizon: control steps that one window may hold; 0 builds a forward-only simulator.
    storage: `auto`, `store` or `recompute`.
    material_gradient: whether gradients also flow into `materials`.
    """

    def __init__(
        self,
        model: MpmModel,
        *,
        num_envs: int,
        device: torch.device,
        horizon: int,
        storage: str = "auto",
        material_gradient: bool = False,
        num_threads: int | None = None,
    ) -> None:
        self.model = model
        self.device = device
        self.plan: StoragePlan = plan_storage(
            bytes_per_slot=num_envs * model.bytes_per_env_slot,
            bytes_per_checkpoint=num_envs * model.bytes_per_env_state,
            horizon=horizon,
            policy=storage,
            budget_bytes=int(MEMORY_SHARE * free_memory(device)),
        )
        self._solver = MpmSolver(
            model,
            num_envs=num_envs,
            num_slots=self.plan.num_slots + 1,
            requires_grad=horizon > 0,
            material_gradient=material_gradient and horizon > 0,
            device=str(device),
            num_threads=num_threads,
        )
        self._scratch = self.plan.num_slots
        self._next = 0
        self._window = 0
        self.bad_adjoints = torch.zeros(num_envs, dtype=torch.int64, device=device)
        """How often each env's gradient was not finite and was replaced by zero: (num_envs,) int64."""
        shape = (num_envs, model.num_particles, PARTICLE_SIZE)
        rows = wp.to_torch(self._solver.state, requires_grad=False)
        rows = rows.view(self.plan.num_slots + 1, model.num_substeps + 1, *shape)
        self._first, self._result = rows[:, 0], rows[:, -1]
        self._joint_q = wp.to_torch(self._solver.joint_q, requires_grad=False)
        self._joint_dq = wp.to_torch(self._solver.joint_dq, requires_grad=False)
        body_rows = (self.plan.num_slots + 1, model.num_substeps + 1, num_envs, -1, BODY_SIZE)
        bodies = wp.to_torch(self._solver.bodies, requires_grad=False).view(body_rows)
        self._first_bodies, self._result_bodies = bodies[:, 0], bodies[:, -1]
        table = wp.to_torch(self._solver.material_table, requires_grad=False)
        self._materials = table.view(
            self.plan.num_slots + 1, num_envs, len(model.parts), len(MATERIAL_FIELDS)
        )
        self.own_materials = torch.tensor(model.material_table, dtype=torch.float32, device=device)
        """The model's own constants, (parts, len(MATERIAL_FIELDS))."""
        self.faults = wp.to_torch(self._solver.faults, requires_grad=False)
        """What went wrong in the last step: (num_envs, len(FAULTS)) int32, 0 or 1."""
        if horizon > 0:
            state_bar = wp.to_torch(self._solver.state_bar, requires_grad=False).view(2, *shape)
            body_bars = wp.to_torch(self._solver.bodies_bar, requires_grad=False).view(body_rows)
            self._first_bodies_bar, self._result_bodies_bar = body_bars[:, 0], body_bars[:, -1]
            self._result_bar, self._first_bar = state_bar[self._solver.result_row], state_bar[0]
            self._joint_q_bar = wp.to_torch(self._solver.joint_q_bar, requires_grad=False)
            self._joint_dq_bar = wp.to_torch(self._solver.joint_dq_bar, requires_grad=False)
            self._material_bar = wp.to_torch(self._solver.material_bar, requires_grad=False)
        self._material_gradient = material_gradient

    def rewind(self) -> None:
        """Start a new window: gradients through earlier steps are gone. Raises `BlockPoolError` if one is due."""
        self._next = 0
        self._window += 1
        self._solver.check()

    def step(self, state: Mapping[str, Tensor], joint_dq: Tensor) -> dict[str, Tensor]:
        """What a control step makes of a state: its `particles` and, where there are any, its `bodies`.

        state: `particles` (num_envs, num_particles, 24); `joint_q` (num_envs, joints), coordinates of the driven tool;
        where the model has bodies, `bodies` (num_envs, bodies, 13); optionally `materials` (num_envs, parts,
        len(MATERIAL_FIELDS)), the constants of each env in place of the model's own. joint_dq: (num_envs, joints),
        change of `joint_q` during the step. The result of a step without gradient is valid until the next step.
        """
        inputs = (
            state["particles"], state["joint_q"], joint_dq, state.get("bodies"), state.get("materials"),
        )  # fmt: skip
        wanted = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs)
        if not wanted:
            return self._named(self._forward(self._scratch, *inputs))
        materials = state.get("materials")
        if materials is not None and materials.requires_grad and not self._material_gradient:
            raise WindowError("materials require a gradient: make the env with material_gradient=True")
        if self.plan.horizon == 0:
            raise WindowError("this env was made with requires_grad=False; wrap the step in torch.no_grad()")
        if self._next >= self.plan.horizon:
            raise WindowError(
                f"the window holds horizon={self.plan.horizon} control steps with gradient and is full; call "
                "detach() at least that often, or make the env with a longer horizon"
            )
        index = self._next
        self._next += 1
        return self._named(_MpmStep.apply(self, index, *inputs))

    def _named(self, results: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        return dict(zip(("particles", "bodies")[: 1 + bool(self.model.bodies)], results, strict=False))

    def _forward(
        self,
        slot: int,
        particles: Tensor,
        joint_q: Tensor,
        joint_dq: Tensor,
        bodies: Tensor | None,
        materials: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        self._first[slot].copy_(particles)
        self._joint_q[slot].copy_(joint_q)
        self._joint_dq[slot].copy_(joint_dq)
        if bodies is not None:
            self._first_bodies[slot].copy_(bodies)
        self._materials[slot].copy_(self.own_materials if materials is None else materials)
        with _stream(self.device):
            self._solver.forward(slot)
        return self._result[slot], self._result_bodies[slot]

    def _backward(self, slot: int, result_bar: Tensor, bodies_bar: Tensor) -> list[Tensor]:
        self._result_bar.copy_(result_bar)
        self._result_bodies_bar[slot].copy_(bodies_bar)
        with _stream(self.device):
            self._solver.backward(slot)
        # An env whose gradient is not finite passes none on; the others never touched its part of any buffer.
        bars = [self._first_bar, self._joint_q_bar, self._joint_dq_bar, self._first_bodies_bar[slot]]
        bars.append(self._material_bar)
        size = torch.stack([bar.flatten(1).abs().amax(dim=1) for bar in bars]).amax(dim=0)
        finite = torch.isfinite(size)
        self.bad_adjoints += ~finite
        zero = torch.zeros((), device=self.device)
        return [torch.where(finite.view(-1, *[1] * (bar.dim() - 1)), bar, zero) for bar in bars]


class _MpmStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, bridge: MpmBridge, index: int, *inputs: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        ctx.bridge, ctx.index, ctx.window = bridge, index, bridge._window
        if bridge.plan.policy == "store":
            return bridge._forward(index, *inputs)
        ctx.save_for_backward(*inputs)
        particles, bodies = bridge._forward(0, *inputs)
        return particles.clone(), bodies.clone()

    @staticmethod
    def backward(ctx: Any, result_bar: Tensor, bodies_bar: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        bridge = ctx.bridge
        if ctx.window != bridge._window:
            raise WindowError(
                "backward through a step of an earlier window: its slot was given up by detach()"
            )
        slot = ctx.index
        if bridge.plan.policy != "store":
            slot = 0
            bridge._forward(slot, *ctx.saved_tensors)
        *driven, bodies, materials = bridge._backward(slot, result_bar, bodies_bar)
        _, _, *wanted = ctx.needs_input_grad
        return None, None, *driven, bodies if wanted[3] else None, materials if wanted[4] else None


def _stream(device: torch.device) -> wp.ScopedStream:
    """Run Warp on torch's current stream, so that neither waits for the other through the host."""
    if device.type == "cpu":
        return wp.ScopedStream(None)
    return wp.ScopedStream(wp.stream_from_torch(torch.cuda.current_stream(device)), sync_enter=False)


def free_memory(device: torch.device) -> int:
    """Bytes that a simulation may reasonably plan with on this device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
