"""Row 14 of docs/faults.md in simulated time: /clock jumps, stands still, starts again."""

from __future__ import annotations

import pytest
from injection import RATE_HZ, TIMEOUT_S
from robot import SENSOR_DT_S, stamp_of
from rosgraph_msgs.msg import Clock

HOUR_S = 3600


class SimulatedClock:
    """Publishes /clock at each step of the world, for as long as it is not paused."""

    def __init__(self, robot):
        self.publisher = robot.node.create_publisher(Clock, "/clock", 10)
        self.now_ns, self.paused = 5000 * 1_000_000_000, False
        robot.each_step = self._step

    def _step(self):
        if not self.paused:
            self.now_ns += round(SENSOR_DT_S * 1e9)
            self.publisher.publish(Clock(clock=stamp_of(self.now_ns)))

    def jump(self, seconds):
        self.now_ns += seconds * 1_000_000_000


@pytest.fixture(scope="module")
def moving_robot(start_moving):
    return start_moving(use_sim_time=True)


@pytest.fixture(scope="module")
def clock(moving_robot):
    return SimulatedClock(moving_robot)


@pytest.mark.parametrize(
    "seconds", [HOUR_S, -HOUR_S, -1], ids=["an hour on", "an hour back", "a second back"]
)
def test_when_simulated_time_jumps_nothing_from_before_is_used_and_no_tick_is_made_up_for(
    faults, clock, seconds
):
    robot = faults.robot
    with faults.holds("stalled"):
        clock.jump(seconds)
        first, began_ns = len(robot.stream), clock.now_ns
        robot.until(lambda: clock.now_ns - began_ns > 1e9)
        assert len(robot.stream) - first <= RATE_HZ + 2  # one for the jump, one for its beginning in between


def test_while_simulated_time_stands_still_nothing_is_commanded_and_then_nothing_is_old(faults, clock):
    robot = faults.robot
    with faults.holds("stalled"):
        clock.paused = True
        robot.pass_time(0.2)
        count = len(robot.stream)
        robot.pass_time(2 * TIMEOUT_S)
        assert len(robot.stream) == count
        clock.paused = False


def test_a_simulation_that_starts_again_is_taken_up_again(faults, clock):
    robot = faults.robot
    with faults.holds("stalled"):
        clock.paused = True
        robot.pass_time(2 * TIMEOUT_S)
        clock.now_ns, clock.paused = 0, False
