"""A controller that writes down every call that can change a command, with all that the call could not foresee.

Unforeseen are the clock and whether the network answers in time; both are written down as they were met.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy_runner.acting import Actor
from policy_runner.clock import now_s
from policy_runner.contract import ContractError, PolicyContract
from policy_runner.controller import Command, CommandTopic, Controller
from policy_runner.inference import InferenceLateError
from policy_runner.inputs import CloudSample, GoalSample, JointSample
from policy_runner.journal import FORMAT, Journal
from policy_runner.limiter import UserLimits
from policy_runner.safety import ArmError
from policy_runner.settings import RunnerSettings

Answers = list[bool | str]
"""Whether the network was ready, and True for each action or, where it came late, what was said of that."""


class RecordedController(Controller):
    """A `Controller` with a journal, which does not change what it does."""

    def __init__(
        self,
        policy: Actor,
        settings: RunnerSettings,
        *,
        journal: Journal,
        user_limits: Mapping[str, UserLimits] | None = None,
        home_position: Mapping[str, float] | None = None,
        clock: Callable[[], float] = now_s,
    ) -> None:
        """Write `begin` into the journal; everything else is as for a `Controller`."""
        self._journal, self._source = journal, clock
        self._readings: list[float] = []
        self._answers: Answers = []
        self._in_call = False
        self._last_cloud: CloudSample | None = None
        self._last_topic: CommandTopic | None = None
        super().__init__(
            ObservedActor(policy, self._answers),
            settings,
            user_limits=user_limits,
            home_position=home_position,
            clock=self._read_clock,
        )
        journal.event(
            "begin",
            {
                "format": FORMAT,
                "log_time_offset_ns": journal.offset_ns,
                "digest": policy.digest,
                "contract": asdict(policy.contract),
                "settings": asdict(settings),
                "user_limits": {joint: asdict(limits) for joint, limits in (user_limits or {}).items()},
                "home_position": dict(home_position or {}),
            },
        )

    def set_joints(self, sample: JointSample) -> None:
        """Take a joint state."""
        with self._recorded("joints", vars(sample), at_s=sample.arrival_s):
            super().set_joints(sample)

    def set_cloud(self, sample: CloudSample) -> None:
        """Take a processed cloud. One that is given again is not recorded again."""
        if sample is self._last_cloud:
            super().set_cloud(sample)
            return
        self._last_cloud = sample
        times = {"stamp_ns": sample.stamp_ns, "arrival_s": sample.arrival_s}
        with self._recorded("cloud", times, points=sample.points):
            super().set_cloud(sample)

    def set_goal(self, sample: GoalSample) -> None:
        """Take a goal."""
        with self._recorded("goal", vars(sample)):
            super().set_goal(sample)

    def set_topic(self, topic: CommandTopic) -> None:
        """Take what the graph says of the command topic; only news are recorded."""
        if topic == self._last_topic:
            super().set_topic(topic)
            return
        self._last_topic = topic
        with self._recorded("topic", vars(topic)):
            super().set_topic(topic)

    def note_clock_jump(self) -> None:
        """Treat all inputs as stale at the next tick."""
        with self._recorded("note_clock_jump"):
            super().note_clock_jump()

    def swap(self, policy: Actor) -> None:
        """Put another policy in place of this one."""
        with self._recorded("swap", {"digest": policy.digest, "policy_name": policy.contract.policy_name}):
            super().swap(ObservedActor(policy, self._answers))

    def arm(self) -> None:
        """Put the policy in command."""
        with self._recorded("arm"):
            super().arm()

    def disarm(self) -> None:
        """Take the command from the policy."""
        with self._recorded("disarm"):
            super().disarm()

    def stop(self) -> None:
        """Decelerate, hold and latch."""
        with self._recorded("stop"):
            super().stop()

    def reset_stop(self) -> None:
        """Allow arming again."""
        with self._recorded("reset_stop"):
            super().reset_stop()

    def release(self) -> None:
        """Command nothing until armed anew."""
        with self._recorded("release"):
            super().release()

    def tick(self) -> Command | None:
        """Compute the command of this control step."""
        with self._recorded("tick") as answer:
            command = super().tick()
            answer["mode"] = self.mode.value
            answer["reason"] = self.reason.value if self.reason is not None else None
            answer["command"] = command.values if command is not None else None
            answer["stamp_ns"] = command.stamp_ns if command is not None else 0
        return command

    @contextmanager
    def _recorded(
        self,
        kind: str,
        values: Mapping[str, Any] | None = None,
        *,
        at_s: float | None = None,
        points: NDArray[np.float32] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Write the call in the body, with what the body adds, unless it is itself a part of such a call."""
        answer: dict[str, Any] = {}
        if self._in_call:
            yield answer
            return
        at_s = self._source() if at_s is None else at_s
        self._in_call, self._readings = True, []
        self._answers.clear()
        try:
            yield answer
        except (ArmError, ContractError) as error:
            answer["refused"] = str(error)
            raise
        finally:
            self._in_call = False
            unforeseen = {"clock_s": self._readings, "answers": list(self._answers)}
            self._journal.event(kind, {**(values or {}), **answer, **unforeseen}, at_s=at_s, points=points)

    def _read_clock(self) -> float:
        reading = self._source()
        if self._in_call:  # the other readings are for status and decide nothing
            self._readings.append(reading)
        return reading


class ObservedActor:
    """An actor whose answers, as far as they hang on time, are noted."""

    def __init__(self, actor: Actor, answers: Answers) -> None:
        self.contract: PolicyContract = actor.contract
        self.digest: str = actor.digest
        self._actor, self._answers = actor, answers

    @property
    def ready(self) -> bool:
        """Whether it can take an observation now."""
        ready = self._actor.ready
        self._answers.append(ready)
        return ready

    def act(self, observation: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the action, or raise."""
        try:
            action = self._actor.act(observation)
        except InferenceLateError as error:
            self._answers.append(str(error))
            raise
        except Exception:
            self._answers.append(True)
            raise
        self._answers.append(True)
        return action
