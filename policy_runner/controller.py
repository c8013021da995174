"""The control loop without ROS: newest inputs in, one safe command a tick out."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policy_runner.acting import Acting, Actor
from policy_runner.clock import now_s as boottime_s
from policy_runner.contract import PolicyContract
from policy_runner.inference import InferenceLateError
from policy_runner.inputs import CloudSample, GoalSample, JointSample
from policy_runner.joint_domain import JointDomain
from policy_runner.latest_inputs import InputNeeds, LatestInputs
from policy_runner.limiter import UserLimits, make_limiter, tightest_limits
from policy_runner.loop_watch import LoopWatch
from policy_runner.safety import HOMEWARD, ArmError, HoldReason, Mode, Supervisor
from policy_runner.settings import RunnerSettings, SettingsError
from policy_runner.stopping import Stopping

Float64 = NDArray[np.float64]

SATURATION_WINDOW_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Command:
    """What to publish in this tick."""

    values: Float64
    """(num_joints,) positions, velocities or efforts, by the contract's action mode."""
    stamp_ns: int
    """Stamp of the oldest input that it was computed from; 0 for a command that holds."""


@dataclass(frozen=True, kw_only=True)
class CommandTopic:
    """Who else is there on the topic of our commands."""

    listeners: int
    others: tuple[str, ...] = ()
    """Names of the other nodes that publish on it."""


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
        home_position: Mapping[str, float] | None = None,
        clock: Callable[[], float] = boottime_s,
    ) -> None:
        """Start idle.

        user_limits: by joint, on top of the contract's; home_position: by joint [rad or m], see `Stopping`.

        Raises:
            ContractError: an observation term does not fit the robot.
            LimitError: the limits leave a joint no room, or home is outside of them.
            SettingsError: the stop mode does not fit the commands, or a control step takes longer than joint states
                may be silent.
        """
        contract = policy.contract
        dt_s = settings.control_dt_s(contract)
        self._joint_state_timeout_s = joint_state_timeout_s = settings.joint_state_timeout(contract)
        if joint_state_timeout_s <= dt_s:
            raise SettingsError(
                f"joint_state_timeout_s: must be longer than a control step, {dt_s:g} s, or each would come after "
                f"a stall; got {joint_state_timeout_s:g}"
            )
        self._settings, self._clock = settings, clock
        self.acting = Acting(policy, filter_alpha=settings.action_filter_alpha)
        self._inputs = LatestInputs(
            InputNeeds(
                cloud=self.acting.needs_cloud,
                goal=self.acting.goal_frame is not None,
                joint_state_timeout_s=joint_state_timeout_s,
                cloud_timeout_s=settings.cloud_timeout(contract),
                max_skew_s=settings.max_input_skew_s or math.inf,
            )
        )
        limits = tightest_limits(contract.action, user_limits or {})
        self._domain = JointDomain(
            contract.action.joint_names,
            limits,
            contract.default_joint_pos,
            margin=settings.joint_limit_margin,
            max_jump=settings.max_joint_jump,
            max_start_distance=settings.max_start_distance,
            control_dt_s=dt_s,
            longest_silence_s=joint_state_timeout_s,
        )
        self._limiter = make_limiter(
            contract.action, limits, control_dt_s=dt_s, stop_time_s=settings.stop_time_s
        )
        self._stopping = Stopping(settings.stop_mode, self._limiter, limits, contract, home_position or {})
        self._supervisor = Supervisor(
            ramp_in_s=settings.ramp_in_s, restart_after_stale=settings.restart_after_stale
        )
        self.loop = LoopWatch(period_s=dt_s, stall_s=joint_state_timeout_s)
        self._topic: CommandTopic | None = None
        self._cuts: deque[float] = deque(maxlen=max(round(SATURATION_WINDOW_S / dt_s), 1))
        self._details: dict[HoldReason, str] = {}

    @property
    def contract(self) -> PolicyContract:
        """Contract of the policy in place."""
        return self.acting.policy.contract

    @property
    def needs_velocity(self) -> bool:
        """Whether the policy sees joint velocities."""
        return self.acting.needs_velocity

    @property
    def goal_frame(self) -> str | None:
        """Frame of the goal that the policy sees; None where it sees none."""
        return self.acting.goal_frame

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

    @property
    def saturation(self) -> float:
        """Share, in [0, 1], of the actions of the last second, joint by joint, that the limits had to cut."""
        return sum(self._cuts) / len(self._cuts) if self._cuts else 0.0

    @property
    def policy_error(self) -> str:
        """Why the policy last failed; empty if it never did."""
        return self.detail(HoldReason.POLICY_FAULT)

    def detail(self, reason: HoldReason | None) -> str:
        """Return what is known of the last hold for this reason beyond its name; empty if nothing is."""
        return self._details.get(reason, "") if reason else ""

    def ages_s(self) -> dict[str, float]:
        """Return how long ago the newest inputs came [s]; without those that never came."""
        return self._inputs.ages_s(self._clock())

    def set_joints(self, sample: JointSample) -> None:
        """Take a joint state; the newest wins. One that cannot follow the last one is a fault at once."""
        last = self._inputs.joints
        supervisor = self._supervisor
        moves = self.mode is Mode.RUNNING or supervisor.goes_on_by_itself or self._stopping.homing
        if moves and last is not None and (jump := self._domain.jump(last, sample)):
            self._details[HoldReason.JOINT_JUMP] = jump
            supervisor.hold(HoldReason.JOINT_JUMP)
        self._inputs.take_joints(sample)

    def set_cloud(self, sample: CloudSample) -> None:
        """Take a processed cloud; the newest wins."""
        self._inputs.take_cloud(sample)

    def set_goal(self, sample: GoalSample) -> None:
        """Take a goal; it stands until the next one."""
        self._inputs.take_goal(sample)

    def set_topic(self, topic: CommandTopic) -> None:
        """Take what the graph says of the command topic."""
        self._topic = topic
        if topic.others:
            self._details[HoldReason.OTHER_PUBLISHER] = f"commands also come from {', '.join(topic.others)}"

    def note_clock_jump(self) -> None:
        """Forget all inputs, and hold, because the clock of their stamps was set."""
        self._inputs.forget(until_s=self._clock())
        if self.mode is Mode.RUNNING:
            self._supervisor.hold(HoldReason.STALLED)

    def swap(self, policy: Actor) -> None:
        """Put another policy in place of this one, between two ticks, without a jump of the command.

        Raises:
            ContractError: it does not take the same inputs and give the same commands; the message names the
            field.
        """
        self.acting.swap(policy)

    def arm(self) -> None:
        """Put the policy in command of the robot as it stands: commands begin at the measured position.

        Where the robot was held, and is near that place (`max_joint_jump`), they go on from there instead, so
        that no command jumps by what the robot sags.

        Raises:
            ArmError: why not, naming the input or the joint.
        """
        if self.mode is Mode.RUNNING:
            return
        now_s = self._clock()
        fault, joints = self.fault(now_s), self._inputs.joints
        if fault is None and joints is not None:
            self._check_start(joints.position)
        commanded = self.mode is not Mode.IDLE
        at_rest = not commanded or self._limiter.at_rest
        detail = (self._inputs.evidence(fault, now_s) or self.detail(fault)) if fault else ""
        self._supervisor.arm(now_s, fault=fault, at_rest=at_rest, detail=detail)
        assert joints is not None  # else there was a fault
        is_held = commanded and not self._stopping.silent
        self._limiter.start(joints.position, near=self._settings.max_joint_jump if is_held else 0.0)
        self.acting.begin()

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
        """Command nothing until armed anew, and expect no ticks; a latched stop stays."""
        self._supervisor.release()
        self.loop.rest()

    def fault(self, now_s: float | None = None) -> HoldReason | None:
        """Return what is wrong now, the gravest first; None if a policy may act."""
        if self._topic is not None and self._topic.others:
            return HoldReason.OTHER_PUBLISHER
        fault = self._inputs.fault(self._clock() if now_s is None else now_s)
        if fault is not HoldReason.JOINT_STATE_STALE and self._is_outside():
            return HoldReason.JOINT_JUMP
        if self._topic is not None and not (self._topic.listeners or self._settings.arm_without_listener):
            return HoldReason.NO_LISTENER
        if fault is not None:
            return fault
        if not self.acting.policy.ready:
            return HoldReason.INFERENCE_LATE
        if self.loop.misses_in_a_row >= self._settings.deadline_miss_limit:
            return HoldReason.DEADLINE_MISSED
        return None

    def tick(self) -> Command | None:
        """Compute the command of this control step, or None while idle."""
        now_s = self._clock()
        if self.loop.begin(now_s):
            # what comes first has waited in queues for an unknown time; of depth 1, they are soon empty
            self._inputs.forget(until_s=now_s + self._joint_state_timeout_s)
            self._supervisor.update(now_s, fault=HoldReason.STALLED, at_rest=False)
        fault, before = self.fault(now_s), self.mode
        mode = self._supervisor.update(now_s, fault=fault, at_rest=self._limiter.at_rest)
        if mode is Mode.RUNNING and before is Mode.HOLDING:  # by itself
            self._go_on()
        command, failure = self._follow_policy(now_s) if mode is Mode.RUNNING else (None, None)
        if failure is not None:
            self._supervisor.update(now_s, fault=failure, at_rest=False)
        self._cuts.append(float(self._limiter.cut.mean()) if command is not None else 0.0)
        if command is None and self._supervisor.commanding:
            command = self._hold(failure or fault)
        self.loop.end(self._clock(), in_time=failure is not HoldReason.INFERENCE_LATE)
        return command

    def _go_on(self) -> None:
        joints = self._inputs.joints
        assert joints is not None  # else there was a fault
        if self._stopping.silent:  # nobody has told the robot to stay where it was commanded to be
            self._limiter.start(joints.position)
        self.acting.begin()

    def _follow_policy(self, now_s: float) -> tuple[Command | None, HoldReason | None]:
        joints = self._inputs.joints
        assert joints is not None  # else there was a fault
        try:
            action = self.acting.act(self._inputs)
        except Exception as error:  # whatever a model does, the robot must still be brought to rest
            late = isinstance(error, InferenceLateError)
            failure = HoldReason.INFERENCE_LATE if late else HoldReason.POLICY_FAULT
            self._details[failure] = str(error)
            return None, failure
        values = self._limiter.follow(action, joints.position, self._supervisor.authority(now_s))
        return Command(values=values.copy(), stamp_ns=self._inputs.oldest_stamp_ns()), None

    def _hold(self, fault: HoldReason | None) -> Command | None:
        may_go_home = self.reason in HOMEWARD and (fault is None or fault in HOMEWARD)
        values = self._stopping.command(may_go_home=may_go_home)
        return None if values is None else Command(values=values.copy(), stamp_ns=0)

    def _check_start(self, position: Float64) -> None:
        problem = self._domain.beyond_commands(position)
        if not problem and self.mode is Mode.IDLE:  # later, the robot is where the policy has left it
            problem = self._domain.far_from_start(position)
        if problem:
            raise ArmError(problem)

    def _is_outside(self) -> bool:
        if self._inputs.joints is None or not (outside := self._domain.outside(self._inputs.joints.position)):
            return False
        self._details[HoldReason.JOINT_JUMP] = outside
        return True
