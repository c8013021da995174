import numpy as np
import pytest
from builtin_interfaces.msg import Duration
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from policy_runner.contract import ActionSpec
from rewarped_sim.nodes.commands import (
    CommandError,
    action_towards,
    duration_of,
    holding_target,
    target_of,
)

JOINTS = ("a", "b")


def spec_of(mode):
    return ActionSpec(
        joint_names=JOINTS, mode=mode, scale=(4.0, 8.0), lower=(-1, -1), upper=(1, 1), max_velocity=(1, 1)
    )


def trajectory(*points, names=("b", "a")):
    return JointTrajectory(
        joint_names=list(names), points=[JointTrajectoryPoint(positions=p) for p in points]
    )


@pytest.mark.parametrize(
    "message",
    [
        Float64MultiArray(data=[1.0, 2.0]),
        JointState(name=["b", "other", "a"], position=[2.0, 9.0, 1.0]),
        trajectory([0.0, 0.0], [2.0, 1.0]),
    ],
)
def test_all_three_forms_of_a_command_mean_the_same(message):
    assert target_of(message, spec_of("position")) == pytest.approx([1.0, 2.0])


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Float64MultiArray(data=[1.0]), "expected 2 positions .* got 1"),
        (Float64MultiArray(data=[1.0, float("nan")]), "joint 'b': position must be finite"),
        (JointState(name=["a"], position=[1.0]), "joint 'b' is missing"),
        (JointState(name=["a", "b"], position=[1.0]), "2 joint names, but 1 positions"),
        (JointState(name=["b", "a", "b"], position=[1.0, 2.0, 3.0]), "joint 'b' is named twice"),
        (trajectory(), "without points"),
        (trajectory([1.0]), "2 joint names, but 1 positions"),
        (trajectory([float("inf"), 0.0]), "joint 'b': position must be finite"),
    ],
)
def test_commands_that_cannot_be_obeyed_are_refused_with_the_reason(message, reason):
    with pytest.raises(CommandError, match=reason):
        target_of(message, spec_of("position"))


def spec(mode, offset=()):
    return ActionSpec(
        joint_names=JOINTS,
        mode=mode,
        scale=(0.1, 0.5),
        lower=(-1, -1),
        upper=(1, 1),
        max_velocity=(1, 1),
        offset=offset,
    )


def test_motion_is_limited_to_one_control_step():
    action = action_towards(np.array([0.05, -3.0]), np.array([0.0, 0.0]), spec("delta_position"))
    assert action == pytest.approx([0.5, -1.0])


def test_a_robot_at_its_target_stands_still():
    here = np.array([0.3, -0.2])
    assert action_towards(here, here, spec("delta_position")) == pytest.approx([0.0, 0.0])


def test_absolute_actions_are_inverted_with_their_offset():
    action = action_towards(np.array([0.25, 0.0]), np.array([9.0, 9.0]), spec("position", offset=(0.2, 0.1)))
    assert action == pytest.approx([0.5, -0.2])


@pytest.mark.parametrize(
    "message",
    [
        Float64MultiArray(data=[2.0, -20.0]),
        JointState(name=["b", "a"], position=[0.0, 0.0], effort=[-20.0, 2.0]),
        JointTrajectory(joint_names=["a", "b"], points=[JointTrajectoryPoint(effort=[2.0, -20.0])]),
    ],
)
def test_a_task_of_efforts_takes_efforts(message):
    target = target_of(message, spec_of("effort"))
    assert target == pytest.approx([2.0, -20.0])
    assert action_towards(target, np.zeros(2), spec_of("effort")).tolist() == [0.5, -1.0]


@pytest.mark.parametrize(
    ("mode", "message", "reason"),
    [
        ("effort", JointState(name=["a", "b"], position=[0.1, 0.2]), "take efforts; .* has only positions"),
        ("effort", trajectory([0.1, 0.2]), "take efforts; .* has only positions"),
        ("position", JointState(name=["a", "b"], effort=[0.1, 0.2]), "take positions; .* has only efforts"),
        ("effort", JointState(name=["a", "b"], effort=[0.1]), "2 joint names, but 1 efforts"),
        ("effort", Float64MultiArray(data=[float("nan"), 0.0]), "joint 'a': effort must be finite"),
    ],
)
def test_positions_are_no_efforts(mode, message, reason):
    with pytest.raises(CommandError, match=reason):
        target_of(message, spec_of(mode))


def test_without_a_command_joints_hold_their_position_or_are_limp():
    joint_q = np.array([0.3, -0.2])
    for mode, offset in (("delta_position", ()), ("position", (0.2, 0.1))):
        one = spec(mode, offset)
        action = action_towards(holding_target(joint_q, one), joint_q, one)
        goal = np.asarray(one.scale) * action + np.asarray(one.offset) + (joint_q if "delta" in mode else 0.0)
        expected = joint_q if "delta" in mode else np.clip(joint_q, [0.1, -0.4], [0.3, 0.6])
        assert goal == pytest.approx(expected)
    assert action_towards(
        holding_target(joint_q, spec_of("effort")), joint_q, spec_of("effort")
    ).tolist() == [0, 0]
    muscles = spec("effort", offset=(0.1, 0.5))  # slack at -1
    assert action_towards(holding_target(joint_q, muscles), joint_q, muscles).tolist() == [-1, -1]


def test_a_trajectory_ends_with_its_last_point_and_other_commands_at_once():
    points = [JointTrajectoryPoint(time_from_start=Duration(sec=s, nanosec=250_000_000)) for s in (0, 2)]
    assert duration_of(JointTrajectory(points=points)) == 2.25
    for command in (JointTrajectory(), JointState(), Float64MultiArray()):
        assert duration_of(command) == 0.0
