"""Joint states are read by name, in any order, and refused by the name of what is wrong."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from policy_runner.inputs import GoalError, GoalSample, JointReader, JointStateError

JOINTS = ("a", "b", "c")
POSITION = {"a": 1.0, "b": 2.0, "c": 3.0, "x": 9.0}


def read(reader, names, position=None, velocity=(), stamp_ns=0):
    position = [POSITION[name] for name in names] if position is None else position
    return reader.read(names, position, velocity, stamp_ns=stamp_ns, arrival_s=7.0)


def test_every_order_of_joints_and_any_others_give_the_same_sample():
    reader = JointReader(JOINTS, needs_velocity=False)
    for stamp_ns, names in enumerate(itertools.permutations(["a", "b", "c", "x"]), start=5):
        sample = read(reader, names, stamp_ns=stamp_ns)
        assert sample.position.tolist() == [1.0, 2.0, 3.0]
        assert (sample.velocity, sample.stamp_ns, sample.arrival_s) == (None, stamp_ns, 7.0)


def test_velocities_follow_the_same_order():
    reader = JointReader(JOINTS, needs_velocity=True)
    sample = read(reader, ["c", "x", "a", "b"], velocity=[30.0, 90.0, 10.0, 20.0])
    assert sample.velocity.tolist() == [10.0, 20.0, 30.0]


@pytest.mark.parametrize(
    ("names", "position", "velocity", "message"),
    [
        (["a", "c", "d"], [1, 2, 3], [1, 2, 3], "joint 'b' is missing"),
        ([], [], [], "joint 'a' is missing"),
        (["a", "b", "c", "b"], [1, 2, 3, 4], [1, 2, 3, 4], "joint 'b' is named twice"),
        (["a", "b", "c"], [1, 2], [1, 2, 3], "position: expected 3 values, one a name, got 2"),
        (["a", "b", "c"], [1, 2, 3], [], "velocity: expected 3 values, one a name, got 0"),
        (["a", "b", "c"], [1, np.nan, 3], [1, 2, 3], "position of joint 'b' is not finite"),
        (["c", "b", "a"], [np.inf, 2, 3], [1, 2, 3], "position of joint 'c' is not finite"),
        (["a", "b", "c"], [1, 2, 3], [1, 2, -np.inf], "velocity of joint 'c' is not finite"),
    ],
)
def test_a_joint_state_that_cannot_be_used_is_refused_by_name(names, position, velocity, message):
    with pytest.raises(JointStateError, match=message):
        read(JointReader(JOINTS, needs_velocity=True), names, position, velocity)


def test_values_of_joints_that_are_not_ours_may_be_anything():
    reader = JointReader(JOINTS, needs_velocity=False)
    assert read(reader, ["a", "b", "x", "c"], [1, 2, np.nan, 3]).position.tolist() == [1, 2, 3]


def test_a_refused_message_leaves_the_reader_usable():
    reader = JointReader(JOINTS, needs_velocity=False)
    read(reader, ["a", "b", "c"])
    with pytest.raises(JointStateError):
        read(reader, ["a", "b"])
    assert read(reader, ["c", "b", "a"]).position.tolist() == [1.0, 2.0, 3.0]


def test_a_stamp_that_is_repeated_is_no_news_unless_there_is_none():
    reader = JointReader(JOINTS, needs_velocity=False)
    with pytest.raises(JointStateError, match="'c' is missing"):
        read(reader, ["a", "b"], stamp_ns=5)  # that one said nothing
    read(reader, ["a", "b", "c"], stamp_ns=5)
    for _ in range(3):
        with pytest.raises(JointStateError, match=r"^stamp 5 ns: the same as that of the last joint state$"):
            read(reader, ["a", "b", "c"], [1.0, 2.5, 3.0], stamp_ns=5)
    assert read(reader, ["a", "b", "c"], stamp_ns=4).stamp_ns == 4  # a clock was set back
    for _ in range(3):
        assert read(reader, ["a", "b", "c"]).stamp_ns == 0


def test_a_goal_that_is_not_finite_is_refused():
    with pytest.raises(GoalError, match="not finite"):
        GoalSample(position=np.array([0.0, np.nan, 0.0]))


def test_a_goal_that_is_no_point_is_refused():
    with pytest.raises(GoalError, match=r"expected x y z, got \[\[1.0\]\]"):
        GoalSample(position=np.array([[1.0]]))
