"""The one file where torch meets the engine: a control step of MPM as a differentiable torch function.

The particles' state is one packed tensor (num_envs, num_particles, 24) whose result aliases the trajectory slot that
the engine wrote. With gradients every control step takes the next slot of the window; `rewind` starts a new window.
"""

import os
from typing import Any

import torch
import warp as wp
from torch import Tensor

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
    """

    def __init__(
        self,
        model: MpmModel,
        *,
        num_envs: int,
        device: torch.device,
        horizon: int,
        storage: str = "auto",
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
        if horizon > 0:
            state_bar = wp.to_torch(self._solver.state_bar, requires_grad=False).view(2, *shape)
            self._result_bar, self._first_bar = state_bar[self._solver.result_row], state_bar[0]
            self._joint_q_bar = wp.to_torch(self._solver.joint_q_bar, requires_grad=False)
            self._joint_dq_bar = wp.to_torch(self._solver.joint_dq_bar, requires_grad=False)

    def rewind(self) -> None:
        """Start a new window: gradients through earlier steps are gone. Raises `BlockPoolError` if one is due."""
        self._next = 0
        self._window += 1
        self._solver.check()

    def step(self, particles: Tensor, joint_q: Tensor, joint_dq: Tensor) -> Tensor:
        """Particles after one control step, (num_envs, num_particles, 24).

        joint_q, joint_dq: (num_envs, joints), coordinates of the driven tool and their change during the step. The
        result of a step without gradient is valid until the next step.
        """
        wanted = torch.is_grad_enabled() and any(t.requires_grad for t in (particles, joint_q, joint_dq))
        if not wanted:
            return self._forward(self._scratch, particles, joint_q, joint_dq)
        if self.plan.horizon == 0:
            raise WindowError("this env was made with requires_grad=False; wrap the step in torch.no_grad()")
        if self._next >= self.plan.horizon:
            raise WindowError(
                f"the window holds horizon={self.plan.horizon} control steps with gradient and is full; call "
                "detach() at least that often, or make the env with a longer horizon"
            )
        index = self._next
        self._next += 1
        result = _MpmStep.apply(self, index, particles, joint_q, joint_dq)
        assert isinstance(result, Tensor)
        return result

    def _forward(self, slot: int, particles: Tensor, joint_q: Tensor, joint_dq: Tensor) -> Tensor:
        self._first[slot].copy_(particles)
        self._joint_q[slot].copy_(joint_q)
        self._joint_dq[slot].copy_(joint_dq)
        with _stream(self.device):
            self._solver.forward(slot)
        return self._result[slot]

    def _backward(self, slot: int, result_bar: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self._result_bar.copy_(result_bar)
        with _stream(self.device):
            self._solver.backward(slot)
        # An env whose gradient is not finite passes none on; the others never touched its part of any buffer.
        bars = (self._first_bar, self._joint_q_bar, self._joint_dq_bar)
        size = torch.stack([bar.flatten(1).abs().amax(dim=1) for bar in bars]).amax(dim=0)
        finite = torch.isfinite(size)
        self.bad_adjoints += ~finite
        zero = torch.zeros((), device=self.device)
        first_bar = torch.where(finite[:, None, None], self._first_bar, zero)
        joint_q_bar = torch.where(finite[:, None], self._joint_q_bar, zero)
        joint_dq_bar = torch.where(finite[:, None], self._joint_dq_bar, zero)
        return first_bar, joint_q_bar, joint_dq_bar


class _MpmStep(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, bridge: MpmBridge, index: int, particles: Tensor, joint_q: Tensor, joint_dq: Tensor
    ) -> Tensor:
        ctx.bridge, ctx.index, ctx.window = bridge, index, bridge._window
        if bridge.plan.policy == "store":
            return bridge._forward(index, particles, joint_q, joint_dq)
        ctx.save_for_backward(particles, joint_q, joint_dq)
        return bridge._forward(0, particles, joint_q, joint_dq).clone()

    @staticmethod
    def backward(ctx: Any, result_bar: Tensor) -> tuple[None, None, Tensor, Tensor, Tensor]:  # type: ignore[override]
        bridge = ctx.bridge
        if ctx.window != bridge._window:
            raise WindowError(
                "backward through a step of an earlier window: its slot was given up by detach()"
            )
        if bridge.plan.policy == "store":
            return (None, None, *bridge._backward(ctx.index, result_bar))
        particles, joint_q, joint_dq = ctx.saved_tensors
        bridge._forward(0, particles, joint_q, joint_dq)
        return (None, None, *bridge._backward(0, result_bar))


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
