"""Modules `launch` and `launch_ros` for launch files to import, within this process only."""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any

from . import (
    actions,
    conditions,
    context,
    event_handlers,
    events,
    lifecycle,
    nodes,
    parameters,
    process,
    substitutions,
)

OFFERED: dict[str, tuple[Any, ...]] = {
    "launch": (
        actions.Action,
        actions.LaunchDescription,
        context.LaunchContext,
        event_handlers.EventHandler,
        events.Event,
        substitutions.Substitution,
    ),
    "launch.actions": (
        actions.DeclareLaunchArgument,
        actions.EmitEvent,
        actions.GroupAction,
        actions.IncludeLaunchDescription,
        actions.LogInfo,
        actions.OpaqueFunction,
        actions.RegisterEventHandler,
        actions.SetEnvironmentVariable,
        actions.SetLaunchConfiguration,
        actions.Shutdown,
        actions.TimerAction,
        actions.UnsetEnvironmentVariable,
        process.ExecuteProcess,
    ),
    "launch.conditions": (conditions.IfCondition, conditions.UnlessCondition),
    "launch.event_handlers": (
        event_handlers.OnProcessExit,
        event_handlers.OnProcessStart,
        event_handlers.OnShutdown,
    ),
    "launch.events": (events.Shutdown, events.matches_action),
    "launch.events.process": (events.ProcessExited, events.ProcessStarted),
    "launch.launch_description_sources": (actions.PythonLaunchDescriptionSource,),
    "launch.substitutions": (
        substitutions.AndSubstitution,
        substitutions.Command,
        substitutions.EnvironmentVariable,
        substitutions.EqualsSubstitution,
        substitutions.FindExecutable,
        substitutions.LaunchConfiguration,
        substitutions.NotEqualsSubstitution,
        substitutions.NotSubstitution,
        substitutions.OrSubstitution,
        substitutions.PathJoinSubstitution,
        substitutions.PythonExpression,
        substitutions.TextSubstitution,
        substitutions.ThisLaunchFile,
        substitutions.ThisLaunchFileDir,
    ),
    "launch_ros": (),
    "launch_ros.actions": (
        lifecycle.LifecycleNode,
        nodes.Node,
        nodes.PushRosNamespace,
        nodes.SetParameter,
        nodes.SetRemap,
    ),
    "launch_ros.event_handlers": (lifecycle.OnStateTransition,),
    "launch_ros.events": (),
    "launch_ros.events.lifecycle": (lifecycle.ChangeState, lifecycle.StateTransition),
    "launch_ros.parameter_descriptions": (parameters.ParameterFile, parameters.ParameterValue),
    "launch_ros.substitutions": (substitutions.FindPackagePrefix, substitutions.FindPackageShare),
}
"""Every module and what is in it; what is not here is not in this part of the launch interface."""


def offer_modules() -> None:
    """Make the modules importable; raises `RuntimeError` where the real ones are installed."""
    for package in ("launch", "launch_ros"):
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:  # without origin it is a plain folder of that name
            raise RuntimeError(
                f"the real package '{package}' is installed in {spec.origin}, but its `ros2` is not on the "
                "PATH: source the setup.bash of that ROS installation"
            )
    for name, objects in OFFERED.items():
        sys.modules[name] = _module(name, objects)
    for name, module in list(sys.modules.items()):
        parent, _, child = name.rpartition(".")
        if name in OFFERED and parent:
            setattr(sys.modules[parent], child, module)


def _module(name: str, objects: tuple[Any, ...]) -> types.ModuleType:
    def missing(attribute: str) -> Any:
        if attribute.startswith("__") or f"{name}.{attribute}" in OFFERED:
            raise AttributeError(attribute)
        raise ImportError(
            f"{name}.{attribute} is not among what ros2_lite offers; it takes a ROS 2 installation"
        )

    module = types.ModuleType(name, f"The part of `{name}` that ros2_lite offers.")
    module.__path__ = []
    for offered in objects:
        setattr(module, offered.__name__, offered)
    module.__getattr__ = missing  # type: ignore[method-assign]
    return module
