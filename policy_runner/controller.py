"""The control loop without ROS: newest inputs in, one safe command a tick out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from policy_runner.bundle import contract_difference
from policy_runner.contract import ContractError, PolicyContract
from policy_runner.inputs import CloudSample, GoalSample, JointSample
from policy_runner.limiter import UserLimits, make_limiter, tightest_limits
from policy_runner.observation import ObservationBuilder
from policy_runner.safety import ArmError, HoldReason, Mode, Supervisor
from policy_runner.settings import RunnerSettings

Float64 = NDArray[np.float64]

START_TOLERANCE = 1e-3
"""How far outside its limits a joint may be when the policy takes command, as a share of its range."""


class Actor(Protocol):
    """What the controller needs of `inference.Policy`."""

    contract: PolicyContract

    def act(self, observation: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the action (num_joints,) in [-1, 1], or raise."""
        ...


@dataclass(frozen=True, kw_only=True)
class Command:
    """What to publish in this tick."""

    values: Float64
    """(num_joints,) positions, velocities or efforts, by the contract's action mode."""
    stamp_ns: int
    """Stamp of the oldest input that it was computed from; 0 for a command that holds."""


class Controller:
    """Holds the newest inputs and answers each tick with a command, or with none while idle.

    Not thread-safe: inputs, ticks and operator calls come from one thread.
    """

    def __init__(
        self,
        policy: Actor,
        settings: RunnerSettings,
        *,
        user_limits: Mapping[str, UserLimits] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start idle.

        Raises:
            ContractError: an observation term does not fit the robot.
            LimitError: the limits leave a joint no room.
        """
        contract = policy.contract
        self._policy, self._clock = policy, clock
        self._builder = ObservationBuilder(contract)
        self._dt_s = settings.control_dt_s(contract)
        self._cloud_timeout_s = settings.cloud_timeout(contract)
        self._joint_state_timeout_s = settings.joint_state_timeout(contract)
        self._max_skew_s = settings.max_input_skew_s or math.inf
        self._deadline_miss_limit = settings.deadline_miss_limit
        self._limits = tightest_limits(contract.action, user_limits or {})
        self._limiter = make_limiter(
            contract.action, self._limits, control_dt_s=self._dt_s, stop_time_s=settings.stop_time_s
        )
        self._supervisor = Supervisor(
            ramp_in_s=settings.ramp_in_s, restart_after_stale=settings.restart_after_stale
        )
        self._joints: JointSample | None = None
        self._cloud: CloudSample | None = None
        self._goal: GoalSample | None = None
        self._previous_action = np.zeros(contract.action.size, np.float32)
        self._misses_in_a_row = 0
        self.ticks = 0
        self.deadline_misses = 0
        self.policy_error = ""
        """Why the policy last failed; empty if it never did."""

    @property
    def contract(self) -> PolicyContract:
        """Contract of the policy in place."""
        return self._policy.contract

    @property
    def needs_velocity(self) -> bool:
        """Whether the policy sees joint velocities."""
        return self._builder.needs_velocity

    @property
    def goal_frame(self) -> str | None:
        """Frame of the goal that the policy sees; None where it sees none."""
        return self._builder.goal_frame

    @property
    def mode(self) -> Mode:
        """What the runner does with the robot."""
        return self._supervisor.mode

    @property
    def reason(self) -> HoldReason | None:
        """Why the policy is not in command; None while it is, or while idle."""
        return self._supervisor.reason

    @property
    def holds(self) -> Mapping[HoldReason, int]:
        """How often each reason took the command from the policy."""
        return self._supervisor.holds

    @property
    def at_rest(self) -> bool:
        """Whether nothing moves by our command: idle, or the last command was one of rest."""
        return self._limiter.at_rest

    def ages_s(self) -> dict[str, float]:
        """Return how long ago the newest inputs came [s]; without those that never came."""
        now_s = self._clock()
        samples = {"joint_state": self._joints, "cloud": self._cloud}
        return {name: now_s - sample.arrival_s for name, sample in samples.items() if sample is not None}

    def set_joints(self, sample: JointSample) -> None:
        """Take a joint state; the newest wins."""
        self._joints = sample

    def set_cloud(self, sample: CloudSample) -> None:
        """Take a processed cloud; the newest wins."""
        self._cloud = sample

    def set_goal(self, sample: GoalSample) -> None:
        """Take a goal; it stands until the next one."""
        self._goal = sample

    def swap(self, policy: Actor) -> None:
        """Put another policy in place of this one, between two ticks, without a jump of the command.

        Raises:
            ContractError: it does not take the same inputs and give the same commands; the message names the
            field.
        """
        own = self.contract
        offered = replace(policy.contract, policy_name=own.policy_name, train=own.train)
        if difference := contract_difference(own, offered):
            raise ContractError(f"the policy in place cannot be exchanged while configured: {difference}")
        self._policy = policy

    def arm(self) -> None:
        """Put the policy in command of the robot as it stands: commands begin at the measured position.

        Raises:
            ArmError: why not, naming the input or the joint.
        """
        if self.mode is Mode.RUNNING:
            return
        now_s = self._clock()
        fault = self.fault(now_s)
        if fault is None and self._joints is not None:
            self._check_start(self._joints.position)
        self._supervisor.arm(now_s, fault=fault, at_rest=self.mode is Mode.IDLE or self._limiter.at_rest)
        assert self._joints is not None  # else there was a fault
        self._limiter.start(self._joints.position)
        self._previous_action = np.zeros_like(self._previous_action)

    def disarm(self) -> None:
        """Take the command from the policy: decelerate and hold."""
        self._supervisor.disarm()

    def stop(self) -> None:
        """Decelerate and hold, and refuse to be armed until `reset_stop`."""
        self._supervisor.stop()

    def reset_stop(self) -> None:
        """Allow arming again."""
        self._supervisor.reset_stop()

    def release(self) -> None:
        """Command nothing until armed anew; a latched stop stays."""
        self._supervisor.release()

    def fault(self, now_s: float | None = None) -> HoldReason | None:
        """Return what is wrong with the inputs now, the gravest first; None if a policy may act on them."""
        now_s = self._clock() if now_s is None else now_s
        if self._is_stale(self._joints, now_s, self._joint_state_timeout_s):
            return HoldReason.JOINT_STATE_STALE
        if self._builder.needs_cloud and self._is_stale(self._cloud, now_s, self._cloud_timeout_s):
            return HoldReason.CLOUD_STALE
        if self._builder.goal_frame is not None and self._goal is None:
            return HoldReason.GOAL_MISSING
        if self._skew_s() > self._max_skew_s:
            return HoldReason.INPUT_SKEW
        if self._misses_in_a_row >= self._deadline_miss_limit:
            return HoldReason.DEADLINE_MISSED
        return None

    def tick(self) -> Command | None:
        """Compute the command of this control step, or None while idle."""
        start_s = self._clock()
        command = self._command(start_s)
        self.ticks += 1
        if self._clock() - start_s > self._dt_s:
            self.deadline_misses += 1
            self._misses_in_a_row += 1
        else:
            self._misses_in_a_row = 0
        return command

    def _command(self, now_s: float) -> Command | None:
        mode = self._supervisor.update(now_s, fault=self.fault(now_s), at_rest=self._limiter.at_rest)
        if mode is Mode.RUNNING:
            if (command := self._follow_policy(now_s)) is not None:
                return command
            mode = self._supervisor.update(now_s, fault=HoldReason.POLICY_FAULT, at_rest=False)
        if not self._supervisor.commanding:
            return None
        return Command(values=self._limiter.brake().copy(), stamp_ns=0)

    def _follow_policy(self, now_s: float) -> Command | None:
        assert self._joints is not None  # else there was a fault
        try:
            inputs = self._builder.build(self._joints, self._cloud, self._goal, self._previous_action)
            action = self._policy.act(inputs)
        except Exception as error:  # whatever a model does, the robot must still be brought to rest
            self.policy_error = str(error)
            return None
        self._previous_action = action
        values = self._limiter.follow(
            action.astype(np.float64), self._joints.position, self._supervisor.authority(now_s)
        )
        return Command(values=values.copy(), stamp_ns=self._oldest_stamp_ns())

    def _check_start(self, position: Float64) -> None:
        slack = START_TOLERANCE * (self._limits.upper - self._limits.lower)
        outside = (position < self._limits.lower - slack) | (position > self._limits.upper + slack)
        if outside.any():
            index = int(np.argmax(outside))
            raise ArmError(
                f"joint {self.contract.action.joint_names[index]!r} is at {position[index]:.4f}, outside "
                f"[{self._limits.lower[index]:.4f}, {self._limits.upper[index]:.4f}]"
            )

    @staticmethod
    def _is_stale(sample: JointSample | CloudSample | None, now_s: float, timeout_s: float) -> bool:
        return sample is None or now_s - sample.arrival_s > timeout_s

    def _skew_s(self) -> float:
        """Return how much the stamps of cloud and joint state disagree with their arrivals [s].

        Comparing with arrivals takes out the age that the older of the two has gained by waiting for the
        tick.
        """
        if self._joints is None or self._cloud is None:
            return 0.0
        if not (self._joints.stamp_ns and self._cloud.stamp_ns):  # unstamped
            return 0.0
        by_stamp_s = (self._joints.stamp_ns - self._cloud.stamp_ns) * 1e-9
        return abs(by_stamp_s - (self._joints.arrival_s - self._cloud.arrival_s))

    def _oldest_stamp_ns(self) -> int:
        samples = (self._joints, self._cloud if self._builder.needs_cloud else None)
        return min(sample.stamp_ns for sample in samples if sample is not None)
