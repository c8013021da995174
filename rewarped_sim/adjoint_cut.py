"""Cut the gradient of worlds in which it has grown too large, between one control step and the next."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rewarped_sim.task import State


def cut_large_adjoints(state: State, *, max_norm: float, cuts: Tensor) -> State:
    """Return the same state; what flows back into an env is zero where its norm, over all entries, is above `max_norm`.

    Every step before then sees this env's window end here. cuts: (num_envs,) int64, counts them, on the device.
    """
    names = [name for name, value in state.items() if value.requires_grad]
    passed = _Cut.apply(max_norm, cuts, *(state[name] for name in names))
    return state | dict(zip(names, passed, strict=True)) if names else state


class _Cut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, max_norm: float, cuts: Tensor, *values: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        ctx.max_norm, ctx.cuts = max_norm, cuts
        return tuple(value.view_as(value) for value in values)

    @staticmethod
    def backward(ctx: Any, *bars: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        squares = torch.stack([bar.reshape(len(bar), -1).square().sum(dim=1) for bar in bars])
        large = squares.sum(dim=0).sqrt() > ctx.max_norm
        ctx.cuts.add_(large)
        kept = [torch.where(large.view(-1, *[1] * (bar.dim() - 1)), 0.0, bar) for bar in bars]
        return None, None, *kept
