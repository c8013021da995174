"""Rows 11 to 15 of docs/faults.md: joint states, and clocks that are set, stand still or run on without us."""

from __future__ import annotations

import itertools
import signal

import numpy as np
import pytest
from injection import TIMEOUT_S

HOUR_S = 3600
stale = {"reason": "joint_state_stale", "timeout_s": TIMEOUT_S}


# 11: names


def test_joints_in_another_order_and_joints_of_others_change_no_command(faults):
    """The robot stands still, so that the policy says the same again and again."""
    robot = faults.robot
    robot.obeys, moving, robot.drift = False, robot.drift, lambda: 0.0
    robot.position = np.array([0.31, 0.29, 0.28])  # within one step of where the cloud is
    orders = itertools.cycle(itertools.permutations(range(5)))

    def shuffled(joints):
        order = next(orders)
        names = [*joints.name, "gripper", "base"]
        values = np.array([*joints.position, np.nan, 7.0])
        joints.name = [names[index] for index in order]
        joints.position = values[list(order)].tolist()
        joints.velocity = [0.0] * 5
        return [joints]

    with faults.goes_on():
        robot.until(lambda: len({tuple(sent.positions) for sent in robot.stream[-10:]}) == 1)
        as_before = robot.stream[-1].positions
        robot.joints_sent, first = shuffled, len(robot.stream)
        robot.until(lambda: len(robot.stream) >= first + 50)
        for sent in robot.stream[first:]:
            np.testing.assert_array_equal(sent.positions, as_before)
    robot.obeys, robot.drift = True, moving


def test_joint_states_without_a_joint_of_the_policy_are_dropped(faults):
    robot = faults.robot
    names = itertools.cycle(
        [["pin_x", "elbow", "pin_yaw"], ["pin_x", "pin_y", "pin_y"], ["pin_x", "", "pin_yaw"], ["pin_x"] * 3]
    )

    def renamed(joints):
        joints.name = next(names)
        return [joints]

    with faults.holds(**stale, drops=["joint_state_bad"]):
        robot.joints_sent = renamed


def test_the_joint_that_is_missing_is_named_to_who_would_arm(faults):
    robot = faults.robot
    with faults.holds(**stale, drops=["joint_state_bad"]):
        robot.joint_names = ["pin_x", "elbow", "pin_yaw"]
        robot.until(lambda: "holding" in robot.status.message)
        answer = robot.call("arm", data=True)
    assert not answer.success
    assert "joint_state_stale" in answer.message and "joint 'pin_y' is missing" in answer.message


# 12: values


@pytest.mark.parametrize("field", ["position", "velocity"])
def test_joint_states_with_values_that_are_none_are_dropped(faults, field):
    values = itertools.cycle([[0.5, np.nan, 0.0], [0.5, np.inf, 0.0], [0.5, 0.3], [0.5, 0.3, 0.0, 0.0], []])

    def spoilt(joints):
        setattr(joints, field, next(values))
        return [joints]

    with faults.holds(**stale, drops=["joint_state_bad"]):
        faults.robot.joints_sent = spoilt


def test_joint_states_that_stop_are_not_used_for_longer_than_the_timeout(faults):
    with faults.holds(**stale):
        faults.robot.joints_on = False


# 13: places


@pytest.mark.parametrize("jump", [[0.0, 0.0, 1.0], [0.4, 0.0, 0.0], [0.0, 0.0, 50.0]])
def test_a_joint_that_is_suddenly_elsewhere_holds_and_is_never_followed(faults, jump):
    with faults.holds("joint_jump"):
        faults.robot.sensor_fault = np.array(jump)


# 14: clocks that are set


def test_when_the_clock_of_all_sensors_is_set_the_runner_holds_and_then_takes_the_new_time(faults):
    robot = faults.robot
    try:
        for offset_s in (HOUR_S, 0, -HOUR_S):
            with faults.holds("input_skew", drops=["cloud_bad_stamp"]):
                robot.clock_offset_s = offset_s
    finally:
        robot.clock_offset_s = 0


# 15: a process that was not there


def test_a_process_that_was_suspended_uses_nothing_from_before_or_during_its_sleep(faults):
    robot = faults.robot
    with faults.holds("stalled"):
        robot.process.send_signal(signal.SIGSTOP)
        robot.pass_time(2.0)
        robot.process.send_signal(signal.SIGCONT)
