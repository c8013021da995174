"""A ring buffer of transitions on the learner's device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from sapo_learner.network_input import NetworkInput
from sapo_learner.settings import require


class Transitions(NamedTuple):
    """B transitions, observations as the env gives them."""

    inputs: NetworkInput
    """(B, ...) observation acted on."""
    action: Tensor
    """(B, d)."""
    reward: Tensor
    """(B,) sum over the steps taken together."""
    discount: Tensor
    """(B,) weight of the value after them; zero after a failure."""
    successor: NetworkInput
    """(B, ...) observation after them, before any reset; where the discount is zero, it may be anything."""

    def are_finite(self) -> Tensor:
        """Tell which transitions are, (B,) bool, successors aside."""
        finite = torch.ones_like(self.reward, dtype=torch.bool)
        for part in (*self.inputs, self.action, self.reward):
            if part is not None:
                finite &= part.isfinite().view(len(part), -1).all(dim=1)
        return finite

    def map(self, function: Callable[[Tensor], Tensor]) -> Transitions:
        """Apply `function` to every tensor."""
        return Transitions(
            self.inputs.map(function),
            function(self.action),
            function(self.reward),
            function(self.discount),
            self.successor.map(function),
        )

    def columns(self) -> dict[str, Tensor]:
        """Return all tensors by name."""
        named = {
            "state": self.inputs.state,
            "cloud": self.inputs.cloud,
            "action": self.action,
            "reward": self.reward,
            "discount": self.discount,
            "next_state": self.successor.state,
            "next_cloud": self.successor.cloud,
        }
        return {name: value for name, value in named.items() if value is not None}


class Replay:
    """The newest `capacity` transitions. Clouds are kept in half precision: 0.5 mm at a distance of 1 m.

    Memory is taken as it is filled, in float32 2 * state + actions + 2 numbers a transition, and 12 bytes a point.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.written = 0
        """Transitions so far, those overwritten since included."""
        self._columns: dict[str, Tensor] = {}
        self._before_extension: tuple[int, Tensor, dict[str, Tensor]] | None = None

    def __len__(self) -> int:
        return min(self.written, self.capacity)

    @torch.no_grad()
    def extend(self, transitions: Transitions) -> None:
        """Add transitions, over the oldest ones where the buffer is full; of too many only the last ones stay."""
        columns = {name: _packed(name, value) for name, value in transitions.columns().items()}
        count = len(transitions.reward)
        if count == 0:
            return
        rows = torch.arange(self.written, self.written + count, device=transitions.reward.device)[
            -self.capacity :
        ]
        rows = rows % self.capacity
        self._reserve(columns, min(self.written + count, self.capacity))
        self._before_extension = (
            self.written,
            rows,
            {name: column[rows] for name, column in self._columns.items()},
        )
        for name, value in columns.items():
            self._columns[name][rows] = value[-self.capacity :]
        self.written += count

    def rewind(self, written: int) -> None:
        """Take the last extension back, or what was done of it, if it came after `written` transitions."""
        if self._before_extension is None or self._before_extension[0] != written:
            assert written == self.written
            return
        self.written, rows, overwritten = self._before_extension
        for name, value in overwritten.items():
            self._columns[name][rows] = value
        self._before_extension = None

    def sample(self, count: int, generator: Generator) -> Transitions:
        """Draw transitions uniformly, with replacement."""
        rows = torch.randint(len(self), (count,), generator=generator, device=generator.device)
        drawn = {name: column[rows] for name, column in self._columns.items()}
        cloud, next_cloud = (
            drawn[name].float() if name in drawn else None for name in ("cloud", "next_cloud")
        )
        return Transitions(
            NetworkInput(drawn["state"], cloud),
            drawn["action"],
            drawn["reward"],
            drawn["discount"],
            NetworkInput(drawn["next_state"], next_cloud),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of everything, as tensors and plain containers."""
        columns = {name: column[: len(self)].clone() for name, column in self._columns.items()}
        return {"capacity": self.capacity, "written": self.written, "columns": columns}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what `state_dict` gave, on a device.

        Raises ValueError where the capacity was another; nothing has changed then.
        """
        require(
            state["capacity"] == self.capacity,
            f"replay: the state is of one with a capacity of {state['capacity']}, this one has {self.capacity}; "
            f"go on with replay_capacity: {state['capacity']}",
        )
        self.written = state["written"]
        self._columns = {name: value.to(device, copy=True) for name, value in state["columns"].items()}
        self._before_extension = None

    def _reserve(self, like: dict[str, Tensor], rows: int) -> None:
        """Make room for `rows` transitions, at least doubling what there is."""
        have = len(next(iter(self._columns.values()))) if self._columns else 0
        if rows <= have:
            return
        size = min(max(rows, 2 * have), self.capacity)
        for name, value in like.items():
            grown = value.new_zeros(size, *value.shape[1:])
            if have:
                grown[:have] = self._columns[name]
            self._columns[name] = grown


def _packed(name: str, value: Tensor) -> Tensor:
    if name not in ("cloud", "next_cloud"):
        return value
    largest = torch.finfo(torch.half).max  # beyond it would be infinite
    return value.clamp(-largest, largest).half()
