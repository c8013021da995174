"""Turn actions into commands that never leave the limits, however wild the actions are.

Every command respects, on the commanded signal itself: joint position limits, top speed, and, where one is
given, top acceleration, in this order of precedence where they conflict. While the speed allows it, there is
always room to stop before a position limit at the given acceleration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from policy_runner.contract import ActionSpec

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

CUT_TOLERANCE = 1e-9
"""What round-off takes away is no cut [rad, m, N m or N]."""


class LimitError(ValueError):
    """Limits that leave no room, or belong to no joint; the message names the joint."""


@dataclass(frozen=True, kw_only=True)
class UserLimits:
    """What an operator, or a URDF, allows one joint on top of the contract; the defaults allow everything."""

    min_position: float = -np.inf
    """[rad or m]."""
    max_position: float = np.inf
    """[rad or m]."""
    max_velocity: float = np.inf
    """[rad/s or m/s], > 0."""
    max_acceleration: float = np.inf
    """[rad/s^2 or m/s^2], > 0."""
    max_effort: float = np.inf
    """[N m or N], > 0; of policies that command efforts."""


@dataclass(frozen=True, kw_only=True)
class JointLimits:
    """Limits of all joints, in the order of the contract's joint names; each field is (num_joints,)."""

    lower: Float64
    """Lowest commanded position [rad or m]."""
    upper: Float64
    """Highest commanded position [rad or m]."""
    max_velocity: Float64
    """[rad/s or m/s]."""
    max_acceleration: Float64
    """[rad/s^2 or m/s^2]; infinite where none is set."""
    max_effort: Float64
    """[N m or N]; likewise."""


def tighter(first: Mapping[str, UserLimits], second: Mapping[str, UserLimits]) -> dict[str, UserLimits]:
    """Return what both allow, joint by joint."""
    everything = UserLimits()
    pairs = {
        joint: (first.get(joint, everything), second.get(joint, everything)) for joint in {**first, **second}
    }
    return {
        joint: UserLimits(
            min_position=max(a.min_position, b.min_position),
            max_position=min(a.max_position, b.max_position),
            max_velocity=min(a.max_velocity, b.max_velocity),
            max_acceleration=min(a.max_acceleration, b.max_acceleration),
            max_effort=min(a.max_effort, b.max_effort),
        )
        for joint, (a, b) in pairs.items()
    }


def tightest_limits(action: ActionSpec, user: Mapping[str, UserLimits]) -> JointLimits:
    """Return the contract's limits, narrowed by the operator's, joint by joint.

    Raises:
        LimitError: a name is not one of the contract's joints, or the limits leave a joint no room.
    """
    positive = ("max_velocity", "max_acceleration", *(("max_effort",) if action.mode == "effort" else ()))
    for joint, limits in user.items():
        if joint not in action.joint_names:
            raise LimitError(
                f"joint_limits.{joint}: no such joint; the policy commands {list(action.joint_names)}"
            )
        for name in positive:
            if not getattr(limits, name) > 0.0:
                raise LimitError(f"joint_limits.{joint}.{name}: must be > 0, got {getattr(limits, name)}")
    by_joint = [user.get(joint, UserLimits()) for joint in action.joint_names]
    lower = np.maximum(action.lower, [limits.min_position for limits in by_joint])
    upper = np.minimum(action.upper, [limits.max_position for limits in by_joint])
    for joint, low, high in zip(action.joint_names, lower, upper, strict=True):
        if not low < high:
            raise LimitError(
                f"joint_limits.{joint}: no room between {low} and {high}, contract and URDF included"
            )
    return JointLimits(
        lower=lower,
        upper=upper,
        max_velocity=np.minimum(action.max_velocity, [limits.max_velocity for limits in by_joint]),
        max_acceleration=np.array([limits.max_acceleration for limits in by_joint]),
        max_effort=np.array([limits.max_effort for limits in by_joint]),
    )


class CommandLimiter(Protocol):
    """From actions to commands, one control step at a time."""

    def start(self, measured: Float64, *, near: float = 0.0) -> None:
        """Begin at rest at the measured joint positions (num_joints,) [rad or m].

        near: if no joint is further than this from the last command [rad or m], begin there, without a jump.
        """
        ...

    def follow(self, action: Float64, measured: Float64, authority: float) -> Float64:
        """Return the command (num_joints,) for an action in [-1, 1].

        authority: in [0, 1], the share of the top speed (or effort) that may be used now; see ramp-in.
        """
        ...

    def brake(self) -> Float64:
        """Return the next command on the way to rest, and the command of rest once there."""
        ...

    def halt(self) -> Float64:
        """Return the command of rest at once, whatever the acceleration."""
        ...

    @property
    def at_rest(self) -> bool:
        """Whether the last command was one of rest."""
        ...

    @property
    def cut(self) -> Bool:
        """Which joints (num_joints,) the last `follow` gave less than the action asked for."""
        ...


def make_limiter(
    action: ActionSpec, limits: JointLimits, *, control_dt_s: float, stop_time_s: float
) -> CommandLimiter:
    """Choose the limiter for the contract's action mode.

    stop_time_s: braking takes a joint from its top speed, or effort, to rest in this time.
    """
    if action.mode == "effort":
        return EffortLimiter(action, limits.max_effort, control_dt_s=control_dt_s, stop_time_s=stop_time_s)
    motion = _Motion(limits, control_dt_s=control_dt_s, stop_time_s=stop_time_s)
    if action.mode == "velocity":
        return VelocityLimiter(action, motion, control_dt_s=control_dt_s)
    return PositionLimiter(action, motion)


class PositionLimiter:
    """Position commands, for the modes `position` and `delta_position`."""

    def __init__(self, action: ActionSpec, motion: _Motion) -> None:
        self._offset, self._scale = np.array(action.offset), np.array(action.scale)
        self._relative = action.mode == "delta_position"
        self._motion = motion

    def start(self, measured: Float64, *, near: float = 0.0) -> None:
        """Begin at rest at the last command if the robot is near it, else where the robot is."""
        last = self._motion.position
        self._motion.start(last if (np.abs(measured - last) <= near).all() else measured)

    def follow(self, action: Float64, measured: Float64, authority: float) -> Float64:
        """Return positions (num_joints,) [rad or m]."""
        target = self._offset + self._scale * action
        if self._relative:  # a motion: taken as it is, the next action will correct it
            self._motion.advance(measured + target - self._motion.position, authority)
        else:  # a place: approached so that the joint can stop there
            self._motion.advance_to(target, authority)
        return self._motion.position

    def brake(self) -> Float64:
        """Return positions (num_joints,) [rad or m] that slow down and then stand still."""
        self._motion.brake()
        return self._motion.position

    def halt(self) -> Float64:
        """Return the last positions (num_joints,) [rad or m] once more."""
        self._motion.halt()
        return self._motion.position

    def approach(self, target: Float64, authority: float) -> Float64:
        """Return positions (num_joints,) [rad or m] on the way to a place, as gently as braking is."""
        self._motion.approach(target, authority)
        return self._motion.position

    @property
    def at_rest(self) -> bool:
        """Whether the commanded position stood still in the last step."""
        return self._motion.at_rest

    @property
    def cut(self) -> Bool:
        """Which joints (num_joints,) moved less far than the action asked for."""
        return self._motion.cut


class VelocityLimiter:
    """Velocity commands; a joint close to a position limit may only move away from it."""

    def __init__(self, action: ActionSpec, motion: _Motion, *, control_dt_s: float) -> None:
        self._offset, self._scale = np.array(action.offset), np.array(action.scale)
        self._motion = motion
        self._dt_s = control_dt_s

    def start(self, measured: Float64, *, near: float = 0.0) -> None:
        """Begin at rest where the robot is."""
        self._motion.start(measured)

    def follow(self, action: Float64, measured: Float64, authority: float) -> Float64:
        """Return velocities (num_joints,) [rad/s or m/s]."""
        self._motion.position = measured.copy()
        self._motion.advance((self._offset + self._scale * action) * self._dt_s, authority)
        return self._motion.step / self._dt_s

    def brake(self) -> Float64:
        """Return velocities (num_joints,) [rad/s or m/s] that go down to zero."""
        self._motion.brake()
        return self._motion.step / self._dt_s

    def halt(self) -> Float64:
        """Return zero."""
        self._motion.halt()
        return self._motion.step

    @property
    def at_rest(self) -> bool:
        """Whether the last command was zero."""
        return self._motion.at_rest

    @property
    def cut(self) -> Bool:
        """Which joints (num_joints,) move less fast than the action asked for."""
        return self._motion.cut


class EffortLimiter:
    """Effort commands within offset +- scale and the joints' top efforts; rest is zero effort."""

    def __init__(
        self, action: ActionSpec, max_effort: Float64, *, control_dt_s: float, stop_time_s: float
    ) -> None:
        self._offset, self._scale = np.array(action.offset), np.array(action.scale)
        self._max_effort = max_effort
        top = np.minimum(np.abs(self._offset) + np.abs(self._scale), max_effort)
        self._decay = top * control_dt_s / stop_time_s
        self._effort = np.zeros(action.size)
        self.cut: Bool = np.zeros(action.size, np.bool_)
        """Which joints the last `follow` gave less effort than the action asked for."""

    def start(self, measured: Float64, *, near: float = 0.0) -> None:
        """Begin with zero effort."""
        self._effort = np.zeros_like(self._effort)

    def follow(self, action: Float64, measured: Float64, authority: float) -> Float64:
        """Return efforts (num_joints,) [N m or N]."""
        effort = authority * (self._offset + self._scale * np.clip(action, -1.0, 1.0))
        self._effort = np.clip(effort, -self._max_effort, self._max_effort)
        self.cut = np.abs(self._offset + self._scale * action - self._effort) > CUT_TOLERANCE
        return self._effort

    def brake(self) -> Float64:
        """Return efforts (num_joints,) [N m or N] that go down to zero."""
        self._effort = np.sign(self._effort) * np.maximum(np.abs(self._effort) - self._decay, 0.0)
        return self._effort

    def halt(self) -> Float64:
        """Return zero effort."""
        self._effort = np.zeros_like(self._effort)
        return self._effort

    @property
    def at_rest(self) -> bool:
        """Whether the last command was zero effort."""
        return not self._effort.any()


class _Motion:
    """A commanded position per joint and its motion per control step, within limits.

    `step` is the displacement of the last control step, that is, velocity * dt; a change of `step` is
    acceleration * dt^2. Working in displacements keeps the stopping distance an exact sum.
    """

    def __init__(self, limits: JointLimits, *, control_dt_s: float, stop_time_s: float) -> None:
        self._limits = limits
        self._max_step = limits.max_velocity * control_dt_s
        self._max_change = limits.max_acceleration * control_dt_s**2
        self._stop_change = np.minimum(self._max_change, self._max_step * control_dt_s / stop_time_s)
        self.position = np.zeros_like(self._max_step)
        self.step = np.zeros_like(self._max_step)
        self.cut: Bool = np.zeros(self._max_step.shape, np.bool_)

    def start(self, position: Float64) -> None:
        self.position = np.clip(position, self._limits.lower, self._limits.upper)
        self.step = np.zeros_like(self.position)

    def advance(self, step: Float64, authority: float) -> None:
        """Move by `step`, or as near to that as the limits allow."""
        self._advance(step, authority, self._max_change)
        self.cut = np.abs(step - self.step) > CUT_TOLERANCE

    def advance_to(self, target: Float64, authority: float) -> None:
        """Move towards `target`, no faster than allows to stop there."""
        self._advance(self._step_to(target, self._max_change), authority, self._max_change)
        self.cut = np.abs(target - self.position) > CUT_TOLERANCE

    def approach(self, target: Float64, authority: float) -> None:
        """Move towards `target` with no more acceleration than braking takes."""
        self._advance(self._step_to(target, self._stop_change), authority, self._stop_change)

    def halt(self) -> None:
        """Stand still from now on."""
        self.step = np.zeros_like(self.step)

    def brake(self) -> None:
        """Slow down; the joints that are fast and those that are slow decelerate alike."""
        self._apply(np.sign(self.step) * np.maximum(np.abs(self.step) - self._stop_change, 0.0))

    @property
    def at_rest(self) -> bool:
        return not self.step.any()

    def _step_to(self, target: Float64, change: Float64) -> Float64:
        distance = np.clip(target, self._limits.lower, self._limits.upper) - self.position
        return np.sign(distance) * _stoppable(np.abs(distance), change)

    def _advance(self, step: Float64, authority: float, change: Float64) -> None:
        top = authority * self._max_step
        step = np.clip(step, -top, top)
        self._apply(np.clip(step, self.step - change, self.step + change))

    def _apply(self, step: Float64) -> None:
        low, high = self._limits.lower, self._limits.upper
        room_below = _stoppable(np.maximum(self.position - low, 0.0), self._max_change)
        room_above = _stoppable(np.maximum(high - self.position, 0.0), self._max_change)
        self.step = np.clip(step, -room_below, room_above)
        self.position = np.clip(self.position + self.step, low, high)


def _stoppable(distance: Float64, change: Float64) -> Float64:
    """Return the largest step from which a joint stops within `distance`, steps shrinking by `change` each.

    A step s takes s + (s - c) + (s - 2c) + ... to stop; with n terms that are positive it is n s - c n (n -
    1) / 2.
    """
    finite = np.where(np.isfinite(change), change, 1.0)
    terms = np.maximum(np.ceil((np.sqrt(1.0 + 8.0 * distance / finite) - 1.0) / 2.0), 1.0)
    step = distance / terms + finite * (terms - 1.0) / 2.0
    return np.where(np.isfinite(change), step, distance)
