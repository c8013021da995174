"""The values that a window's returns are bootstrapped from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sapo_learner.network_input import NetworkInput
from sapo_learner.returns import segment_ends
from sapo_learner.rollout import Window

Value = Callable[[NetworkInput], Tensor]
"""From a batch of inputs (B, ...) to its values (B,)."""


@torch.no_grad()
def next_values(value: Value, window: Window) -> Tensor:
    """Return the value after each step, before any reset, (H, N); zero after a failure. No gradient."""
    values = value(window.terminal.map(lambda x: x.flatten(0, 1)))
    return torch.where(window.has_value, values.view_as(window.has_value), 0.0)


def end_values(value: Value, window: Window) -> Tensor:
    """Return the value after each segment's last step, zero elsewhere and after a failure, (H, N).

    The gradient flows through the value to the observation, and on into the simulator.
    """
    ends = (segment_ends(window.done) & window.has_value).flatten().nonzero().squeeze(-1)
    values = value(window.terminal.map(lambda x: x.flatten(0, 1)[ends]))
    return torch.zeros_like(window.reward).flatten().index_put((ends,), values).view_as(window.reward)
