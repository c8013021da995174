"""What can happen while a launch runs (`launch.events` and `launch.events.process`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .actions import Action


class Event:
    """Something that happened."""


@dataclass(frozen=True, kw_only=True)
class Shutdown(Event):
    """The launch is about to end."""

    reason: str = "reason not given"
    due_to_sigint: bool = False


@dataclass(frozen=True, kw_only=True)
class ProcessEvent(Event):
    """Something happened to a process."""

    action: Action
    """The ExecuteProcess that the process belongs to."""
    name: str
    """Label of the process in the output, such as train_node-1."""
    cmd: list[str]
    cwd: str | None
    env: dict[str, str]
    pid: int


class ProcessStarted(ProcessEvent):
    """A process was started."""


@dataclass(frozen=True, kw_only=True)
class ProcessExited(ProcessEvent):
    """A process ended."""

    returncode: int
    """Exit code; minus the number of the signal that ended it."""


def matches_action(target: Action) -> Callable[[Action], bool]:
    """Return a function that recognises `target`."""
    return lambda action: action is target
