"""What to do when something happens (`launch.event_handlers`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .context import LaunchContext
from .events import Event, ProcessEvent, ProcessExited, ProcessStarted, Shutdown

if TYPE_CHECKING:
    from .actions import Action

Reaction = Any
"""Actions to carry out, or a function of the event and the context that returns them or None."""


class EventHandler:
    """Reacts to the events that `matcher` accepts."""

    def __init__(self, *, matcher: Callable[[Event], bool], entities: Reaction) -> None:
        self._matcher = matcher
        self._entities = entities

    def wants(self, event: Event) -> bool:
        """Return whether this handler reacts to the event."""
        return self._matcher(event)

    def react(self, event: Event, context: LaunchContext) -> Any:
        """Return the actions to carry out."""
        return self._entities(event, context) if callable(self._entities) else self._entities


class _OnProcess(EventHandler):
    def __init__(
        self,
        kind: type[ProcessEvent],
        target: Action | Callable[[Action], bool] | None,
        entities: Reaction,
    ) -> None:
        def matches(event: Event) -> bool:
            if not isinstance(event, kind):
                return False
            return target is None or event.action is target or (callable(target) and target(event.action))

        super().__init__(matcher=matches, entities=entities)


class OnProcessStart(_OnProcess):
    """Reacts to the start of a process; of any process if there is no target."""

    def __init__(
        self, *, target_action: Action | Callable[[Action], bool] | None = None, on_start: Reaction
    ) -> None:
        super().__init__(ProcessStarted, target_action, on_start)


class OnProcessExit(_OnProcess):
    """Reacts to the end of a process; of any process if there is no target."""

    def __init__(
        self, *, target_action: Action | Callable[[Action], bool] | None = None, on_exit: Reaction
    ) -> None:
        super().__init__(ProcessExited, target_action, on_exit)


class OnShutdown(EventHandler):
    """Reacts to the shutdown of the launch, before processes are asked to end."""

    def __init__(self, *, on_shutdown: Reaction) -> None:
        super().__init__(matcher=lambda event: isinstance(event, Shutdown), entities=on_shutdown)
