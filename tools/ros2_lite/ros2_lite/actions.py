"""What a launch description is made of, processes excepted (`launch` and `launch.actions`)."""

from __future__ import annotations

import abc
import asyncio
import importlib.util
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .conditions import IfCondition
from .context import LaunchContext
from .event_handlers import EventHandler
from .events import Event
from .events import Shutdown as ShutdownEvent
from .log import log
from .substitutions import SomeText, perform


class Action(abc.ABC):
    """One thing to do; done only if the condition, where there is one, holds."""

    def __init__(self, *, condition: IfCondition | None = None) -> None:
        self.condition = condition

    def visit(self, context: LaunchContext) -> None:
        """Carry out the action if its condition holds."""
        if self.condition is None or self.condition.evaluate(context):
            context.visit(self.execute(context))

    @abc.abstractmethod
    def execute(self, context: LaunchContext) -> Any:
        """Carry out the action; what it returns is carried out next."""

    def sub_entities(self, context: LaunchContext) -> Sequence[Any]:
        """Return the entities inside, as far as they are known without carrying out the action."""
        return ()


class LaunchDescription:
    """A list of actions."""

    def __init__(self, initial_entities: Iterable[Any] | None = None) -> None:
        self.entities: list[Any] = list(initial_entities or ())

    def add_action(self, action: Any) -> None:
        """Append an action."""
        self.entities.append(action)

    add_entity = add_action

    def visit(self, context: LaunchContext) -> None:
        """Carry out the actions in order."""
        context.visit(self.entities)

    def sub_entities(self, context: LaunchContext) -> Sequence[Any]:
        """Return the actions."""
        return self.entities


class DeclareLaunchArgument(Action):
    """Declares an argument that can be given as `name:=value`."""

    def __init__(
        self,
        name: str,
        *,
        default_value: SomeText | None = None,
        description: str | None = None,
        choices: Sequence[str] | None = None,
        condition: IfCondition | None = None,
    ) -> None:
        super().__init__(condition=condition)
        self.name = name
        self.default_value = default_value
        self.choices = choices
        if choices is None:
            self.description = description or "no description given"
        else:
            self.description = (
                f"{description}. Valid choices are: {choices}" if description else f"one of: {choices}"
            )

    def execute(self, context: LaunchContext) -> None:
        """Set the default unless a value was given; raises `RuntimeError` for a missing or a wrong value."""
        context.declared_arguments.append(self)
        if self.name not in context.launch_configurations:
            if self.default_value is None:
                raise RuntimeError(
                    f"required launch argument '{self.name}' was not given ({self.description})"
                )
            context.launch_configurations[self.name] = perform(context, self.default_value)
        value = context.launch_configurations[self.name]
        if self.choices is not None and value not in self.choices:
            raise RuntimeError(
                f"argument '{self.name}' was given the value '{value}'; valid choices: {list(self.choices)}"
            )


class SetLaunchConfiguration(Action):
    """Sets what LaunchConfiguration reads."""

    def __init__(self, name: SomeText, value: SomeText, *, condition: IfCondition | None = None) -> None:
        super().__init__(condition=condition)
        self.name = name
        self.value = value

    def execute(self, context: LaunchContext) -> None:
        """Set the value."""
        context.launch_configurations[perform(context, self.name)] = perform(context, self.value)


class SetEnvironmentVariable(Action):
    """Sets an environment variable of the processes to come."""

    def __init__(self, name: SomeText, value: SomeText, *, condition: IfCondition | None = None) -> None:
        super().__init__(condition=condition)
        self.name = name
        self.value = value

    def execute(self, context: LaunchContext) -> None:
        """Set the variable."""
        context.environment[perform(context, self.name)] = perform(context, self.value)


class UnsetEnvironmentVariable(Action):
    """Removes an environment variable of the processes to come."""

    def __init__(self, name: SomeText, *, condition: IfCondition | None = None) -> None:
        super().__init__(condition=condition)
        self.name = name

    def execute(self, context: LaunchContext) -> None:
        """Remove the variable, if it is there."""
        context.environment.pop(perform(context, self.name), None)


class LogInfo(Action):
    """Prints a message."""

    def __init__(self, *, msg: SomeText, condition: IfCondition | None = None) -> None:
        super().__init__(condition=condition)
        self.msg = msg

    def execute(self, context: LaunchContext) -> None:
        """Print the message."""
        log("INFO", "launch.user", perform(context, self.msg))


class OpaqueFunction(Action):
    """Calls a function with the context; what it returns is carried out next."""

    def __init__(
        self,
        *,
        function: Callable[..., Any],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        condition: IfCondition | None = None,
    ) -> None:
        super().__init__(condition=condition)
        self.function = function
        self.args = tuple(args)
        self.kwargs = dict(kwargs or {})

    def execute(self, context: LaunchContext) -> Any:
        """Call the function."""
        return self.function(context, *self.args, **self.kwargs)


class GroupAction(Action):
    """A list of actions; if scoped, what they set is undone after them."""

    def __init__(
        self,
        actions: Sequence[Any],
        *,
        scoped: bool = True,
        forwarding: bool = True,
        launch_configurations: Mapping[SomeText, SomeText] | None = None,
        condition: IfCondition | None = None,
    ) -> None:
        super().__init__(condition=condition)
        self.actions = actions
        self.scoped = scoped
        self.forwarding = forwarding
        self.launch_configurations = dict(launch_configurations or {})

    def execute(self, context: LaunchContext) -> None:
        """Carry out the actions. Without forwarding they see only `launch_configurations`."""
        if not self.scoped:
            self._carry_out(context)
            return
        with context.scope():
            self._carry_out(context)

    def _carry_out(self, context: LaunchContext) -> None:
        own = {
            perform(context, name): perform(context, value)
            for name, value in self.launch_configurations.items()
        }
        inherited = context.launch_configurations if self.forwarding or not self.scoped else {}
        context.launch_configurations = {**inherited, **own}
        context.visit(self.actions)

    def sub_entities(self, context: LaunchContext) -> Sequence[Any]:
        """Return the actions."""
        return self.actions


class PythonLaunchDescriptionSource:
    """A Python launch file."""

    def __init__(self, launch_file_path: SomeText) -> None:
        self.launch_file_path = launch_file_path

    def path(self, context: LaunchContext) -> Path:
        """Return the path of the file."""
        return Path(perform(context, self.launch_file_path))


class IncludeLaunchDescription(Action):
    """Carries out another launch file. What it sets stays set, unless a scoped group is around it."""

    def __init__(
        self,
        launch_description_source: PythonLaunchDescriptionSource | SomeText,
        *,
        launch_arguments: Iterable[tuple[SomeText, SomeText]] = (),
        condition: IfCondition | None = None,
    ) -> None:
        super().__init__(condition=condition)
        if not isinstance(launch_description_source, PythonLaunchDescriptionSource):
            launch_description_source = PythonLaunchDescriptionSource(launch_description_source)
        self.source = launch_description_source
        self.launch_arguments = tuple(launch_arguments)

    def execute(self, context: LaunchContext) -> None:
        """Set the arguments, load the file and carry out its description."""
        for name, value in self.launch_arguments:
            context.launch_configurations[perform(context, name)] = perform(context, value)
        path = self.source.path(context)
        with context.reading(path):
            load_launch_file(path).visit(context)

    def sub_entities(self, context: LaunchContext) -> Sequence[Any]:
        """Return the description of the file, less the arguments that are set here."""
        given = {name for name, _ in self.launch_arguments if isinstance(name, str)}
        return [
            entity
            for entity in load_launch_file(self.source.path(context)).entities
            if not (isinstance(entity, DeclareLaunchArgument) and entity.name in given)
        ]


def load_launch_file(path: Path) -> LaunchDescription:
    """Return what `generate_launch_description()` of a Python launch file returns."""
    if not path.is_file():
        raise FileNotFoundError(f"launch file '{path}' does not exist")
    spec = importlib.util.spec_from_file_location(
        f"launch_file_{re.sub(r'[^0-9A-Za-z]', '_', path.stem)}", path
    )
    if spec is None or spec.loader is None:
        raise RuntimeError(f"'{path}' is not a Python launch file; only those can be launched")
    module = importlib.util.module_from_spec(spec)
    write_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # share/ is no place for a cache
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = write_bytecode
    if not hasattr(module, "generate_launch_description"):
        raise RuntimeError(f"launch file '{path}' defines no function generate_launch_description()")
    return module.generate_launch_description()


class TimerAction(Action):
    """Carries out actions after a period [s], unless the launch shuts down before."""

    def __init__(
        self, *, period: float | SomeText, actions: Sequence[Any], condition: IfCondition | None = None
    ) -> None:
        super().__init__(condition=condition)
        self.period = period
        self.actions = actions

    def execute(self, context: LaunchContext) -> None:
        """Start the timer."""
        period = (
            self.period if isinstance(self.period, (int, float)) else float(perform(context, self.period))
        )
        context.start(self._wait(period, context))

    async def _wait(self, period_s: float, context: LaunchContext) -> None:
        try:
            await asyncio.wait_for(context.shutdown_requested.wait(), period_s)
        except asyncio.TimeoutError:
            context.visit(self.actions)


class EmitEvent(Action):
    """Makes an event happen."""

    def __init__(self, *, event: Event, condition: IfCondition | None = None) -> None:
        super().__init__(condition=condition)
        self.event = event

    def execute(self, context: LaunchContext) -> None:
        """Let the event happen."""
        if isinstance(self.event, ShutdownEvent):
            context.request_shutdown(self.event)
        else:
            context.emit(self.event)


class Shutdown(EmitEvent):
    """Shuts the launch down."""

    def __init__(self, *, reason: str = "reason not given", condition: IfCondition | None = None) -> None:
        super().__init__(event=ShutdownEvent(reason=reason), condition=condition)


class RegisterEventHandler(Action):
    """Lets a handler react to events from now on."""

    def __init__(self, event_handler: EventHandler, *, condition: IfCondition | None = None) -> None:
        super().__init__(condition=condition)
        self.event_handler = event_handler

    def execute(self, context: LaunchContext) -> None:
        """Register the handler."""
        context.handlers.append(self.event_handler)
