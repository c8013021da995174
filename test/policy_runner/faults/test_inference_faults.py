"""Rows 25 to 30 and 32 of docs/faults.md: what the network gives, who listens, and where the robot stands."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import pairwise

import networks
import numpy as np
import pytest
from cloud_layouts import in_place_of
from command_stream import by_policy
from injection import RATE_HZ, TIMEOUT_S, follower
from lifecycle_msgs.msg import Transition
from rclpy.parameter import Parameter
from robot import cloud_message
from sensor_msgs.msg import JointState

SLOW_DT_S = 3.0
"""The period that the policies were trained at, by what they say: long enough for the slow one to be taken."""
PLACES = {
    "nan": (networks.NAN_BEYOND_X + 0.05, 0.3, 0.3),
    "infinity": (0.3, networks.INFINITE_BEYOND_Y + 0.05, 0.3),
    "a million": (0.3, 0.3, networks.HUGE_BEYOND_Z + 0.05),
    "to and fro": (0.3, 0.3, networks.SWINGS_BEYOND_Z + 0.1),
}


@pytest.fixture(scope="module")
def policies(bundles, tmp_path_factory):
    """Folders of a policy that goes wrong in places, and of the same one, slow."""
    contract, w = follower(bundles, networks.PREVIOUS_ACTION)
    contract = replace(contract, control_dt_s=SLOW_DT_S)
    folder, golden = tmp_path_factory.mktemp("policies"), networks.golden(bundles, contract, w)
    for name, change in {"wild": networks.go_wrong, "slow": networks.be_slow}.items():
        bundles.write(folder / name, contract, w=w, change_models=change, golden=golden)
    return contract, folder


@pytest.fixture(scope="module")
def moving_robot(start_moving, policies):
    contract, folder = policies
    robot = start_moving(contract=contract, policy=str(folder / "wild"), policy_dirs=f"['{folder}']")
    robot.wild, robot.slow = str(folder / "wild"), str(folder / "slow")
    return robot


def show(robot, place):
    """Let the cloud stand where the network goes wrong in this way."""
    points = np.tile(PLACES[place], (40, 1))
    robot.clouds_sent = lambda cloud: [in_place_of(cloud, cloud_message(points))]


@contextmanager
def configured(robot, **parameters):
    """Configure the runner anew, with other parameters for a while."""

    def configure(values):
        for transition in ("DEACTIVATE", "CLEANUP"):
            assert robot.change_state(getattr(Transition, f"TRANSITION_{transition}"))
        messages = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        assert all(result.successful for result in robot.call("set_parameters", parameters=messages).results)
        for transition in ("CONFIGURE", "ACTIVATE"):
            assert robot.change_state(getattr(Transition, f"TRANSITION_{transition}"))

    before = robot.parameters
    configure(parameters)
    yield
    configure({name: before[name] for name in parameters})


# 25: what is no action


@pytest.mark.parametrize("action", ["nan", "infinity", "a million"])
def test_what_is_no_action_is_never_clamped_into_one(faults, action):
    with faults.holds("policy_fault"):
        show(faults.robot, action)


# 26: too slow


def test_a_network_that_does_not_answer_in_time_takes_no_tick_with_it(faults):
    """The policy is exchanged in motion for one that takes many control periods for each action."""
    robot = faults.robot
    restore = partial(robot.call, "load_policy", path=robot.wild)
    with faults.holds("inference_late", mend=restore) as trial:
        assert robot.call("load_policy", path=robot.slow).success
        trial.injected_ns = robot.now_ns()
        robot.until(lambda: "inference_late" in robot.status.message)
        asked_ns, answered = robot.now_ns(), len(robot.stream)
        assert (
            "inference_late" in robot.call("arm", data=True).message
        )  # it is still busy, and nobody waits for it
        assert len(robot.stream) - answered <= 2 + RATE_HZ * (robot.now_ns() - asked_ns) * 1e-9


def test_ticks_that_take_too_long_again_and_again_hold(faults):
    """Where the network may take as long as it likes, the loop waits for it, but not again and again."""
    robot = faults.robot
    patient = dict.fromkeys(("inference_budget_s", "joint_state_timeout_s", "cloud_timeout_s"), 10.0)
    with configured(robot, policy=robot.slow, deadline_miss_limit=3, **patient):
        robot.mend()
        robot.arm()
        first = len(robot.stream)
        robot.held(commands=5)
        assert len(by_policy(robot.stream[first:])) == 3
        faults.observe(robot.stream[first:], held_for="deadline_missed")
        assert robot.counter("held_deadline_missed") == 1
        assert robot.counter("deadline_misses") >= 3


# 27: to and fro


def test_an_action_that_swings_from_limit_to_limit_moves_the_robot_no_faster_than_it_may(faults):
    robot = faults.robot
    with faults.goes_on():
        first = len(robot.stream)
        show(robot, "to and fro")
        robot.until(lambda: len(robot.stream) >= first + 40)
        saturation = float(robot.diagnosis()["saturation"])
    steps = np.diff([sent.positions for sent in robot.stream[first + 5 : first + 40]], axis=0)
    assert (steps[1:] * steps[:-1] < 0).any()
    assert saturation > 0.9  # of the actions, the limits cut that share, and an operator can see it


# 28: what a policy remembers


def test_after_a_gap_the_policy_remembers_nothing(faults):
    """The one thing that policies remember is their last action: here, the next one is its opposite."""
    robot, last_steps = faults.robot, []
    while not (np.array(last_steps) > 0).any():  # after which a joint would go back
        with faults.holds("cloud_stale", timeout_s=TIMEOUT_S) as trial:
            show(robot, "to and fro")
            robot.pass_time(0.3)
            robot.cloud_on, trial.injected_ns = False, robot.now_ns()
            robot.until(lambda: "cloud_stale" in robot.status.message)
            stream = by_policy(robot.stream)
            last_steps.append(stream[-1].positions - stream[-2].positions)
        robot.call("arm", data=False)
        robot.held(commands=5)
        show(robot, "to and fro")
        robot.pass_time(0.2)
        at_rest, first = robot.stream[-1].positions, len(robot.stream)
        robot.arm()
        robot.until(lambda: by_policy(robot.stream[first:]))  # noqa: B023
        assert (by_policy(robot.stream[first:])[0].positions > at_rest).all()


# 29, 32: who else is on the topic


def test_without_a_listener_it_neither_runs_nor_is_armed(faults):
    robot = faults.robot
    faults.move()
    held = robot.counter("held_no_listener")
    robot.stop_listening()
    robot.until(lambda: "no_listener" in robot.status.message)
    answer = robot.call("arm", data=True)
    assert not answer.success and "no_listener" in answer.message
    assert robot.counter("held_no_listener") == held + 1
    robot.listen()
    first = len(robot.stream)
    robot.held(commands=5)
    assert not by_policy(robot.stream[first:])
    faults.observe(robot.stream[first:], held_for="no_listener")
    faults.move()


def test_a_second_publisher_on_the_topic_of_commands_ends_motion_and_prevents_it(faults):
    robot = faults.robot
    with faults.holds("other_publisher", mend=lambda: robot.node.destroy_publisher(other)):
        other = robot.node.create_publisher(JointState, "policy_runner/joint_command", 1)
        robot.until(lambda: "other_publisher" in robot.status.message)
        answer = robot.call("arm", data=True)
        assert not answer.success and "commands also come from /robot" in answer.message


# 30: where the policy begins


def test_a_robot_far_from_the_start_pose_is_not_armed_and_one_near_it_begins_slowly(faults):
    robot, allowed = faults.robot, np.array(faults.robot.contract.action.max_velocity) / RATE_HZ
    with configured(robot, ramp_in_s=1.0):
        robot.mend()
        robot.position = np.array([0.5, 0.3, 1.5])
        robot.pass_time(0.2)
        answer = robot.call("arm", data=True)
        assert not answer.success and "joint 'pin_yaw' is at 1.5" in answer.message
        robot.position = np.array([0.7, 0.2, 0.0])
        robot.pass_time(0.2)
        asked_ns, first = robot.now_ns(), len(robot.stream)
        robot.arm()
        robot.until(lambda: len(robot.stream) >= first + 1.5 * RATE_HZ)
        stream = robot.stream[first:]
        for last, sent in pairwise(stream):
            share = min((sent.sent_ns - asked_ns) * 1e-9 / 1.0, 1.0)
            assert (np.abs(sent.positions - last.positions) <= share * allowed + 1e-9).all()
        faults.observe(
            stream, first_step=float((np.abs(stream[0].positions - [0.7, 0.2, 0.0]) / allowed).max())
        )
