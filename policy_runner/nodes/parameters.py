"""Settings as ROS parameters: one described and bounded parameter for each field of `RunnerSettings`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import Field, fields
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from policy_runner.limiter import UserLimits, tighter
from policy_runner.settings import RunnerSettings, home_position_from, settings_from, user_limits_from
from policy_runner.urdf import urdf_limits

JOINT_LIMITS = "joint_limits."
HOME_POSITION = "home_position."
NOT_OURS = ("use_sim_time", "start_type_description_service", "qos_overrides.")
"""Beginnings of the names of the parameters that every rclpy node has."""


def declare_settings(node: Any) -> None:
    """Check the values that the node was started with and declare every setting, described and bounded.

    node: an rclpy node that has declared its overrides automatically.

    Raises:
        SettingsError: a name is unknown, or a value has the wrong type or size.
    """
    settings = read_settings(node)
    for setting in fields(RunnerSettings):
        if node.has_parameter(setting.name):  # as it came, without descriptor
            node.undeclare_parameter(setting.name)
        value = getattr(settings, setting.name)
        node.declare_parameter(
            setting.name,
            list(value) if isinstance(value, tuple) else value,
            _descriptor(setting),
            ignore_override=True,
        )


def read_settings(node: Any, changes: dict[str, Any] | None = None) -> RunnerSettings:
    """Return the settings by the node's parameters, with `changes` in place of what they name."""
    values = _values(node) | (changes or {})
    user_limits_from(_below(JOINT_LIMITS, values))  # for their complaints
    home_position_from(_below(HOME_POSITION, values))
    by_joint = (JOINT_LIMITS, HOME_POSITION)
    return settings_from(
        {name: value for name, value in values.items() if not name.startswith((*NOT_OURS, *by_joint))}
    )


def read_limits(node: Any, settings: RunnerSettings, joint_names: Sequence[str]) -> dict[str, UserLimits]:
    """Return the operator's limits by joint, and the URDF's where there is one; the tighter ones win.

    The operator's are parameters `joint_limits.<joint>.<limit>`.

    Raises:
        UrdfError: the URDF is refused, or does not fit the joints.
    """
    user = user_limits_from(_below(JOINT_LIMITS, _values(node)))
    if not settings.urdf:
        return user
    urdf = urdf_limits(
        settings.urdf,
        joint_names,
        margin=settings.joint_limit_margin,
        velocity_scale=settings.velocity_scale,
        acceleration_scale=settings.acceleration_scale,
    )
    return tighter(user, urdf)


def read_home_position(node: Any) -> dict[str, float]:
    """Return the home position by joint [rad or m], from parameters `home_position.<joint>`."""
    return home_position_from(_below(HOME_POSITION, _values(node)))


def _values(node: Any) -> dict[str, Any]:
    return {name: parameter.value for name, parameter in node.get_parameters_by_prefix("").items()}


def _below(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _descriptor(setting: Field[Any]) -> ParameterDescriptor:
    meta = setting.metadata
    descriptor = ParameterDescriptor(
        description=meta["description"],
        read_only=meta["read_only"],
        additional_constraints=f"one of {list(meta['choices'])}" if meta["choices"] else "",
    )
    if meta["low"] is not None and isinstance(setting.default, float):
        descriptor.floating_point_range = [FloatingPointRange(from_value=meta["low"], to_value=meta["high"])]
    elif meta["low"] is not None:
        descriptor.integer_range = [IntegerRange(from_value=meta["low"], to_value=meta["high"], step=1)]
    return descriptor
