"""What the runner knows of the world at one instant: joints, cloud and goal, each with its two times.

`stamp_ns` is what the sender wrote; it is compared with other stamps only. `arrival_s` is `clock.now_s` when
the message came; staleness is judged by it alone, so that no clock step can hide a silent sensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


class JointStateError(ValueError):
    """A joint state that cannot be used; the message names the joint or the field."""


class GoalError(ValueError):
    """A goal that cannot be used."""


@dataclass(frozen=True, kw_only=True)
class JointSample:
    """Joint state in the order of the contract's joint names."""

    position: Float64
    """(num_joints,) [rad or m]."""
    velocity: Float64 | None
    """(num_joints,) [rad/s or m/s]; None where the policy does not use it."""
    stamp_ns: int
    arrival_s: float


@dataclass(frozen=True, kw_only=True)
class CloudSample:
    """Points as the network takes them, before the term's scale."""

    points: NDArray[np.float32]
    """(num_points, 3) [m] in the contract's frame."""
    stamp_ns: int
    arrival_s: float


@dataclass(frozen=True, kw_only=True)
class GoalSample:
    """Where the operator wants something to be; it stands until another one comes."""

    position: Float64
    """(3,) [m] in the frame of the goal term."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "position", np.asarray(self.position, np.float64))
        if self.position.shape != (3,):
            raise GoalError(f"goal: expected x y z, got {self.position.tolist()}")
        if not np.isfinite(self.position).all():
            raise GoalError(f"goal is not finite: {self.position.tolist()}")


class JointReader:
    """Picks the policy's joints out of joint states that may hold more joints, in any order."""

    def __init__(self, joint_names: Sequence[str], *, needs_velocity: bool) -> None:
        self._joint_names = tuple(joint_names)
        self._needs_velocity = needs_velocity
        self._names: tuple[str, ...] | None = None
        self._rows: list[int] = []
        self._stamp_ns = 0

    def read(
        self,
        names: Sequence[str],
        position: Sequence[float],
        velocity: Sequence[float],
        *,
        stamp_ns: int,
        arrival_s: float,
    ) -> JointSample:
        """Return the policy's joints in the policy's order.

        names, position, velocity: as in `sensor_msgs/JointState`.

        Raises:
            JointStateError: a joint is missing or named twice, lengths differ, velocities are needed and
                absent, a value of the policy's joints is not finite, or the stamp is that of the last sample: to
                the arrival-time watchdog, a driver that repeats what it knew last is one that is silent.
        """
        if tuple(names) != self._names:  # names rarely change between messages
            self._rows = self._find(names)
            self._names = tuple(names)
        sample = JointSample(
            position=self._pick("position", position, len(names)),
            velocity=self._pick("velocity", velocity, len(names)) if self._needs_velocity else None,
            stamp_ns=stamp_ns,
            arrival_s=arrival_s,
        )
        if stamp_ns and stamp_ns == self._stamp_ns:
            raise JointStateError(f"stamp {stamp_ns} ns: the same as that of the last joint state")
        self._stamp_ns = stamp_ns
        return sample

    def _find(self, names: Sequence[str]) -> list[int]:
        found = list(names)
        for joint in self._joint_names:
            if found.count(joint) != 1:
                what = "missing" if joint not in found else "named twice"
                raise JointStateError(f"joint {joint!r} is {what}; joint state has {found}")
        return [found.index(joint) for joint in self._joint_names]

    def _pick(self, what: str, values: Sequence[float], count: int) -> Float64:
        if len(values) != count:
            raise JointStateError(f"{what}: expected {count} values, one a name, got {len(values)}")
        picked = np.asarray(values, np.float64)[self._rows]
        if not np.isfinite(picked).all():
            joint = self._joint_names[int(np.argmin(np.isfinite(picked)))]
            raise JointStateError(f"{what} of joint {joint!r} is not finite")
        return picked
