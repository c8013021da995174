"""Joint states that cannot be are told from those that can, by the joint's name."""

from __future__ import annotations

import numpy as np
import pytest

from policy_runner.inputs import JointSample
from policy_runner.joint_domain import JointDomain
from policy_runner.limiter import JointLimits

LIMITS = JointLimits(
    lower=np.array([-1.0, 0.0]),
    upper=np.array([1.0, 0.5]),
    max_velocity=np.array([2.0, 0.1]),
    max_acceleration=np.full(2, np.inf),
    max_effort=np.full(2, np.inf),
)
DT = 0.02


def domain(**changes):
    settings = {"margin": 0.05, "max_jump": 0.1, "max_start_distance": 0.3}
    times = {"control_dt_s": DT, "longest_silence_s": 0.1}
    return JointDomain(("pan", "lift"), LIMITS, (0.0, 0.2), **(settings | times | changes))


def sample(position, *, arrival_s=0.0, stamp_s=0.0):
    return JointSample(
        position=np.array(position), velocity=None, stamp_ns=round(stamp_s * 1e9), arrival_s=arrival_s
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_joint_that_moves_no_faster_than_it_can_never_jumps_whenever_its_states_arrive(seed):
    """States are stamped as they are measured and arrive up to 80 ms later, in order."""
    rng = np.random.default_rng(seed)
    watch = domain(max_jump=1e-6)
    measured_s, arrived_s, position = 100.0, 100.0, np.array([0.0, 0.2])
    last = sample(position, arrival_s=arrived_s, stamp_s=measured_s)
    for _ in range(500):
        step_s = rng.uniform(0.001, 0.09)
        measured_s += step_s
        arrived_s = max(measured_s + rng.uniform(0.0, 0.08), arrived_s)
        position = position + rng.uniform(-1.0, 1.0, 2) * LIMITS.max_velocity * step_s
        new = sample(position, arrival_s=arrived_s, stamp_s=measured_s)
        assert not watch.jump(last, new)
        last = new


def test_a_joint_that_moves_further_has_jumped_and_is_named():
    said = domain().jump(sample([0.0, 0.2]), sample([0.01, 0.2 + 0.002 + 0.101], arrival_s=DT))
    assert said == "joint 'lift' moved by 0.1030 in 0.020 s, top speed 0.1000"
    assert not domain().jump(sample([0.0, 0.2]), sample([0.01, 0.2 + 0.002 + 0.099], arrival_s=DT))


def test_the_longer_it_took_the_further_it_may_have_moved():
    far = [1.0, 0.2]
    assert domain().jump(sample([0.0, 0.2]), sample(far, arrival_s=0.4))
    assert not domain().jump(sample([0.0, 0.2]), sample(far, arrival_s=0.5))


@pytest.mark.parametrize("stamp_s", [3600.0, -3600.0, 0.0])
def test_no_stamp_makes_a_jump_of_one_radian_pass(stamp_s):
    assert domain().jump(sample([0.0, 0.2]), sample([1.0, 0.2], arrival_s=DT, stamp_s=stamp_s))


def test_states_that_come_at_the_same_moment_are_a_control_step_apart():
    assert not domain(max_jump=0.0).jump(sample([0.0, 0.2]), sample([2.0 * DT, 0.2]))


def test_a_joint_may_be_outside_its_limits_by_the_margin_and_by_round_off():
    watch = domain()
    assert not watch.outside(np.array([1.05, -0.05]))
    assert watch.outside(np.array([1.06, 0.2])) == "joint 'pan' is at 1.0600, outside [-1.0000, 1.0000]"
    assert watch.outside(np.array([0.0, -0.06])) == "joint 'lift' is at -0.0600, outside [0.0000, 0.5000]"
    assert not domain(margin=0.0).outside(np.array([1.0 + 1e-9, 0.0]))


def test_commands_can_begin_only_where_commands_can_be():
    assert not domain().beyond_commands(np.array([1.0, 0.5 + 1e-6]))
    assert domain().beyond_commands(np.array([0.0, 0.51])).startswith("joint 'lift' is at 0.5100, outside")


def test_far_from_the_start_pose_is_said_of_the_joint_that_is_furthest():
    assert not domain().far_from_start(np.array([0.3, -0.05]))
    said = domain().far_from_start(np.array([0.31, 0.6]))
    assert said == "joint 'lift' is at 0.6000, further than max_start_distance 0.3 from the start pose 0.2000"
