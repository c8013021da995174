"""ROS nodes as processes, and what applies to all nodes of a scope (`launch_ros.actions`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .actions import Action
from .conditions import IfCondition
from .context import LaunchContext
from .packages import find_executable
from .parameters import ParameterFile, evaluate, existing_parameter_file, flatten
from .process import ExecuteProcess
from .substitutions import SomeText, perform

# Keys of the launch configurations, so that scoped groups undo them like everything else.
NAMESPACE = "ros_namespace"
PARAMETERS = "global_params"
REMAPPINGS = "ros_remaps"

Parameters = Mapping[Any, Any] | ParameterFile | SomeText
"""A dictionary of parameters, or a YAML file of them."""


class Node(ExecuteProcess):
    """Starts a node: an executable that a package installed, or any executable if no package is named."""

    def __init__(
        self,
        *,
        executable: SomeText,
        package: SomeText | None = None,
        name: SomeText | None = None,
        namespace: SomeText | None = None,
        exec_name: SomeText | None = None,
        parameters: Sequence[Parameters] = (),
        remappings: Sequence[tuple[SomeText, SomeText]] = (),
        ros_arguments: Sequence[SomeText] = (),
        arguments: Sequence[SomeText] = (),
        **process: Any,
    ) -> None:
        super().__init__(cmd=[executable, *(arguments or ())], name=exec_name, **process)
        self.package = package
        self.node_name = name
        self.namespace = namespace
        self.parameters = list(parameters or ())
        self.remappings = list(remappings or ())
        self.ros_arguments = list(ros_arguments or ())

    def command(self, context: LaunchContext) -> list[str]:
        """Return the command line: the executable, its own arguments, then those for ROS."""
        executable, *arguments = super().command(context)
        if self.package is not None:
            executable = str(find_executable(perform(context, self.package), executable))
        return [executable, *arguments, "--ros-args", *self._ros_arguments(context)]

    def _ros_arguments(self, context: LaunchContext) -> list[str]:
        words = []
        namespace = self.full_namespace(context)
        name = None if self.node_name is None else perform(context, self.node_name)
        if name is not None:
            words += ["-r", f"__node:={name}"]
        if namespace != "/" or self.namespace is not None:
            words += ["-r", f"__ns:={namespace}"]
        # As `-p`, not as a file: in files a section `/**` can win over the node's own.
        for parameter, value in context.launch_configurations.get(PARAMETERS, ()):
            words += ["-p", f"{parameter}:={_to_yaml(value)}"]
        target = "/**" if name is None else join_namespace(namespace, name)
        for parameters in self.parameters:
            words += ["--params-file", str(_parameter_file(context, parameters, target))]
        for source, destination in (*context.launch_configurations.get(REMAPPINGS, ()), *self.remappings):
            words += ["-r", f"{perform(context, source)}:={perform(context, destination)}"]
        return words + [perform(context, word) for word in self.ros_arguments]

    def full_namespace(self, context: LaunchContext) -> str:
        """Return the node's namespace within that of its scope, with a leading slash."""
        scope = context.launch_configurations.get(NAMESPACE, "")
        return join_namespace(scope, "" if self.namespace is None else perform(context, self.namespace))


def join_namespace(*parts: str) -> str:
    """Join namespaces; one that begins with a slash starts anew."""
    joined = ""
    for part in parts:
        joined = part if part.startswith("/") else f"{joined}/{part}"
    return "/" + "/".join(word for word in joined.split("/") if word)


def _parameter_file(context: LaunchContext, parameters: Parameters, node: str) -> Path:
    if isinstance(parameters, ParameterFile):
        return parameters.path(context)
    if not isinstance(parameters, Mapping):
        return existing_parameter_file(perform(context, parameters))
    content = {node: {"ros__parameters": dict(flatten(context, parameters))}}
    return context.write_parameter_file(yaml.safe_dump(content))


def _to_yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=float("inf")).removesuffix("...\n").strip()


class PushRosNamespace(Action):
    """Puts the nodes to come, within the scope, into a namespace."""

    def __init__(self, namespace: SomeText, *, condition: IfCondition | None = None) -> None:
        super().__init__(condition=condition)
        self.namespace = namespace

    def execute(self, context: LaunchContext) -> None:
        """Append the namespace to that of the scope."""
        scope = context.launch_configurations.get(NAMESPACE, "")
        context.launch_configurations[NAMESPACE] = join_namespace(scope, perform(context, self.namespace))


class SetParameter(Action):
    """Gives the nodes to come, within the scope, a parameter."""

    def __init__(self, name: SomeText, value: Any, *, condition: IfCondition | None = None) -> None:
        super().__init__(condition=condition)
        self.name = name
        self.value = value

    def execute(self, context: LaunchContext) -> None:
        """Append the parameter to those of the scope."""
        inherited = context.launch_configurations.get(PARAMETERS, ())
        own = (perform(context, self.name), evaluate(context, self.value))
        context.launch_configurations[PARAMETERS] = (*inherited, own)


class SetRemap(Action):
    """Gives the nodes to come, within the scope, a remapping."""

    def __init__(self, src: SomeText, dst: SomeText, *, condition: IfCondition | None = None) -> None:
        super().__init__(condition=condition)
        self.src = src
        self.dst = dst

    def execute(self, context: LaunchContext) -> None:
        """Append the remapping to those of the scope."""
        inherited = context.launch_configurations.get(REMAPPINGS, ())
        own = (perform(context, self.src), perform(context, self.dst))
        context.launch_configurations[REMAPPINGS] = (*inherited, own)
