"""What a simulated robot understands of joint commands: pure functions from messages to motion."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from policy_runner.contract import ActionSpec

Targets = NDArray[np.float64]
"""(num_joints,) in the order of the contract's joint names: positions [rad or m], or efforts [N m or N]."""


class CommandError(ValueError):
    """A command that cannot be obeyed; the message says why."""


def target_of(message: JointTrajectory | Float64MultiArray | JointState, spec: ActionSpec) -> Targets:
    """Return what joints are commanded to do; of a trajectory, its last point.

    A task whose actions are efforts takes efforts, every other one positions. Raises CommandError when a joint is
    missing or named twice, the length is wrong, or a value is not finite.
    """
    joint_names = spec.joint_names
    quantity = "effort" if spec.mode == "effort" else "position"
    if isinstance(message, JointTrajectory):
        points = list(message.points)
        if not points:
            raise CommandError("joint trajectory without points")
        given = {"effort": points[-1].effort, "position": points[-1].positions}
        return _by_name(list(message.joint_names), given, joint_names, quantity)
    if isinstance(message, JointState):
        given = {"effort": message.effort, "position": message.position}
        return _by_name(list(message.name), given, joint_names, quantity)
    return _checked(list(message.data), joint_names, quantity)


def duration_of(message: JointTrajectory | Float64MultiArray | JointState) -> float:
    """Return how long a command takes by itself [s]: that of a trajectory ends with its last point."""
    points = list(message.points) if isinstance(message, JointTrajectory) else []
    if not points:
        return 0.0
    end = points[-1].time_from_start
    return max(end.sec + 1e-9 * end.nanosec, 0.0)


def action_towards(target: Targets, joint_q: Targets, spec: ActionSpec) -> NDArray[np.float32]:
    """Return the action in [-1, 1] that brings the joints to `target`, or as far as one step allows.

    joint_q: present positions (num_joints,); only actions that add to them look at it.
    """
    scale, offset = np.asarray(spec.scale), np.asarray(spec.offset)
    wanted = target - joint_q if spec.mode == "delta_position" else target
    return np.clip((wanted - offset) / scale, -1.0, 1.0).astype(np.float32)


def holding_target(joint_q: Targets, spec: ActionSpec) -> Targets:
    """Return what keeps the joints where they are as far as it can: their positions, or no effort."""
    return np.zeros(len(spec.joint_names)) if spec.mode == "effort" else joint_q


def _by_name(
    names: Sequence[str],
    given: Mapping[str, Sequence[float]],
    joint_names: Sequence[str],
    quantity: str,
) -> Targets:
    values = given[quantity]
    others = [name for name, numbers in given.items() if len(numbers)]
    if not len(values) and others:
        raise CommandError(f"these joints take {quantity}s; the command has only {others[0]}s")
    if len(names) != len(values):
        raise CommandError(f"{len(names)} joint names, but {len(values)} {quantity}s")
    by_name = dict(zip(names, values, strict=True))
    missing = [name for name in joint_names if name not in by_name]
    if missing:
        raise CommandError(f"joint {missing[0]!r} is missing; commanded: {list(names)}")
    twice = [name for name in joint_names if names.count(name) > 1]
    if twice:
        raise CommandError(f"joint {twice[0]!r} is named twice; commanded: {list(names)}")
    return _checked([by_name[name] for name in joint_names], joint_names, quantity)


def _checked(values: Sequence[float], joint_names: Sequence[str], quantity: str) -> Targets:
    if len(values) != len(joint_names):
        raise CommandError(f"expected {len(joint_names)} {quantity}s {list(joint_names)}, got {len(values)}")
    for name, value in zip(joint_names, values, strict=True):
        if not math.isfinite(value):
            raise CommandError(f"joint {name!r}: {quantity} must be finite, got {value}")
    return np.asarray(values, np.float64)
