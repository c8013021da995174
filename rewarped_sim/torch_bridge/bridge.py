"""A control step of any engine as a differentiable torch function.

State and controls are named tensors; results alias the trajectory slot that the engine wrote. With gradients every
control step takes the next slot of the window; `rewind` starts a new window.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
import warp as wp
from torch import Tensor
from torch.autograd.function import once_differentiable

from rewarped_sim.engine.trajectory import StoragePlan
from rewarped_sim.torch_bridge.engine import Engine, Port

MAX_ADJOINT = 1.0e12
"""What the gradient through an env's physics may reach. Beyond, it says nothing any more, and its square comes near the
end of float32: one env would cost all of them their step."""


class WindowError(RuntimeError):
    """A gradient was asked for outside of its window."""


class Bridge:
    """Batched physics behind torch tensors.

    plan: how many slots a window has; horizon 0 is a forward-only simulator.
    build: makes the engine with so many slots; the last one serves steps without gradient.
    """

    def __init__(
        self, build: Callable[[int], Engine], *, plan: StoragePlan, num_envs: int, device: torch.device
    ) -> None:
        self.plan = plan
        self.device = device
        self.engine = build(plan.num_slots + 1)
        self._scratch = plan.num_slots
        self._next = 0
        self._window = 0
        self.bad_adjoints = torch.zeros(num_envs, dtype=torch.int64, device=device)
        """How often each env's gradient was not finite or beyond `MAX_ADJOINT`, and made 0: (num_envs,) int64."""

    @property
    def faults(self) -> Tensor:
        """What went wrong in the last step: (num_envs, len(engine.fault_names)) bool."""
        if self.engine.faults is None:
            return torch.zeros(len(self.bad_adjoints), 0, dtype=torch.bool, device=self.device)
        return self.engine.faults.bool()

    def rewind(self) -> None:
        """Start a new window: gradients through earlier steps are gone. Raises what the engine's `check` raises."""
        self._next = 0
        self._window += 1
        self.engine.check()

    def step(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a control step makes of state and controls, by name.

        inputs: the engine's ports by name, (num_envs, ...) each; others are passed over, and ports with a default may
        be left out. The result of a step without gradient is valid until the next step.

        Raises:
            KeyError: an input is missing; names it and what was given.
            ValueError: an input has another shape than its port; names it.
            WindowError: a gradient is wanted where none can be had.
        """
        values = tuple(self._value(port, inputs) for port in self.engine.ports)
        results = self._run(values)
        changed = [port.name for port in self.engine.ports if port.result is not None]
        return dict(zip(changed, results, strict=True)) | self.engine.follow(inputs)

    def _value(self, port: Port, inputs: Mapping[str, Tensor]) -> Tensor:
        value = inputs.get(port.name)
        if value is None:
            if port.default is None:
                raise KeyError(f"physics needs {port.name!r}; given: {sorted(inputs)}")
            return port.default
        expected = port.value.shape[1:]
        if value.shape != expected:
            raise ValueError(f"physics: {port.name}: expected {tuple(expected)}, got {tuple(value.shape)}")
        return value

    def _run(self, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        wanted = [port for port, value in zip(self.engine.ports, values, strict=True) if value.requires_grad]
        if not (torch.is_grad_enabled() and wanted):
            return self._forward(self._scratch, values)
        for port in wanted:
            if port.gradient_option:
                raise WindowError(
                    f"{port.name} require a gradient: make the env with {port.gradient_option}=True"
                )
        if self.plan.horizon == 0:
            raise WindowError("this env was made with requires_grad=False; wrap the step in torch.no_grad()")
        if self._next >= self.plan.horizon:
            raise WindowError(
                f"the window holds horizon={self.plan.horizon} control steps with gradient and is full; call "
                "detach() at least that often, or make the env with a longer horizon"
            )
        index = self._next
        self._next += 1
        return _Step.apply(self, index, *values)

    def _forward(self, slot: int, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        for port, value in zip(self.engine.ports, values, strict=True):
            port.value[slot].copy_(value)
        with torch_stream(self.device):
            self.engine.forward(slot)
        # `data`: to torch a tensor of its own, which autograd may keep while other slots are written.
        return tuple(port.result[slot].data for port in self.engine.ports if port.result is not None)

    def _backward(self, slot: int, result_bars: tuple[Tensor, ...]) -> list[Tensor]:
        ports = self.engine.ports
        changed = [port for port in ports if port.result is not None]
        for port, bar in zip(changed, result_bars, strict=True):
            assert port.result_bar is not None
            port.result_bar[slot].copy_(bar)
        with torch_stream(self.device):
            self.engine.backward(slot)
        bars = [port.value_bar[slot] for port in ports if port.value_bar is not None]
        # An env whose gradient broke passes none on; the others never touched its part of any buffer.
        size = torch.stack([bar.reshape(len(bar), -1).abs().amax(dim=1) for bar in bars]).amax(dim=0)
        sound = size <= MAX_ADJOINT  # NaN is not
        self.bad_adjoints += ~sound
        zero = torch.zeros((), device=self.device)
        return [torch.where(sound.view(-1, *[1] * (bar.dim() - 1)), bar, zero) for bar in bars]


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, bridge: Bridge, index: int, *values: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        ctx.bridge, ctx.index, ctx.window = bridge, index, bridge._window
        if bridge.plan.policy == "store":
            return bridge._forward(index, values)
        ctx.save_for_backward(*values)
        return tuple(result.clone() for result in bridge._forward(0, values))

    @staticmethod
    @once_differentiable  # to torch the adjoints are constants; a second derivative without physics would be wrong
    def backward(ctx: Any, *result_bars: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        bridge = ctx.bridge
        if ctx.window != bridge._window:
            raise WindowError(
                "backward through a step of an earlier window: its slot was given up by detach()"
            )
        slot = ctx.index
        if bridge.plan.policy != "store":
            slot = 0
            bridge._forward(slot, ctx.saved_tensors)
        bars = iter(bridge._backward(slot, result_bars))
        _, _, *wanted = ctx.needs_input_grad
        by_port = [next(bars) if port.value_bar is not None else None for port in bridge.engine.ports]
        return None, None, *(bar if want else None for bar, want in zip(by_port, wanted, strict=True))


def torch_stream(device: torch.device) -> wp.ScopedStream:
    """Run Warp on torch's current stream, so that neither waits for the other through the host."""
    if device.type == "cpu":
        return wp.ScopedStream(None)
    return wp.ScopedStream(wp.stream_from_torch(torch.cuda.current_stream(device)), sync_enter=False)


def free_memory(device: torch.device) -> int:
    """Bytes that a simulation may reasonably plan with on this device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
