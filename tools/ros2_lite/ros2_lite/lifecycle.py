"""Managed nodes and events for their transitions (the lifecycle part of `launch_ros`)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .actions import Action
from .context import LaunchContext
from .event_handlers import EventHandler, Reaction
from .events import Event
from .log import log
from .nodes import Node, join_namespace
from .process import ProcessPlan
from .substitutions import SomeText, perform

SPIN_PERIOD_S = 0.02
"""How often to look for transitions and answers; both are rare, and neither is urgent."""

CONFIGURE, ACTIVATE = 1, 3
"""lifecycle_msgs/Transition: TRANSITION_CONFIGURE, TRANSITION_ACTIVATE."""


@dataclass(frozen=True, kw_only=True)
class ChangeState(Event):
    """Asks the lifecycle nodes that the matcher accepts to make a transition."""

    lifecycle_node_matcher: Callable[[Action], bool]
    transition_id: int
    """One of lifecycle_msgs/Transition.TRANSITION_*."""


@dataclass(frozen=True, kw_only=True)
class StateTransition(Event):
    """A lifecycle node made a transition."""

    action: Action
    transition: str
    start_state: str
    goal_state: str


class OnStateTransition(EventHandler):
    """Reacts to transitions of a lifecycle node, of any if there is no target."""

    def __init__(
        self,
        *,
        entities: Reaction,
        target_lifecycle_node: LifecycleNode | None = None,
        transition: str | None = None,
        start_state: str | None = None,
        goal_state: str | None = None,
    ) -> None:
        def matches(event: Event) -> bool:
            return (
                isinstance(event, StateTransition)
                and target_lifecycle_node in (None, event.action)
                and transition in (None, event.transition)
                and start_state in (None, event.start_state)
                and goal_state in (None, event.goal_state)
            )

        super().__init__(matcher=matches, entities=entities)


class LifecycleNode(Node):
    """Starts a managed node; with `autostart` the launch configures and activates it."""

    def __init__(self, *, name: SomeText, namespace: SomeText, autostart: bool = False, **node: Any) -> None:
        super().__init__(name=name, namespace=namespace, **node)
        self.autostart = autostart
        self._requests: list[int] = []

    def execute(self, context: LaunchContext) -> None:
        """Start the node, and pass on every `ChangeState` that addresses it."""
        self._full_name = join_namespace(self.full_namespace(context), perform(context, self.node_name or ""))
        context.handlers.append(EventHandler(matcher=self._is_addressed, entities=self._on_change_state))
        if self.autostart:
            self._requests.append(CONFIGURE)
            context.handlers.append(
                OnStateTransition(
                    target_lifecycle_node=self,
                    start_state="configuring",
                    goal_state="inactive",
                    entities=lambda *_: self._requests.append(ACTIVATE),
                )
            )
        super().execute(context)

    def _is_addressed(self, event: Event) -> bool:
        return isinstance(event, ChangeState) and event.lifecycle_node_matcher(self)

    def _on_change_state(self, event: ChangeState, _: LaunchContext) -> None:
        self._requests.append(event.transition_id)

    async def _run(self, plan: ProcessPlan, context: LaunchContext) -> None:
        """Run the process, and speak with the node as long as it lives."""
        manager = asyncio.create_task(self._manage(context))
        try:
            await super()._run(plan, context)
        finally:
            manager.cancel()
            await asyncio.wait((manager,))

    async def _manage(self, context: LaunchContext) -> None:
        with context.failing_on_error():
            await self._speak(context)

    async def _speak(self, context: LaunchContext) -> None:
        """Listen to the node's transitions and pass requests on, one at a time, until cancelled."""
        import rclpy  # here, because only launches with lifecycle nodes need ROS in this process
        from lifecycle_msgs.msg import Transition, TransitionEvent
        from lifecycle_msgs.srv import ChangeState as ChangeStateService
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions

        def on_transition(message: TransitionEvent) -> None:
            context.emit(
                StateTransition(
                    action=self,
                    transition=message.transition.label,
                    start_state=message.start_state.label,
                    goal_state=message.goal_state.label,
                )
            )

        ros = rclpy.Context()
        rclpy.init(context=ros, signal_handler_options=SignalHandlerOptions.NO)
        node = rclpy.create_node(f"launch_ros_{os.getpid()}", context=ros)
        topic = f"{self._full_name}/transition_event"
        node.create_subscription(TransitionEvent, topic, on_transition, 10)
        client = node.create_client(ChangeStateService, f"{self._full_name}/change_state")
        executor = SingleThreadedExecutor(context=ros)
        executor.add_node(node)
        call = None
        try:
            while True:
                executor.spin_once(timeout_sec=0.0)
                # Not before the node's transitions can be heard: the answer to the first may be the second.
                is_ready = client.service_is_ready() and node.count_publishers(topic) > 0
                if call is None and self._requests and is_ready:
                    transition = Transition(id=self._requests.pop(0))
                    call = client.call_async(ChangeStateService.Request(transition=transition))
                if call is not None and call.done():
                    answer = call.result()
                    call = None
                    if answer is None or not answer.success:
                        log("ERROR", "launch", f"'{self._full_name}' refused transition {transition.id}")
                await asyncio.sleep(SPIN_PERIOD_S)
        finally:
            executor.shutdown()
            node.destroy_node()
            rclpy.shutdown(context=ros)
