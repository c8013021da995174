"""Inject a fault into a moving robot: the stream of commands stays safe, the hold is counted, the robot recovers."""

from __future__ import annotations

import json
import math
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from command_stream import assert_comes_to_rest, assert_safe, by_policy
from robot import ROOT, values_of

from policy_runner.contract import ObsTerm

RATE_HZ = 25.0
TIMEOUT_S = 12.5 / RATE_HZ
"""Between two ticks, so that a tick that is a little late changes no count."""
SETTINGS = {
    "rate_hz": RATE_HZ,
    "cloud_timeout_s": TIMEOUT_S,
    "joint_state_timeout_s": TIMEOUT_S,
    "max_input_skew_s": 5.0,
    "inference_budget_s": 0.1,
    "max_joint_jump": 0.3,  # the robot here is where it is told to be at once: two commands in a row are a small jump
}
PROFILE = {"FASTDDS_DEFAULT_PROFILES_FILE": str(ROOT / "config" / "fastdds_shm.xml")}
"""What the launch files set for large clouds."""
NOISE = ("dropped_cloud_superseded", "deadline_misses")
"""Counters that a busy machine raises by itself."""


def counters(values):
    """Counters of holds and drops by name, from the values of a diagnostic status."""
    names = [name for name in values if name.startswith(("held_", "dropped_", "deadline_"))]
    return {name: int(values[name]) for name in names if name not in NOISE}


@dataclass(kw_only=True)
class Trial:
    """A fault while it is looked at."""

    injected_ns: int
    """Of the sensors' clock; the body may set it to a later moment."""
    measured: dict[str, Any] = field(default_factory=dict)
    """What came out of it, once it is over."""


def follower(bundles, *more_terms):
    """Contract and weights of a policy that follows the cloud: each joint goes where the cloud's centre is."""
    contract = bundles.contract()
    action = replace(contract.action, scale=(0.05, 0.05, 0.3))
    joint_qd = ObsTerm(name="joint_qd", kind="joint_velocity", shape=(3,), unit="rad/s or m/s")
    cloud = replace(contract.point_cloud, min_points=5)
    contract = replace(
        contract, action=action, obs_terms=(*contract.obs_terms, joint_qd, *more_terms), point_cloud=cloud
    )
    w = {"W": np.zeros((contract.state_size, 3)), "V": np.zeros((3, 3))}
    w["W"][:6] = np.vstack([-10.0 * np.eye(3), 10.0 * np.eye(3)])  # joint_q, com_q
    return contract, {name: value.astype(np.float32) for name, value in w.items()}


def round_trip():
    """Where the cloud is by now: on a circle, at two thirds of the joints' top speed."""
    angle = 2.0 * time.monotonic()
    return np.array([0.2 + 0.2 * np.cos(angle), -0.05 + 0.1 * np.sin(angle), 0.0])


class Faults:
    """Injects faults into one running robot, one after the other, and looks at what becomes of each."""

    def __init__(self, robot, record):
        self.robot, self.record = robot, record
        self.dt_s = 1.0 / RATE_HZ

    def move(self):
        """Arm, let the policy move the robot for a while, and return where in the stream that began."""
        robot = self.robot
        robot.mend()
        robot.pass_time(0.05)  # else what comes with the arming is the first that is good again, and a jump
        robot.arm()
        armed = len(robot.stream)
        robot.until(lambda: len(by_policy(robot.stream[armed:])) >= 5)
        robot.until(lambda: robot.status.message == "active: running")
        return armed

    @contextmanager
    def holds(self, reason, *, drops=(), timeout_s=0.0, mend=lambda: None):
        """Inject a fault in the body; the runner must hold for `reason`, and go on when all is mended.

        drops: why messages are dropped; timeout_s: how long the last good inputs may be used, where what is wrong is
        that no more of them come; mend: what else it takes.
        """
        armed = self.move()
        robot, trial = self.robot, Trial(injected_ns=self.robot.now_ns())
        before, rss_mb, seen = counters(values_of(robot.status)), robot.rss_mb(), len(robot.diagnostics)
        yield trial
        robot.held(commands=5)
        stream = robot.stream[armed:]
        assert_comes_to_rest(stream)
        last_ns = by_policy(stream)[-1].stamp_ns
        assert last_ns < trial.injected_ns, "a command was computed from what came with the fault"
        extrapolated = sum(sent.stamp_ns == last_ns for sent in stream) if timeout_s else 0
        assert extrapolated <= math.ceil(timeout_s / self.dt_s) + 1
        rose = self.rose_since(before, seen)
        assert set(rose) == {f"held_{reason}", *(f"dropped_{name}" for name in drops)}
        assert rose[f"held_{reason}"] == 1
        trial.measured = {"held_for": reason, "from_last_inputs": extrapolated, "counted": rose}
        self.observe(stream, rss_mb=robot.rss_mb() - rss_mb, **trial.measured)
        mend()
        self.move()

    @contextmanager
    def goes_on(self, *, drops=()):
        """Inject in the body what is no reason to hold, and let it pass there. drops: why messages are dropped."""
        armed = self.move()
        robot = self.robot
        before, rss_mb, seen = counters(values_of(robot.status)), robot.rss_mb(), len(robot.diagnostics)
        yield
        stream = robot.stream[armed:]
        assert len(by_policy(stream)) == len(stream)
        robot.call("arm", data=False)
        rose = self.rose_since(before, seen)
        assert rose.pop("held_disarmed") == 1
        assert set(rose) == {f"dropped_{name}" for name in drops}
        self.observe(stream, counted=rose, rss_mb=robot.rss_mb() - rss_mb)

    def rose_since(self, before, seen):
        """Return the counters that rose until the diagnostics after the first `seen` that tell of a hold."""
        robot = self.robot

        def of_holds():
            return [
                values
                for message in robot.diagnostics[seen:]
                if (values := values_of(message.status[0]))["mode"] == "holding"
            ]

        robot.until(of_holds)
        after = counters(of_holds()[0])
        return {
            name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)
        }

    def observe(self, stream, **measured):
        """Check the stream, and leave what was measured in the test's report, where `bench.faults` finds it."""
        largest_step = assert_safe(stream, self.robot.contract.action, self.dt_s)
        self.record("fault", json.dumps({"commands": len(stream), "largest_step": largest_step} | measured))
