"""Node parameters made of values and substitutions (`launch_ros.parameter_descriptions`)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from .context import LaunchContext
from .substitutions import (
    EnvironmentVariable,
    FindPackageShare,
    LaunchConfiguration,
    SomeText,
    Substitution,
    perform,
    to_bool,
)


class ParameterValue:
    """A parameter whose text is converted to `value_type`, or parsed as YAML where that is None."""

    def __init__(self, value: Any, *, value_type: Any = None) -> None:
        self.value = value
        self.value_type = value_type

    def evaluate(self, context: LaunchContext) -> Any:
        """Return the value; raises `ValueError` if the text is not of the type."""
        if not _is_text(self.value):
            return evaluate(context, self.value)
        text = perform(context, self.value)
        if self.value_type is str:
            return text
        value = yaml.safe_load(text)
        if self.value_type is float and type(value) is int:
            return float(value)
        if self.value_type in (bool, int, float) and type(value) is not self.value_type:
            raise ValueError(f"expected a parameter of type {self.value_type.__name__}, got '{text}'")
        return value


class ParameterFile:
    """A YAML file of parameters.

    With `allow_substs`, `$(var name)`, `$(env NAME)` and `$(find-pkg-share PACKAGE)` in it are replaced.
    """

    def __init__(self, param_file: SomeText, *, allow_substs: bool | SomeText = False) -> None:
        self.param_file = param_file
        self.allow_substs = allow_substs

    def path(self, context: LaunchContext) -> Path:
        """Return the path of the file to give to the node; raises `FileNotFoundError` if there is none."""
        path = existing_parameter_file(perform(context, self.param_file))
        allow = self.allow_substs
        if not (allow if isinstance(allow, bool) else to_bool(perform(context, allow))):
            return path
        text = re.sub(
            r"\$\(([a-z-]+) +([^()]+?) *\)", lambda match: _replace(match, context), path.read_text()
        )
        return context.write_parameter_file(text)


def _replace(match: re.Match[str], context: LaunchContext) -> str:
    kinds = {"var": LaunchConfiguration, "env": EnvironmentVariable, "find-pkg-share": FindPackageShare}
    kind, operand = match.groups()
    if kind not in kinds:
        raise ValueError(f"unknown substitution '{match[0]}' in a parameter file; known: {sorted(kinds)}")
    return kinds[kind](operand).perform(context)


def existing_parameter_file(path: str) -> Path:
    """Return the path; raises `FileNotFoundError` if there is no such file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"parameter file '{path}' does not exist")
    return Path(path)


def flatten(
    context: LaunchContext, parameters: Mapping[Any, Any], parent: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of every parameter; the names of nested ones are joined with dots."""
    for key, value in parameters.items():
        name = parent + perform(context, key)
        if isinstance(value, Mapping):
            yield from flatten(context, value, f"{name}.")
        else:
            yield name, evaluate(context, value)


def evaluate(context: LaunchContext, value: Any) -> Any:
    """Return the Python value of a parameter.

    Plain values stay what they are. A substitution, or a list with one among its parts, is one text, parsed
    as YAML; so a list of parameters each made of substitutions is a list of lists.
    """
    if isinstance(value, ParameterValue):
        return value.evaluate(context)
    if isinstance(value, Substitution) or (isinstance(value, (list, tuple)) and _has_substitution(value)):
        return yaml.safe_load(perform(context, value))
    if isinstance(value, (list, tuple)):
        return [evaluate(context, item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


def _has_substitution(values: list[Any] | tuple[Any, ...]) -> bool:
    return any(isinstance(value, Substitution) for value in values)


def _is_text(value: Any) -> bool:
    return isinstance(value, (str, Path, Substitution)) or (
        isinstance(value, (list, tuple))
        and (_has_substitution(value) or all(isinstance(v, str) for v in value))
    )
