"""Where the joints of a robot can be, where they may start, and how far they get between two joint states."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from policy_runner.inputs import JointSample
from policy_runner.limiter import JointLimits

Float64 = NDArray[np.float64]

ROUND_OFF = 1e-3
"""How far outside its limits a joint may always be, as a share of its range."""


class JointDomain:
    """Says what is wrong with joint states that are finite and complete, but cannot be or should not be.

    Every answer names the first joint of which it is true, and is empty where it is true of none.
    """

    def __init__(
        self,
        joint_names: Sequence[str],
        limits: JointLimits,
        start_pose: Sequence[float],
        *,
        margin: float,
        max_jump: float,
        max_start_distance: float,
        control_dt_s: float,
        longest_silence_s: float,
    ) -> None:
        """Take the settings of the same names.

        limits: of commands; margin: how far outside them a joint may be measured [rad or m]; start_pose:
        (num_joints,) [rad or m]; longest_silence_s: no stamp can claim that more time has passed than that.
        """
        self._joint_names, self._limits = tuple(joint_names), limits
        self._start_pose, self._max_start_distance = np.array(start_pose), max_start_distance
        self._max_jump = max_jump
        self._shortest_s, self._longest_s = control_dt_s, longest_silence_s
        self._round_off = ROUND_OFF * (limits.upper - limits.lower)
        self._lowest = limits.lower - margin - self._round_off
        self._highest = limits.upper + margin + self._round_off

    def outside(self, position: Float64) -> str:
        """Say which joint is so far outside its limits that no command can have brought it there."""
        if (self._lowest <= position).all() and (position <= self._highest).all():  # in every tick: be quick
            return ""
        return self._where_outside(position, self._lowest, self._highest)

    def jump(self, last: JointSample, new: JointSample) -> str:
        """Say which joint moved further from one joint state to the next than its top speed explains.

        How much time has passed is what the stamps say, or the arrivals where they say more: a message that
        was delayed gives the next one less time to arrive, but no less time to happen.
        """
        by_stamp_s = min((new.stamp_ns - last.stamp_ns) * 1e-9, self._longest_s)
        elapsed_s = max(new.arrival_s - last.arrival_s, by_stamp_s, self._shortest_s)
        distance = np.abs(new.position - last.position)
        excess = distance - self._limits.max_velocity * elapsed_s
        if (excess <= self._max_jump).all():
            return ""
        index = int(np.argmax(excess))
        return (
            f"joint {self._joint_names[index]!r} moved by {distance[index]:.4f} in {elapsed_s:.3f} s, "
            f"top speed {self._limits.max_velocity[index]:.4f}"
        )

    def beyond_commands(self, position: Float64) -> str:
        """Say which joint is where no command could hold it, so that commands cannot begin there."""
        limits, slack = self._limits, self._round_off
        return self._where_outside(position, limits.lower - slack, limits.upper + slack)

    def far_from_start(self, position: Float64) -> str:
        """Say which joint is too far from the pose in which the policy expects to begin."""
        distance = np.abs(position - self._start_pose)
        if (distance <= self._max_start_distance).all():
            return ""
        index = int(np.argmax(distance))
        return (
            f"joint {self._joint_names[index]!r} is at {position[index]:.4f}, further than max_start_distance "
            f"{self._max_start_distance} from the start pose {self._start_pose[index]:.4f}"
        )

    def _where_outside(self, position: Float64, lowest: Float64, highest: Float64) -> str:
        outside = (position < lowest) | (position > highest)
        if not outside.any():
            return ""
        index = int(np.argmax(outside))
        low, high = self._limits.lower[index], self._limits.upper[index]
        return (
            f"joint {self._joint_names[index]!r} is at {position[index]:.4f}, outside [{low:.4f}, {high:.4f}]"
        )
