"""Do a recorded run again: the same inputs, at the same times, through the same controller.

With the policy of the run, every command must come out as it was recorded, bit for bit. With another policy of the
same interface, this shows what it would have commanded in the same situations.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy_runner.bundle import contract_difference
from policy_runner.contract import ContractError, PolicyContract
from policy_runner.controller import CommandTopic, Controller
from policy_runner.inference import InferenceLateError, Network
from policy_runner.inputs import CloudSample, GoalSample, JointSample
from policy_runner.journal import Event, points_of
from policy_runner.limiter import LimitError, UserLimits
from policy_runner.safety import ArmError
from policy_runner.settings import SettingsError, settings_from

Float64 = NDArray[np.float64]

CALLS = ("arm", "disarm", "stop", "reset_stop", "release", "note_clock_jump")
"""Those without arguments."""
REMARKS = ("load_policy", "end")
"""Events that are no calls on the controller."""


class RepeatError(ValueError):
    """A recording cannot be done again; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Where the replay did something else than the run."""

    time_s: float
    """Since the beginning of the recording."""
    what: str
    """`joint 'elbow'`, `mode`, `arm` and the like."""
    recorded: object
    replayed: object

    def __str__(self) -> str:
        return f"at {self.time_s:.3f} s, {self.what}: recorded {self.recorded!r}, replayed {self.replayed!r}"


@dataclass(kw_only=True)
class Outcome:
    """What a replay found; it is filled while events are replayed."""

    contract: PolicyContract
    began_ns: int
    """Log time of the beginning [ns since 1970]."""
    events: Counter[str] = field(default_factory=Counter)
    """Replayed events by kind."""
    modes: Counter[str] = field(default_factory=Counter)
    """Ticks by the mode that was recorded."""
    duration_s: float = 0.0
    missing: int = 0
    """Events that the recording has lost; nothing after them was replayed."""
    complete: bool = False
    """Whether the recording was closed and not cut short."""
    differences: int = 0
    """Events with another result."""
    first: Difference | None = None
    times_s: list[float] = field(default_factory=list)
    """Of all ticks, since the beginning of the recording."""
    recorded: list[Float64] = field(default_factory=list)
    """Commands (num_joints,) tick by tick; NaN where there was none."""
    replayed: list[Float64] = field(default_factory=list)
    """Likewise."""

    def largest(self) -> dict[str, tuple[float, float]]:
        """Return by joint the largest difference between two commands of one tick, and when it was [s]."""
        if not self.times_s:
            return {}
        distance = np.abs(np.array(self.replayed) - np.array(self.recorded))
        distance[np.isnan(distance)] = 0.0
        rows = distance.argmax(axis=0)
        names = self.contract.action.joint_names
        return {
            name: (float(distance[row, column]), self.times_s[row])
            for column, (name, row) in enumerate(zip(names, rows, strict=True))
        }


def repeat(
    events: Iterator[Event], policies: Mapping[str, Network], *, other: Network | None = None
) -> Outcome:
    """Repeat a journal, `journal.read_journal`, up to its end or to the first event that it has lost.

    policies: those of the run, by digest. other: stands in for all of them.

    Raises:
        RepeatError: a policy of the run is not given, the other one has another interface, or the journal is not
            one of a controller like ours.
        BagError: the bag is damaged.
    """
    begin = next(events)
    run = _Run(begin, policies, other)
    for expected_seq, event in enumerate(events, start=1):
        if event.seq != expected_seq:
            run.outcome.missing = max(event.seq - expected_seq, 1)
            break
        run.do(event)
    return run.outcome


class _Tape:
    """A clock that reads what was read in the run."""

    def __init__(self) -> None:
        self._readings: deque[float] = deque()
        self._last_s = 0.0

    def load(self, readings: list[float]) -> None:
        self._readings = deque(readings)

    def __call__(self) -> float:
        if self._readings:
            self._last_s = self._readings.popleft()
        return self._last_s


class _RepeatedActor:
    """A network that answers as it does, but is ready, or late, when it was noted to be."""

    def __init__(self, network: Network, answers: deque[bool | str]) -> None:
        self.contract, self.digest = network.contract, network.digest
        self._network, self._answers = network, answers

    @property
    def ready(self) -> bool:
        return self._next() is True

    def act(self, observation: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        if isinstance(answer := self._next(), str):
            raise InferenceLateError(answer)
        return self._network.act(observation)

    def _next(self) -> bool | str:
        return self._answers.popleft() if self._answers else True


class _Run:
    """A controller as it was set up in the run, and what has become of it so far."""

    def __init__(self, begin: Event, policies: Mapping[str, Network], other: Network | None) -> None:
        self._policies, self._other = policies, other
        self._clock, self._answers = _Tape(), deque[bool | str]()
        try:
            contract = PolicyContract.from_json(json.dumps(begin.values["contract"]))
            actor = self._actor(begin.values, time_s=0.0)
            _check_interface(contract, actor)
            self._controller = Controller(
                actor,
                settings_from(begin.values["settings"]),
                user_limits={
                    joint: UserLimits(**limits) for joint, limits in begin.values["user_limits"].items()
                },
                home_position=begin.values["home_position"],
                clock=self._clock,
            )
        except (KeyError, TypeError, ContractError, SettingsError, LimitError) as error:
            raise RepeatError(f"the run cannot be set up as it was: {error}") from error
        self.outcome = Outcome(contract=contract, began_ns=begin.log_time_ns)

    def do(self, event: Event) -> None:
        """Replay one event and compare what comes of it."""
        outcome, values = self.outcome, event.values
        outcome.events[event.kind] += 1
        outcome.duration_s = time_s = (event.log_time_ns - outcome.began_ns) * 1e-9
        outcome.complete = event.kind == "end"
        self._clock.load(values.get("clock_s", []))
        self._answers.clear()
        self._answers.extend(values.get("answers", []))
        try:
            refused = self._call(event, time_s)
        except RepeatError:  # which says it all
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise RepeatError(
                f"at {time_s:.3f} s: event {event.kind!r} is not as it should be: {error}"
            ) from error
        if refused != values.get("refused"):
            self._differ(time_s, event.kind, values.get("refused", "accepted"), refused or "accepted")

    def _call(self, event: Event, time_s: float) -> str | None:
        """Make the call; returns why it was refused, if it was."""
        controller, values = self._controller, event.values
        try:
            match event.kind:
                case "tick":
                    self._tick(values, time_s)
                case "joints":
                    velocity = values["velocity"]
                    controller.set_joints(
                        JointSample(
                            position=np.array(values["position"], np.float64),
                            velocity=None if velocity is None else np.array(velocity, np.float64),
                            stamp_ns=values["stamp_ns"],
                            arrival_s=values["arrival_s"],
                        )
                    )
                case "cloud":
                    if event.points is None:
                        raise RepeatError(f"at {time_s:.3f} s: the points of a cloud are missing")
                    controller.set_cloud(
                        CloudSample(
                            points=points_of(event.points),
                            stamp_ns=values["stamp_ns"],
                            arrival_s=values["arrival_s"],
                        )
                    )
                case "goal":
                    controller.set_goal(GoalSample(position=np.array(values["position"], np.float64)))
                case "topic":
                    controller.set_topic(
                        CommandTopic(listeners=values["listeners"], others=tuple(values["others"]))
                    )
                case "swap" if "refused" in values and values["digest"] not in self._policies:
                    return values["refused"]  # it took no part in the run
                case "swap":
                    controller.swap(self._actor(values, time_s))
                case call if call in CALLS:
                    getattr(controller, call)()
                case remark if remark not in REMARKS:
                    raise RepeatError(f"at {time_s:.3f} s: unknown event {remark!r}")
        except (ArmError, ContractError) as error:
            return str(error)
        return None

    def _tick(self, values: Mapping[str, Any], time_s: float) -> None:
        controller, outcome = self._controller, self.outcome
        command = controller.tick()
        reason = controller.reason.value if controller.reason is not None else None
        got = None if command is None else command.values
        expected = None if values["command"] is None else np.array(values["command"], np.float64)
        nothing = np.full(outcome.contract.action.size, np.nan)
        outcome.modes[values["mode"]] += 1
        outcome.times_s.append(time_s)
        outcome.recorded.append(nothing if expected is None else expected)
        outcome.replayed.append(nothing if got is None else got)
        results = {
            "mode": (values["mode"], controller.mode.value),
            "reason": (values["reason"], reason),
            "command": ("none" if expected is None else "some", "none" if got is None else "some"),
            "stamp_ns": (values["stamp_ns"], command.stamp_ns if command is not None else 0),
        }
        if expected is not None and got is not None:
            joints = zip(outcome.contract.action.joint_names, expected.tolist(), got.tolist(), strict=True)
            results |= {f"joint {name!r}": (a, b) for name, a, b in joints}
        for what, (recorded, replayed) in results.items():
            if recorded != replayed:
                self._differ(time_s, what, recorded, replayed)
                break

    def _differ(self, time_s: float, what: str, recorded: object, replayed: object) -> None:
        self.outcome.differences += 1
        if self.outcome.first is None:
            self.outcome.first = Difference(time_s=time_s, what=what, recorded=recorded, replayed=replayed)

    def _actor(self, values: Mapping[str, Any], time_s: float) -> _RepeatedActor:
        digest = values["digest"]
        network = self._other or self._policies.get(digest)
        if network is None:
            given = ", ".join(sorted(self._policies)) or "none"
            raise RepeatError(
                f"at {time_s:.3f} s the run took the bundle with digest {digest}, which is not given; "
                f"given: {given}"
            )
        return _RepeatedActor(network, self._answers)


def _check_interface(contract: PolicyContract, policy: _RepeatedActor) -> None:
    offered = replace(policy.contract, policy_name=contract.policy_name, train=contract.train)
    if difference := contract_difference(contract, offered):
        raise RepeatError(f"the policy does not fit the recorded run: {difference}")
