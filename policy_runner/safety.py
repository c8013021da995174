"""When the policy may command the robot, and when not: a state machine with no robot, message or clock in it.

    IDLE --arm--> RUNNING --fault, disarm--> HOLDING --arm--> RUNNING
      any --stop--> STOPPED --reset_stop--> HOLDING, or IDLE where nothing was ever commanded

IDLE publishes nothing. RUNNING follows the policy. HOLDING and STOPPED decelerate and then keep publishing
the command of rest, because a controller that is no longer spoken to may go on with what it heard last.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum


class Mode(Enum):
    """What the runner does with the robot."""

    IDLE = "idle"
    RUNNING = "running"
    HOLDING = "holding"
    STOPPED = "stopped"


class HoldReason(Enum):
    """Why the policy is not in command."""

    JOINT_STATE_STALE = "joint_state_stale"
    CLOUD_STALE = "cloud_stale"
    GOAL_MISSING = "goal_missing"
    INPUT_SKEW = "input_skew"
    STALLED = "stalled"
    """This process, or its clock, was not there for so long that everything counts as stale."""
    DEADLINE_MISSED = "deadline_missed"
    INFERENCE_LATE = "inference_late"
    """The network did not answer within its budget, or still does not."""
    POLICY_FAULT = "policy_fault"
    """The network failed, or gave what no command may be computed from."""
    JOINT_JUMP = "joint_jump"
    """A joint moved further between two states than it can, or left its limits."""
    OTHER_PUBLISHER = "other_publisher"
    """Another node publishes on the command topic."""
    NO_LISTENER = "no_listener"
    """Nobody subscribes to the command topic."""
    DISARMED = "disarmed"
    STOPPED = "stopped"


RECOVERABLE = frozenset(
    {
        HoldReason.JOINT_STATE_STALE,
        HoldReason.CLOUD_STALE,
        HoldReason.GOAL_MISSING,
        HoldReason.INPUT_SKEW,
        HoldReason.STALLED,
        HoldReason.DEADLINE_MISSED,
        HoldReason.INFERENCE_LATE,
    }
)
"""Reasons that pass by themselves; the others always need an operator."""


HOMEWARD = frozenset(
    {
        HoldReason.CLOUD_STALE,
        HoldReason.GOAL_MISSING,
        HoldReason.DEADLINE_MISSED,
        HoldReason.INFERENCE_LATE,
        HoldReason.POLICY_FAULT,
    }
)
"""Reasons after which a robot may go home: what failed is the policy, or what only the policy needs."""


class ArmError(RuntimeError):
    """Why the policy may not take command now."""


class Supervisor:
    """Decides, once a tick, whether the policy is in command. Times are of one monotonic clock [s]."""

    def __init__(self, *, ramp_in_s: float, restart_after_stale: bool) -> None:
        """Start idle.

        ramp_in_s: time from taking command to full authority.
        restart_after_stale: take command again, by itself, once a recoverable reason has passed.
        """
        self._ramp_in_s = ramp_in_s
        self._restart_after_stale = restart_after_stale
        self.commanding = False
        """Whether the policy was ever in command; from then on every tick has a command."""
        self._armed_at_s = 0.0
        self.mode = Mode.IDLE
        self.reason: HoldReason | None = None
        self.holds: Counter[HoldReason] = Counter()
        """How often each reason has taken the command from the policy."""

    @property
    def goes_on_by_itself(self) -> bool:
        """Whether this hold ends without an operator, once its reason has passed."""
        return self.mode is Mode.HOLDING and self._restart_after_stale and self.reason in RECOVERABLE

    def arm(self, now_s: float, *, fault: HoldReason | None, at_rest: bool, detail: str = "") -> None:
        """Put the policy in command; nothing changes where it is already.

        fault: what is wrong at this moment, if anything, and detail: how one can tell; at_rest: whether the
        last command was one of rest.

        Raises:
            ArmError: the stop is latched, something is wrong, or the robot still decelerates.
        """
        if self.mode is Mode.STOPPED:
            raise ArmError("stopped; call ~/reset_stop first")
        if self.mode is Mode.RUNNING:
            return
        if fault is not None:
            raise ArmError(f"{fault.value}: {detail}" if detail else fault.value)
        if not at_rest:
            raise ArmError("still decelerating, or on the way home")
        self._run(now_s)

    def disarm(self) -> None:
        """Take the command from the policy and hold."""
        if self.mode is Mode.RUNNING:
            self._hold(HoldReason.DISARMED)
        elif self.mode is Mode.HOLDING:  # nor may it come back by itself
            self.reason = HoldReason.DISARMED

    def hold(self, reason: HoldReason) -> None:
        """Take the command from the policy, or go on holding for another reason."""
        if self.mode in (Mode.RUNNING, Mode.HOLDING):
            self._hold(reason)

    def stop(self) -> None:
        """Hold, and stay so until `reset_stop`."""
        if self.mode is not Mode.STOPPED:
            self._hold(HoldReason.STOPPED)
            self.mode = Mode.STOPPED

    def reset_stop(self) -> None:
        """Allow arming again."""
        if self.mode is Mode.STOPPED:
            self.mode = Mode.HOLDING if self.commanding else Mode.IDLE
            self.reason = HoldReason.DISARMED

    def release(self) -> None:
        """Let go of the robot: nothing is commanded until the policy is armed anew. A latched stop stays."""
        self.commanding = False
        if self.mode is not Mode.STOPPED:
            self.mode, self.reason = Mode.IDLE, None

    def update(self, now_s: float, *, fault: HoldReason | None, at_rest: bool) -> Mode:
        """Take this tick's fault into account and return the mode for this tick."""
        if self.mode is Mode.RUNNING and fault is not None:
            self._hold(fault)
        elif self.goes_on_by_itself:
            if fault is None and at_rest:
                self._run(now_s)
            elif fault is not None and fault not in RECOVERABLE:  # an operator must have a look after all
                self._hold(fault)
        return self.mode

    def authority(self, now_s: float) -> float:
        """Return the share of the top speed that may be used: 0 on taking command, 1 after the ramp-in."""
        elapsed_s = now_s - self._armed_at_s
        return 1.0 if elapsed_s >= self._ramp_in_s else max(elapsed_s / self._ramp_in_s, 0.0)

    def _run(self, now_s: float) -> None:
        self.mode, self.reason = Mode.RUNNING, None
        self.commanding = True
        self._armed_at_s = now_s

    def _hold(self, reason: HoldReason) -> None:
        self.mode, self.reason = Mode.HOLDING, reason
        self.holds[reason] += 1
