"""A robot whose day has everything in it, over and over: faults, stops, other policies.

    python -m bench.ros.soaked_robot CLOUD.npy CLOUD_HZ SECONDS BUNDLE BUNDLE

Each round injects one fault after the other, waits for the hold and arms again. Prints, as JSON, how often it did what,
how many commands came, and what the runner's diagnostics said, second by second.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import rclpy
from rewarped_msgs.srv import LoadPolicy
from std_srvs.srv import Trigger

from bench.ros.robot_with_camera import RobotWithCamera
from policy_runner.bundle import read_bundle

CALM_S = 2.0
"""Between one event and the next."""


class Day:
    """What happens to the robot."""

    def __init__(self, robot: RobotWithCamera, bundles: list[str]) -> None:
        self._robot, self._bundles = robot, itertools.cycle(bundles)
        self.counts: Counter[str] = Counter()
        create = robot.node.create_client
        self._stop = create(Trigger, "policy_runner/stop")
        self._reset_stop = create(Trigger, "policy_runner/reset_stop")
        self._load_policy = create(LoadPolicy, "policy_runner/load_policy")

    def events(self) -> tuple[Callable[[], None], ...]:
        """Return one round."""
        return (
            self.camera_is_silent,
            self.another_policy,
            self.joint_states_are_silent,
            self.disarmed,
            self.camera_sends_nonsense,
            self.stopped,
            self.joint_states_are_no_numbers,
        )

    def camera_is_silent(self) -> None:
        """Until the runner holds."""
        self._robot.camera_on = False
        self._until_held()
        self._robot.camera_on = True

    def camera_sends_nonsense(self) -> None:
        """Clouds that end too early, until the runner holds."""
        self._robot.cut_clouds = True
        self._until_held()
        self._robot.cut_clouds = False

    def joint_states_are_silent(self) -> None:
        """Until the runner holds."""
        self._robot.joints_on = False
        self._until_held()
        self._robot.joints_on = True

    def joint_states_are_no_numbers(self) -> None:
        """Until the runner holds."""
        position, self._robot.sensor_fault = self._robot.sensor_fault, float("nan")
        self._until_held()
        self._robot.sensor_fault = position

    def another_policy(self) -> None:
        """Exchanged while the robot moves."""
        answer = self._robot.call(self._load_policy, LoadPolicy.Request(path=next(self._bundles)))
        if not answer.success:
            raise RuntimeError(f"load_policy: {answer.message}")

    def disarmed(self) -> None:
        """By the operator."""
        self._robot.disarm()
        self._until_held()

    def stopped(self) -> None:
        """By the operator, who then allows arming again."""
        self._robot.call(self._stop, Trigger.Request())
        self._until_held()
        self._robot.call(self._reset_stop, Trigger.Request())

    def pass_by(self, seconds: float) -> None:
        """Let one event follow the other for so long."""
        end_s = time.monotonic() + seconds
        for event in itertools.cycle(self.events()):
            self._robot.arm()
            self._robot.pass_time(CALM_S)
            if time.monotonic() >= end_s:
                return
            event()
            self.counts[event.__name__] += 1

    def _until_held(self) -> None:
        count = len(self._robot.commands)
        self._robot.until(lambda: any(not stamp_ns for _, _, stamp_ns in self._robot.commands[count:]))


def main() -> None:
    """Live through it."""
    image, cloud_hz, seconds, bundles = sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]
    rclpy.init()
    robot = RobotWithCamera(read_bundle(bundles[0]).contract, np.load(image), cloud_hz)
    day = Day(robot, bundles[1:] + bundles[:1])
    day.pass_by(seconds)
    numbers, times_ns = zip(*((number, sent_ns) for number, sent_ns, _ in robot.commands), strict=True)
    result = {
        "events": day.counts,
        "published": numbers[-1] - numbers[0] + 1,
        "seconds": (times_ns[-1] - times_ns[0]) * 1e-9,
        "diagnostics": robot.diagnostics,
    }
    print(json.dumps(result))
    rclpy.shutdown()


if __name__ == "__main__":
    main()
