"""What a controller was told and answered comes back from a bag bit for bit, and does the same again."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest

from policy_runner.bag import BagWriter
from policy_runner.controller import CommandTopic
from policy_runner.inference import InferenceError, InferenceLateError
from policy_runner.inputs import CloudSample, GoalSample, JointSample
from policy_runner.journal import Journal, read_journal
from policy_runner.limiter import UserLimits
from policy_runner.recording import RecordedController
from policy_runner.repeat import repeat
from policy_runner.safety import ArmError
from policy_runner.settings import RunnerSettings

DT = 1.0 / 60.0
NOT_DECIDING = {"ages_s", "detail", "fault"}
"""Methods of a controller that only tell."""


class Clock:
    def __init__(self):
        self.now_s = 1234.567890123456

    def __call__(self):
        self.now_s += 1.1e-5  # never twice the same, as of a real one
        return self.now_s


class Network:
    """A function of what it sees, wild enough to reach limits, that fails on some of it; late as it is told."""

    def __init__(self, contract, digest="first", gain=3.0):
        self.contract, self.digest, self.gain = contract, digest, gain
        self.ready, self.late = True, False

    def act(self, observation):
        if self.late:
            raise InferenceLateError("no action in time")
        total = sum(float(values.sum()) for values in observation.values())
        if int(total * 1e4) % 60 == 0:
            raise InferenceError("action is not finite")
        return np.sin(self.gain * total + np.arange(3)).astype(np.float32)


def contract_of(bundles):
    contract = bundles.contract()
    goal = replace(contract.obs_terms[0], name="goal", kind="goal_position", unit="m", frame="world")
    last = replace(contract.obs_terms[0], name="last", kind="previous_action", unit="")
    return replace(contract, obs_terms=(*contract.obs_terms, goal, last))


def record(bundles, path, seed, ticks=400):
    """Drive a recorded controller through random inputs and faults; returns its commands."""
    rng, clock = np.random.default_rng(seed), Clock()
    contract = contract_of(bundles)
    bag = BagWriter(path, max_bytes=1 << 30, on_end=pytest.fail)
    first, second = Network(contract), Network(replace(contract, policy_name="second"), "second", 1.7)
    settings = RunnerSettings(ramp_in_s=0.5, restart_after_stale=bool(seed % 2), max_start_distance=100.0)
    journal = Journal(bag, node="/runner", frame="world", clock=clock)
    controller = RecordedController(
        first,
        settings,
        journal=journal,
        user_limits={"pin_x": UserLimits(max_velocity=0.3, max_acceleration=6.0)},
        clock=clock,
    )
    position, network, commands = np.array([0.5, 0.3, 0.0]), first, []
    controller.set_goal(GoalSample(position=rng.normal(size=3)))
    for tick in range(ticks):
        clock.now_s += DT if rng.random() < 0.98 else 0.5
        stamp_ns = int(clock.now_s * 1e9)
        if rng.random() < 0.95:
            jump = rng.normal(size=3) if rng.random() < 0.02 else 0.0
            controller.set_joints(
                JointSample(position=position + jump, velocity=None, stamp_ns=stamp_ns, arrival_s=clock())
            )
        if rng.random() < 0.5:
            points = rng.uniform(0.2, 0.4, (8, 3)).astype(np.float32)
            cloud = CloudSample(points=points, stamp_ns=stamp_ns - 10**7, arrival_s=clock() - 0.01)
        if tick > 3:
            controller.set_cloud(cloud)
        network.ready = rng.random() < 0.98
        network.late = rng.random() < 0.02
        event = rng.choice(["arm", "disarm", "stop", "reset_stop", "swap", "topic", "jump", "none"],
                           p=[0.3, 0.02, 0.01, 0.1, 0.02, 0.05, 0.01, 0.49])  # fmt: skip
        if event == "arm":
            with contextlib.suppress(ArmError):
                controller.arm()
        elif event == "swap":
            network = second if network is first else first
            controller.swap(network)
        elif event == "topic":
            controller.set_topic(CommandTopic(listeners=1, others=("rogue",) if rng.random() < 0.2 else ()))
        elif event == "jump":
            controller.note_clock_jump()
        elif event != "none":
            getattr(controller, event)()
        controller.fault(), controller.ages_s()  # status is asked for at any time
        command = controller.tick()
        commands.append(None if command is None else command.values)
        if command is not None:
            position = command.values.copy()
    journal.close()
    bag.close()
    assert bag.dropped == 0 and not bag.problem
    return commands


def networks(bundles):
    contract = contract_of(bundles)
    return {"first": Network(contract), "second": Network(contract, "second", 1.7)}


@pytest.mark.parametrize("seed", range(6))
def test_a_run_of_random_inputs_and_faults_is_replayed_to_the_bit(bundles, tmp_path, seed):
    commands = record(bundles, tmp_path / "bag", seed)
    outcome = repeat(read_journal(tmp_path / "bag"), networks(bundles))
    assert outcome.first is None and outcome.differences == 0, outcome.first
    assert outcome.complete and outcome.missing == 0
    assert sum(outcome.modes.values()) == len(commands)
    assert sum(command is not None for command in commands) > 100  # else there was nothing to compare
    for command, replayed in zip(commands, outcome.replayed, strict=True):
        if command is None:
            assert np.isnan(replayed).all()
        else:
            assert command.tobytes() == replayed.tobytes()
