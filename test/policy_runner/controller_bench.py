"""A controller on a clock of our own, with a policy that acts as told and a robot that does as told."""

from __future__ import annotations

import numpy as np

from policy_runner.controller import Controller
from policy_runner.inputs import CloudSample, JointSample
from policy_runner.settings import RunnerSettings

DT = 1.0 / 60.0
START = np.array([0.5, 0.3, 0.0])
MOVE = np.array([0.005, -0.0025, 0.05])
"""What the fake policy's action comes to."""


class FakeClock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


class FakePolicy:
    """Acts as told and remembers what it saw."""

    def __init__(self, contract, action=(0.5, -0.25, 1.0)):
        self.contract, self.digest = contract, ""
        self.action = action
        self.seen = []
        self.duration_s = 0.0
        self.clock = None
        self.ready = True

    def act(self, observation):
        self.seen.append(observation)
        if self.clock is not None:
            self.clock.now_s += self.duration_s
        if isinstance(self.action, Exception):
            raise self.action
        return np.asarray(self.action, np.float32)


class Bench:
    """A controller with a robot that does as told, at 60 Hz, and sensors that can be switched off."""

    def __init__(
        self, bundles, *, settings=None, contract=None, policy=None, user_limits=None, home_position=None
    ):
        self.clock = FakeClock()
        self.contract = contract or bundles.contract()
        self.policy = policy or FakePolicy(self.contract)
        settings = {"ramp_in_s": 0.0} | (settings or {})
        self.controller = Controller(
            self.policy,
            RunnerSettings(**settings),
            user_limits=user_limits,
            home_position=home_position,
            clock=self.clock,
        )
        self.position = START.copy()
        self.cloud = self.joints = self.obeys = True
        self.topic = None
        self.commands = []

    def sense(self):
        now = self.clock.now_s
        stamp_ns = round(now * 1e9)
        if self.joints:
            sample = JointSample(position=self.position, velocity=None, stamp_ns=stamp_ns, arrival_s=now)
            self.controller.set_joints(sample)
        if self.cloud:
            points = np.full((8, 3), 0.25, np.float32)
            self.controller.set_cloud(CloudSample(points=points, stamp_ns=stamp_ns, arrival_s=now))

    def run(self, ticks):
        for _ in range(ticks):
            self.clock.now_s += DT
            self.sense()
            if self.topic is not None:
                self.controller.set_topic(self.topic)
            command = self.controller.tick()
            if command is not None and self.obeys:
                self.position = command.values.copy()
            self.commands.append(command)
        return self.commands[-1]

    def armed(self):
        self.run(1)
        self.controller.arm()
        return self
