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
    default: bool | int | float | str
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
        node.declare_parameter(param.name, values[param.name], descriptor, ignore_override=True)
    return values


def _typed(param: Param, value: Any) -> Any:
    kind = type(param.default)
    if kind is str and isinstance(value, (bool, int, float)):
        return str(
            value
        ).lower()  # `resume:=true` and `out_dir:=7` are text that YAML reads as something else
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        name = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]
        raise ParameterError(f"parameter {param.name}: expected {name}, got {value!r}")
    return value
