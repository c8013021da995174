"""A run on a clock of its own, in which all happens that can happen, recorded into a bag."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from policy_runner.bag import message_types, read_bag
from policy_runner.bag_writer import BagWriter, Entry
from policy_runner.contract import ContractError
from policy_runner.controller import CommandTopic
from policy_runner.inference import InferenceError, InferenceLateError
from policy_runner.inputs import CloudSample, GoalSample, JointSample
from policy_runner.journal import EVENT_TYPE, Journal
from policy_runner.limiter import UserLimits
from policy_runner.recording import RecordedController
from policy_runner.safety import ArmError
from policy_runner.settings import RunnerSettings

DT = 1.0 / 60.0
EVENTS = {
    "arm": 0.3,
    "disarm": 0.02,
    "stop": 0.01,
    "reset_stop": 0.1,
    "release": 0.005,
    "note_clock_jump": 0.01,
    "swap": 0.02,
    "topic": 0.05,
    "nothing": 0.485,
}
"""How likely each is in a tick."""


class Clock:
    def __init__(self):
        self.now_s = 1234.567890123456

    def __call__(self):
        self.now_s += 1.1e-5  # never twice the same, as of a real one
        return self.now_s


class WildNetwork:
    """Some function of what it sees, which soon reaches limits, and fails on some of it."""

    def __init__(self, contract, digest="first", gain=3.0):
        self.contract, self.digest, self.gain = contract, digest, gain

    def act(self, observation):
        total = sum(float(values.sum()) for values in observation.values())
        if int(total * 1e4) % 60 == 0:
            raise InferenceError("action is not finite")
        return np.sin(self.gain * total + np.arange(3)).astype(np.float32)


class BusyActor:
    """A network that is late by chance."""

    def __init__(self, network, rng):
        self.contract, self.digest = network.contract, network.digest
        self._network, self._rng = network, rng

    @property
    def ready(self):
        return self._rng.random() < 0.98

    def act(self, observation):
        if self._rng.random() < 0.02:
            raise InferenceLateError("no action in time")
        return self._network.act(observation)


def wild_networks(bundles):
    """Two networks of one interface, with a term of every kind but velocities."""
    contract = bundles.contract()
    goal = replace(contract.obs_terms[0], name="goal", kind="goal_position", unit="m", frame="world")
    last = replace(contract.obs_terms[0], name="last", kind="previous_action", unit="")
    contract = replace(contract, obs_terms=(*contract.obs_terms, goal, last))
    return [WildNetwork(contract), WildNetwork(replace(contract, policy_name="second"), "second", 1.7)]


def record(path, networks, *, seed=0, ticks=400):
    """Drive a recorded controller through random inputs and events; returns its commands."""
    rng, clock = np.random.default_rng(seed), Clock()
    bag = BagWriter(path, max_bytes=1 << 30, on_end=pytest.fail)
    journal = Journal(bag, node="/runner", frame="world", clock=clock)
    controller = RecordedController(
        BusyActor(networks[0], rng),
        RunnerSettings(ramp_in_s=0.5, restart_after_stale=bool(seed % 2), max_start_distance=100.0),
        journal=journal,
        user_limits={"pin_x": UserLimits(max_velocity=0.3, max_acceleration=6.0)},
        clock=clock,
    )
    position, commands = np.array([0.5, 0.3, 0.0]), []
    if controller.goal_frame is not None:
        controller.set_goal(GoalSample(position=rng.normal(size=3)))
    for tick in range(ticks):
        clock.now_s += DT if rng.random() < 0.98 else 0.5
        stamp_ns = int(clock.now_s * 1e9)
        if rng.random() < 0.95:
            jump = rng.normal(size=3) if rng.random() < 0.02 else 0.0
            controller.set_joints(
                JointSample(position=position + jump, velocity=None, stamp_ns=stamp_ns, arrival_s=clock())
            )
        if tick == 0 or rng.random() < 0.5:
            points = rng.uniform(0.2, 0.4, (8, 3)).astype(np.float32)
            cloud = CloudSample(points=points, stamp_ns=stamp_ns - 10**7, arrival_s=clock() - 0.01)
        controller.set_cloud(cloud)  # as the node does it: in every tick, new or not
        _happen(str(rng.choice(list(EVENTS), p=list(EVENTS.values()))), controller, networks, rng)
        controller.fault()  # status is asked for at any time
        controller.ages_s()
        command = controller.tick()
        commands.append(None if command is None else command.values)
        if command is not None:
            position = command.values.copy()
    journal.close()
    bag.close()
    assert bag.dropped == 0 and not bag.problem
    return commands


def _happen(event, controller, networks, rng):
    if event == "arm":
        with contextlib.suppress(ArmError):
            controller.arm()
    elif event == "swap":
        with contextlib.suppress(ContractError):
            controller.swap(BusyActor(networks[rng.integers(len(networks))], rng))
    elif event == "topic":
        controller.set_topic(CommandTopic(listeners=1, others=("rogue",) if rng.random() < 0.2 else ()))
    elif event != "nothing":
        getattr(controller, event)()


def altered(source, target, change):
    """Copy a bag; change: called with kind and values of each event, gives its values, or None to leave it out."""
    bag = BagWriter(target, max_bytes=1 << 30, on_end=pytest.fail)
    types = message_types()
    for message in read_bag(source):
        data = message.data
        if message.type == EVENT_TYPE:
            pair = types.deserialize_cdr(data, EVENT_TYPE)
            if (values := change(pair.key, json.loads(pair.value))) is None:
                continue
            pair = types.types[EVENT_TYPE](pair.key, json.dumps(values))
            data = bytes(types.serialize_cdr(pair, EVENT_TYPE))
        encode = partial(bytes, data)
        bag.put(Entry(topic=message.topic, type=message.type, log_time_ns=message.log_time_ns, encode=encode))
    bag.close()
    return target
