"""Commands keep to position, speed and acceleration limits whatever the actions; braking ends at rest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from policy_runner.contract import ActionSpec
from policy_runner.limiter import LimitError, UserLimits, make_limiter, tighter, tightest_limits

DT = 0.02
STOP_TIME = 0.2
ACTION = ActionSpec(
    joint_names=("a", "b", "c"),
    mode="position",
    scale=(1.0, 0.5, 3.0),
    lower=(-0.5, 0.1, -2.0),
    upper=(0.7, 0.4, 2.0),
    max_velocity=(1.0, 0.3, 4.0),
)
INFINITE = np.full(3, np.inf)


def setup(mode, max_acceleration=np.inf, **changes):
    action = replace(ACTION, mode=mode, **changes)
    user = {joint: UserLimits(max_acceleration=max_acceleration) for joint in action.joint_names}
    limits = tightest_limits(action, user)
    return limits, make_limiter(action, limits, control_dt_s=DT, stop_time_s=STOP_TIME)


def wild_actions(seed, count=600):
    """Random, extreme, constant and alternating stretches; actions may even leave [-1, 1]."""
    rng = np.random.default_rng(seed)
    parts = []
    while sum(map(len, parts)) < count:
        length = int(rng.integers(1, 40))
        kind = rng.integers(4)
        if kind == 0:
            parts.append(rng.uniform(-1.5, 1.5, (length, 3)))
        elif kind == 1:
            parts.append(np.repeat(rng.choice([-1.0, 0.0, 1.0], (1, 3)), length, axis=0))
        elif kind == 2:
            parts.append(np.where(np.arange(length)[:, None] % 2, 1.0, -1.0) * np.ones(3))
        else:
            parts.append(rng.normal(0, 0.2, (length, 3)).cumsum(axis=0))
    return np.concatenate(parts)[:count]


@pytest.mark.parametrize("mode", ["position", "delta_position"])
@pytest.mark.parametrize("acceleration", [0.05, 1.0, 20.0, np.inf])
@pytest.mark.parametrize("seed", range(3))
def test_commanded_positions_never_leave_any_limit(mode, acceleration, seed):
    limits, limiter = setup(mode, acceleration)
    rng = np.random.default_rng(seed)
    position = rng.uniform(limits.lower, limits.upper)
    limiter.start(position)
    commands = [position]
    for step, act in enumerate(wild_actions(seed)):
        braking = step % 97 > 80  # holds come and go in between
        measured = commands[-1] + rng.normal(0, 0.01, 3)  # the robot lags and its sensors are noisy
        command = limiter.brake() if braking else limiter.follow(act, measured, min(1.0, step / 50))
        commands.append(command.copy())
    commands = np.array(commands)
    velocity = np.diff(commands, axis=0) / DT
    change = np.diff(velocity, axis=0, prepend=np.zeros((1, 3))) / DT
    assert np.isfinite(commands).all()
    assert (commands >= limits.lower).all() and (commands <= limits.upper).all()
    assert (np.abs(velocity) <= limits.max_velocity * (1 + 1e-9) + 1e-12).all()
    assert (np.abs(change) <= limits.max_acceleration * (1 + 1e-6) + 1e-6).all()
    assert np.abs(velocity).max() > 0.02  # it did move


@pytest.mark.parametrize("acceleration", [1.0, np.inf])
@pytest.mark.parametrize("seed", range(3))
def test_commanded_velocities_never_drive_a_joint_out_of_its_limits(acceleration, seed):
    limits, limiter = setup("velocity", acceleration)
    position = np.array([0.0, 0.25, 0.0])
    limiter.start(position)
    previous = np.zeros(3)
    for act in wild_actions(seed):
        velocity = limiter.follow(act * 3, position, 1.0)
        assert (np.abs(velocity) <= limits.max_velocity * (1 + 1e-9)).all()
        assert (np.abs(velocity - previous) <= limits.max_acceleration * DT * (1 + 1e-6) + 1e-9).all()
        previous = velocity.copy()
        position = position + velocity * DT  # a robot that does as told
        assert (position >= limits.lower - 1e-9).all() and (position <= limits.upper + 1e-9).all()


@pytest.mark.parametrize("mode", ["position", "delta_position", "velocity"])
def test_braking_from_top_speed_is_steady_and_takes_the_stop_time(mode):
    limits, limiter = setup(mode, lower=(-90.0,) * 3, upper=(90.0,) * 3)
    position = np.zeros(3)
    limiter.start(position)
    for _ in range(20):
        command = limiter.follow(np.full(3, 50.0), position, 1.0)
        position = command.copy() if mode != "velocity" else position + command * DT
    values = [command.copy()] + [limiter.brake().copy() for _ in range(15)]
    velocity = np.array(values) if mode == "velocity" else np.diff(values, axis=0) / DT
    speed = np.abs(velocity)
    expected = limits.max_velocity / STOP_TIME
    slowing = speed[:-1][speed[:-1].min(axis=1) > 0.2 * limits.max_velocity.min()]
    assert len(slowing) >= 5
    np.testing.assert_allclose(-np.diff(speed, axis=0)[:5] / DT, np.tile(expected, (5, 1)), rtol=1e-6)
    assert (speed[int(STOP_TIME / DT) + 1 :] < 1e-12).all()
    assert limiter.at_rest


def test_at_rest_the_held_position_does_not_creep():
    _, limiter = setup("position", 1.0)
    limiter.start(np.array([0.0, 0.2, 0.0]))
    for _ in range(30):
        limiter.follow(np.array([0.5, 0.9, 0.3]), np.zeros(3), 1.0)
    while not limiter.at_rest:
        held = limiter.brake().copy()
    for _ in range(1000):
        np.testing.assert_array_equal(limiter.brake(), held)


def test_without_limits_in_the_way_a_delta_is_measured_plus_scale_times_action():
    _, limiter = setup("delta_position", scale=(0.01, 0.005, 0.04))
    measured = np.array([0.1, 0.2, 0.3])
    limiter.start(measured)
    act = np.array([1.0, -0.4, 0.7])
    np.testing.assert_allclose(
        limiter.follow(act, measured, 1.0), measured + np.array([0.01, 0.005, 0.04]) * act, atol=1e-15
    )


@pytest.mark.parametrize("acceleration", [0.5, 5.0, np.inf])
def test_a_place_is_reached_and_not_overshot(acceleration):
    _, limiter = setup("position", acceleration)
    start = np.array([-0.4, 0.15, -1.0])
    limiter.start(start)
    act = np.array([0.6, 0.7, 0.5])  # targets 0.6, 0.35, 1.5
    path = np.array([limiter.follow(act, start, 1.0).copy() for _ in range(400)])
    np.testing.assert_allclose(path[-1], [0.6, 0.35, 1.5], atol=1e-9)
    assert (np.diff(path, axis=0) >= -1e-12).all() and (path <= path[-1] + 1e-9).all()


def test_authority_bounds_the_speed():
    limits, limiter = setup("position")
    start = np.array([0.0, 0.2, 0.0])
    limiter.start(start)
    np.testing.assert_array_equal(limiter.follow(np.ones(3), start, 0.0), start)
    np.testing.assert_allclose(
        limiter.follow(np.ones(3), start, 0.25) - start, 0.25 * limits.max_velocity * DT
    )


def test_effort_stays_within_offset_and_scale_and_decays_to_zero():
    _, limiter = setup("effort", offset=(0.5, 0.0, 0.0))
    limiter.start(np.zeros(3))
    np.testing.assert_allclose(limiter.follow(np.array([9.0, -9.0, 0.5]), np.zeros(3), 1.0), [1.5, -0.5, 1.5])
    sizes = [np.abs(limiter.brake()).copy() for _ in range(int(STOP_TIME / DT) + 1)]
    assert (np.diff(sizes, axis=0) <= 0).all()
    assert limiter.at_rest and not limiter.brake().any()


def test_effort_stays_within_the_top_effort_of_each_joint_and_then_decays_as_fast_as_from_it():
    action = replace(ACTION, mode="effort")
    limits = tightest_limits(action, {"a": UserLimits(max_effort=0.1), "c": UserLimits(max_effort=9.0)})
    limiter = make_limiter(action, limits, control_dt_s=DT, stop_time_s=STOP_TIME)
    for sign in (1.0, -1.0):
        limiter.start(np.zeros(3))
        efforts = limiter.follow(sign * np.ones(3), np.zeros(3), 1.0)
        np.testing.assert_allclose(efforts, sign * np.array([0.1, 0.5, 3.0]))
        assert limiter.cut.tolist() == [True, False, False]
    np.testing.assert_allclose(limiter.brake(), (1.0 - DT / STOP_TIME) * np.array([-0.1, -0.5, -3.0]))


def test_a_top_effort_that_makes_no_sense_matters_to_policies_of_efforts_alone():
    user = {"a": UserLimits(max_effort=0.0)}  # as in many a URDF
    assert tightest_limits(ACTION, user).max_velocity.tolist() == [1.0, 0.3, 4.0]
    with pytest.raises(LimitError, match=r"joint_limits.a.max_effort: must be > 0, got 0.0"):
        tightest_limits(replace(ACTION, mode="effort"), user)


def test_the_tightest_of_contract_and_user_wins_joint_by_joint():
    user = {
        "b": UserLimits(min_position=0.2, max_velocity=9.0),
        "c": UserLimits(max_position=9.0, max_velocity=0.5, max_acceleration=7.0),
    }
    limits = tightest_limits(ACTION, user)
    assert limits.lower.tolist() == [-0.5, 0.2, -2.0]
    assert limits.upper.tolist() == [0.7, 0.4, 2.0]
    assert limits.max_velocity.tolist() == [1.0, 0.3, 0.5]
    assert limits.max_acceleration.tolist() == [np.inf, np.inf, 7.0]


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ({"d": UserLimits()}, r"joint_limits.d: no such joint; the policy commands \['a', 'b', 'c'\]"),
        ({"a": UserLimits(min_position=0.8)}, r"joint_limits.a: no room between 0.8 and 0.7"),
        ({"a": UserLimits(max_velocity=0.0)}, r"joint_limits.a.max_velocity: must be > 0, got 0.0"),
        ({"a": UserLimits(max_acceleration=-1.0)}, r"joint_limits.a.max_acceleration: must be > 0"),
        ({"a": UserLimits(max_velocity=np.nan)}, r"joint_limits.a.max_velocity: must be > 0, got nan"),
        ({"a": UserLimits(max_position=np.nan)}, r"joint_limits.a: no room"),
    ],
)
def test_limits_that_make_no_sense_are_refused_by_joint(user, message):
    with pytest.raises(LimitError, match=message):
        tightest_limits(ACTION, user)


def test_of_two_sets_of_limits_the_tighter_one_holds_joint_by_joint():
    user = {"a": UserLimits(min_position=-0.2, max_velocity=0.3), "b": UserLimits(max_acceleration=1.0)}
    urdf = {
        "a": UserLimits(min_position=-0.4, max_position=0.1, max_velocity=0.2, max_effort=2.0),
        "c": UserLimits(),
    }
    assert tighter(user, urdf) == {
        "a": UserLimits(min_position=-0.2, max_position=0.1, max_velocity=0.2, max_effort=2.0),
        "b": UserLimits(max_acceleration=1.0),
        "c": UserLimits(),
    }
    assert tighter(urdf, user) == tighter(user, urdf)


@pytest.mark.parametrize("mode", ["position", "delta_position", "velocity", "effort"])
def test_halting_is_rest_at_once(mode):
    _, limiter = setup(mode, 1.0, lower=(-90.0,) * 3, upper=(90.0,) * 3)
    limiter.start(np.zeros(3))
    for _ in range(20):
        last = limiter.follow(np.ones(3), np.zeros(3), 1.0).copy()
    assert not limiter.at_rest
    rest = limiter.halt().copy()
    np.testing.assert_array_equal(rest, last if "position" in mode else np.zeros(3))
    assert limiter.at_rest
    np.testing.assert_array_equal(limiter.brake(), rest)


@pytest.mark.parametrize("acceleration", [0.5, np.inf])
def test_a_place_is_approached_with_a_share_of_the_speed_and_no_more_than_the_deceleration_of_braking(
    acceleration,
):
    limits, limiter = setup("delta_position", acceleration)
    start, target = np.array([-0.4, 0.15, -1.0]), np.array([0.6, 0.35, 1.5])
    limiter.start(start)
    path = [start]
    while len(path) < 3 or not limiter.at_rest:
        path.append(limiter.approach(target, 0.2).copy())
        assert len(path) < 5000
    velocity = np.diff(path, axis=0, prepend=[start]) / DT
    change = np.abs(np.diff(velocity, axis=0, append=np.zeros((1, 3)))) / DT
    np.testing.assert_allclose(path[-1], target, atol=1e-12)
    assert (np.abs(velocity) <= 0.2 * limits.max_velocity * (1 + 1e-9)).all()
    assert (change <= np.minimum(limits.max_velocity / STOP_TIME, acceleration) * (1 + 1e-6)).all()
    assert (velocity >= -1e-12).all()


@pytest.mark.parametrize("mode", ["position", "delta_position", "velocity", "effort"])
def test_a_cut_is_told_for_each_joint_that_got_less_than_it_was_asked_for(mode):
    limits, limiter = setup(mode, 5.0, offset=(0.0, 0.25, 0.0))
    rng = np.random.default_rng(2)
    position = np.array([0.0, 0.25, 0.0])
    limiter.start(position)
    seen = set()
    for step in range(400):
        act = rng.uniform(-1.2, 1.2, 3) * rng.choice([0.003, 0.1, 1.0])
        before = position
        command = limiter.follow(act, position, min(1.0, step / 50)).copy()
        asked = np.array([0.0, 0.25, 0.0]) + np.array(ACTION.scale) * act
        asked = asked + before if mode == "delta_position" else asked
        np.testing.assert_array_equal(limiter.cut, np.abs(asked - command) > 1e-7)
        seen.update(limiter.cut.tolist())
        if "position" in mode:
            position = command
        elif mode == "velocity":
            position = np.clip(position + command * DT, limits.lower, limits.upper)
    assert seen == {True, False}
