"""The newest inputs are judged by their arrival; after a time away, nothing that waited passes for fresh."""

from __future__ import annotations

import numpy as np
import pytest

from policy_runner.inputs import CloudSample, GoalSample, JointSample
from policy_runner.latest_inputs import InputNeeds, LatestInputs
from policy_runner.safety import HoldReason

NEEDS = InputNeeds(cloud=True, goal=False, joint_state_timeout_s=0.1, cloud_timeout_s=0.25, max_skew_s=0.15)


def joints(arrival_s, stamp_s=0.0):
    return JointSample(
        position=np.zeros(2), velocity=None, stamp_ns=round(stamp_s * 1e9), arrival_s=arrival_s
    )


def cloud(arrival_s, stamp_s=0.0):
    return CloudSample(
        points=np.zeros((4, 3), np.float32), stamp_ns=round(stamp_s * 1e9), arrival_s=arrival_s
    )


def complete(now_s, needs=NEEDS):
    inputs = LatestInputs(needs)
    inputs.take_joints(joints(now_s, now_s))
    inputs.take_cloud(cloud(now_s, now_s))
    return inputs


def test_what_never_came_is_stale_the_joints_first():
    inputs = LatestInputs(NEEDS)
    assert inputs.fault(0.0) is HoldReason.JOINT_STATE_STALE
    inputs.take_joints(joints(0.0))
    assert inputs.fault(0.0) is HoldReason.CLOUD_STALE
    inputs.take_cloud(cloud(0.0))
    assert inputs.fault(0.0) is None
    assert inputs.ages_s(0.2) == {"joint_state": 0.2, "cloud": 0.2}


def test_an_input_is_stale_after_its_own_timeout():
    inputs = complete(10.0)
    assert inputs.fault(10.1) is None
    assert inputs.fault(10.11) is HoldReason.JOINT_STATE_STALE
    inputs.take_joints(joints(10.3))
    assert inputs.fault(10.3) is HoldReason.CLOUD_STALE


def test_evidence_says_how_old_an_input_is_or_that_there_was_none():
    inputs = LatestInputs(NEEDS)
    assert inputs.evidence(HoldReason.CLOUD_STALE, 3.0) == "none has come"
    inputs = complete(10.0)
    assert inputs.evidence(HoldReason.CLOUD_STALE, 10.5) == "the last one came 0.50 s ago, at most 0.25 s"
    assert (
        inputs.evidence(HoldReason.JOINT_STATE_STALE, 10.5) == "the last one came 0.50 s ago, at most 0.10 s"
    )
    inputs.take_cloud(cloud(10.0, 9.75))
    assert inputs.fault(10.0) is HoldReason.INPUT_SKEW
    assert "disagree by 0.250 s, at most 0.15 s" in inputs.evidence(HoldReason.INPUT_SKEW, 10.0)
    assert inputs.evidence(HoldReason.OTHER_PUBLISHER, 10.0) == ""


def test_only_what_the_policy_needs_is_missed():
    blind = InputNeeds(cloud=False, goal=False, joint_state_timeout_s=0.1, cloud_timeout_s=0.25)
    inputs = LatestInputs(blind)
    inputs.take_joints(joints(5.0, 7.0))
    assert inputs.fault(5.0) is None and inputs.oldest_stamp_ns() == 7_000_000_000
    goal = InputNeeds(cloud=False, goal=True, joint_state_timeout_s=0.1, cloud_timeout_s=0.25)
    inputs = LatestInputs(goal)
    inputs.take_joints(joints(5.0))
    assert inputs.fault(5.0) is HoldReason.GOAL_MISSING
    inputs.take_goal(GoalSample(position=np.zeros(3)))
    assert inputs.fault(5.0) is None


@pytest.mark.parametrize(("shift_s", "fault"), [(0.14, None), (0.16, HoldReason.INPUT_SKEW)])
def test_stamps_may_disagree_with_arrivals_only_so_far(shift_s, fault):
    for sign in (1.0, -1.0):
        inputs = complete(10.0)
        inputs.take_cloud(cloud(10.0, 10.0 + sign * shift_s))
        assert inputs.fault(10.0) is fault


def test_the_oldest_stamp_is_that_of_the_older_input():
    inputs = complete(10.0)
    inputs.take_joints(joints(10.1, 10.1))
    assert inputs.oldest_stamp_ns() == 10_000_000_000


def test_after_a_time_away_only_what_comes_after_the_timeout_is_believed():
    """Queued messages come at once when the process goes on, and look as if they were new."""
    inputs = complete(10.0)
    inputs.take_joints(joints(12.0))  # it waited in a queue, and was taken before the first tick
    inputs.forget(until_s=12.101)
    assert inputs.fault(12.001) is HoldReason.JOINT_STATE_STALE and not inputs.ages_s(12.001)
    for late_s in (11.9, 12.0, 12.01, 12.09):
        inputs.take_joints(joints(late_s))
        inputs.take_cloud(cloud(late_s))
        assert inputs.fault(12.1) is HoldReason.JOINT_STATE_STALE
    inputs.take_joints(joints(12.102))
    inputs.take_cloud(cloud(12.102))
    assert inputs.fault(12.102) is None


def test_what_is_forgotten_may_be_said_again_at_once():
    inputs = complete(10.0)
    old_joints, old_cloud = inputs.joints, inputs.cloud
    inputs.forget(until_s=10.001)
    inputs.take_joints(old_joints)  # not that, which is still at hand
    inputs.take_cloud(old_cloud)
    assert inputs.fault(10.001) is HoldReason.JOINT_STATE_STALE
    inputs.take_joints(joints(10.001))
    assert inputs.fault(10.001) is HoldReason.CLOUD_STALE
    inputs.take_cloud(cloud(10.001))
    assert inputs.fault(10.001) is None


def test_a_goal_outlives_a_time_away():
    inputs = LatestInputs(InputNeeds(cloud=False, goal=True, joint_state_timeout_s=0.1, cloud_timeout_s=0.25))
    goal = GoalSample(position=np.ones(3))
    inputs.take_goal(goal)
    inputs.forget(until_s=3.0)
    assert inputs.goal is goal
