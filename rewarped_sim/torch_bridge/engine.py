"""What a bridge knows of a physics engine: named ports into its slots, and how to run it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass

import warp as wp
from torch import Tensor


@dataclass(frozen=True)
class Port:
    """A quantity that goes into a control step, and perhaps comes out of it changed.

    All tensors alias the engine's memory and begin with (slots, num_envs). Adjoints that all slots share are expanded
    to that shape.
    """

    name: str
    """Its name in a task's state or in what `Task.control` returns."""
    value: Tensor
    """What goes in."""
    _: KW_ONLY
    result: Tensor | None = None
    """What comes out; None for a quantity that only goes in."""
    default: Tensor | None = None
    """Stands in where none is given, (...) or (num_envs, ...); None: one must be given."""
    value_bar: Tensor | None = None
    """Adjoint of what goes in, after the backward pass; None without gradients."""
    result_bar: Tensor | None = None
    """Adjoint of what comes out, before the backward pass."""
    gradient_option: str = ""
    """Argument of `make` without which the engine computes no adjoint for this port; empty: it always does."""


class Engine(ABC):
    """A solver of one kind of physics behind ports."""

    ports: tuple[Port, ...]
    fault_names: tuple[str, ...] = ()
    """What may go wrong in an env, besides a state that is not finite."""
    faults: Tensor | None = None
    """What went wrong in the last step, (num_envs, len(fault_names)) int32, 0 or 1."""

    @abstractmethod
    def forward(self, slot: int) -> None:
        """Run the control step in a slot."""

    @abstractmethod
    def backward(self, slot: int) -> None:
        """Run its adjoint."""

    @abstractmethod
    def describe(self) -> str:
        """Size and resolution of one environment, for people."""

    def check(self) -> None:  # noqa: B027 (most engines have nothing to check)
        """Raise if a step so far is not valid; may wait for the device."""

    def follow(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the state has after a step for reasons other than physics, from what went in."""
        return {}

    def named(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state under the names that a checkpoint keeps."""
        return dict(state)

    def from_named(self, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inverse of `named`."""
        return dict(named)


def view(array: wp.array) -> Tensor:
    """A tensor on an engine's memory; adjoints are the engine's business, not torch's."""
    return wp.to_torch(array, requires_grad=False)


def shared(bar: Tensor, num_slots: int) -> Tensor:
    """An adjoint (num_envs, ...) that all slots share, as (slots, num_envs, ...)."""
    return bar.expand(num_slots, *bar.shape)
