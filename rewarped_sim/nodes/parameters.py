"""ROS parameters of a node from a table: described, typed, and read once at start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node

from rewarped_sim.registry import unknown

OF_EVERY_NODE = ("use_sim_time", "start_type_description_service")


class ParameterError(ValueError):
    """A parameter is unknown or has a value of the wrong type; the message names it."""


@dataclass(frozen=True)
class Param:
    """One parameter; the type of its default is its type."""

    name: str
    default: bool | int | float | str | tuple[float, ...]
    """A list has as many numbers as its default."""
    description: str


def declare_params(node: Node, params: Sequence[Param]) -> dict[str, Any]:
    """Declare the parameters, read-only, and return their values by name.

    node: made with `automatically_declare_parameters_from_overrides=True`, so that unknown names show.
    Raises ParameterError for an unknown name, with the nearest known one, and for a value of the wrong type.
    """
    given = {name: parameter.value for name, parameter in node.get_parameters_by_prefix("").items()}
    known = [param.name for param in params]
    for name in given:
        if name not in known and name not in OF_EVERY_NODE and not name.startswith("qos_overrides."):
            raise ParameterError(unknown("parameter", name, known))
    values = {}
    for param in params:
        values[param.name] = _typed(param, given.get(param.name, param.default))
        if param.name in given:  # declared as it came, without description
            node.undeclare_parameter(param.name)
        descriptor = ParameterDescriptor(description=param.description, read_only=True)
        value = values[param.name]
        plain = list(value) if isinstance(value, tuple) else value
        node.declare_parameter(param.name, plain, descriptor, ignore_override=True)
    return values


def _typed(param: Param, value: Any) -> Any:
    if isinstance(param.default, tuple):
        return _typed_tuple(param.name, param.default, value)
    return _typed_value(param.name, type(param.default), value)


def _typed_tuple(name: str, default: tuple[float, ...], value: Any) -> tuple[float, ...]:
    expected = f"a list of {len(default)} numbers"
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence) or len(value) != len(default):
        raise ParameterError(f"parameter {name}: expected {expected}, got {value!r}")
    return tuple(_typed_value(name, float, item) for item in value)


def _typed_value(name: str, kind: type, value: Any) -> Any:
    if kind is str and isinstance(value, (bool, int, float)):
        return str(
            value
        ).lower()  # `resume:=true` and `out_dir:=7` are text that YAML reads as something else
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        expected = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]
        raise ParameterError(f"parameter {name}: expected {expected}, got {value!r}")
    return value
