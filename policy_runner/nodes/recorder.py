"""Recording for the runner's node: a bag of what came in and went out, or nothing at all where none is wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from policy_runner.contract import PolicyContract
from policy_runner.controller import Controller
from policy_runner.settings import RunnerSettings


class Recorder(Protocol):
    """Told by the node what comes and goes; never makes it wait."""

    @property
    def controller(self) -> Callable[..., Controller]:
        """What makes the controller of this run; takes what `Controller` takes."""
        ...

    def message(self, topic: str, message: Any, *, at_s: float | None = None) -> None:
        """Take a message as it came or went, under its topic as the node names it; at_s: by `clock.now_s`."""
        ...

    def cloud(self, message: Any, *, at_s: float) -> None:
        """Take a cloud as it came; called from a thread of its own."""
        ...

    def remark(self, kind: str, **values: object) -> None:
        """Take something that an operator did."""
        ...

    def status(self) -> dict[str, object]:
        """Return what diagnostics say of the recording, by name."""
        ...

    def close(self) -> None:
        """End the recording."""
        ...


class NoRecorder:
    """Records nothing."""

    controller = Controller

    def message(self, topic: str, message: Any, *, at_s: float | None = None) -> None:
        """Let it pass."""

    def cloud(self, message: Any, *, at_s: float) -> None:
        """Let it pass."""

    def remark(self, kind: str, **values: object) -> None:
        """Let it pass."""

    def status(self) -> dict[str, object]:
        """Return nothing."""
        return {}

    def close(self) -> None:
        """Do nothing."""


def open_recorder(node: Any, contract: PolicyContract, settings: RunnerSettings) -> Recorder:
    """Return what `RunnerSettings.record` asks for.

    Raises:
        SettingsError: a bag cannot be written there.
    """
    if not settings.record:
        return NoRecorder()
    from policy_runner.nodes.bag_recorder import BagRecorder  # here: it takes a third of a second

    return BagRecorder(node, contract, settings)
