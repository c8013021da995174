"""The whole loop on a clock of our own: what goes in, when it holds, and what comes out."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from controller_bench import DT, MOVE, START, Bench, FakePolicy

from policy_runner.contract import ContractError
from policy_runner.inputs import GoalSample
from policy_runner.limiter import LimitError, UserLimits
from policy_runner.safety import ArmError, HoldReason, Mode


@pytest.fixture
def bench(bundles):
    return Bench(bundles)


def test_nothing_is_commanded_before_arming(bench):
    bench.run(10)
    assert bench.commands == [None] * 10 and not bench.policy.seen


def test_the_policy_sees_scaled_terms_in_the_order_of_the_contract(bundles):
    contract = bundles.contract()
    terms = (replace(contract.obs_terms[0], scale=2.0), *contract.obs_terms[1:])
    bench = Bench(bundles, contract=replace(contract, obs_terms=terms)).armed()
    bench.run(1)
    (seen,) = bench.policy.seen
    assert {name: (v.shape, v.dtype) for name, v in seen.items()} == {
        "obs": ((1, 6), np.float32),
        "particle_q": ((1, 8, 3), np.float32),
    }
    np.testing.assert_allclose(seen["obs"][0], [1.0, 0.6, 0.0, 0.25, 0.25, 0.25], rtol=1e-6)


def test_a_command_is_measured_plus_scaled_action_and_carries_the_stamp_of_its_inputs(bench):
    bench.armed()
    for _ in range(5):
        before = bench.position.copy()
        command = bench.run(1)
        np.testing.assert_allclose(command.values, before + MOVE, atol=1e-12)
        assert command.stamp_ns == round(bench.clock.now_s * 1e9)


def test_the_stamp_is_that_of_the_older_input(bench):
    bench.armed().run(1)
    bench.cloud = False
    old = round(bench.clock.now_s * 1e9)
    assert bench.run(3).stamp_ns == old


@pytest.mark.parametrize(
    ("sensor", "reason", "timeout_s"),
    [("cloud", HoldReason.CLOUD_STALE, 0.25), ("joints", HoldReason.JOINT_STATE_STALE, 0.1)],
)
def test_a_silent_sensor_is_answered_by_a_hold_within_its_timeout_plus_one_tick(
    bench, sensor, reason, timeout_s
):
    bench.armed().run(30)
    setattr(bench, sensor, False)
    silent_since = bench.clock.now_s
    while bench.controller.mode is Mode.RUNNING:
        bench.run(1)
    assert timeout_s < bench.clock.now_s - silent_since <= timeout_s + DT + 1e-9
    assert bench.controller.reason is reason
    assert bench.controller.holds == {reason: 1}
    held = bench.run(20).values
    assert bench.controller.at_rest
    for _ in range(50):
        command = bench.run(1)
        np.testing.assert_array_equal(command.values, held)
        assert command.stamp_ns == 0


def test_a_hold_decelerates_instead_of_stopping_dead(bench):
    bench.armed().run(30)
    bench.controller.stop()
    positions = [bench.position.copy()] + [bench.run(1).values for _ in range(14)]
    steps = np.abs(np.diff(positions, axis=0))
    deceleration = np.array(bench.contract.action.max_velocity) / 0.2
    assert (-np.diff(steps, axis=0) <= deceleration * DT**2 * (1 + 1e-9)).all()
    assert (steps[0] > 0).all() and (steps[-1] == 0).all()


def test_the_watchdog_cares_about_arrivals_and_not_about_stamps(bundles):
    bench = Bench(bundles, settings={"max_input_skew_s": 0.0}).armed()
    for shift_s in (3600.0, -3600.0, 0.0):
        for _ in range(10):
            bench.clock.now_s += DT
            bench.sense()
            sample = bench.controller._inputs.cloud
            bench.controller.set_cloud(replace(sample, stamp_ns=sample.stamp_ns + round(shift_s * 1e9)))
            bench.position = bench.controller.tick().values
        assert bench.controller.mode is Mode.RUNNING


@pytest.mark.parametrize("shift_s", [3600.0, -3600.0, 0.2, -0.2])
def test_stamps_that_disagree_with_arrivals_are_a_fault_of_their_own(bench, shift_s):
    bench.armed().run(5)
    bench.sense()
    sample = bench.controller._inputs.cloud
    bench.controller.set_cloud(replace(sample, stamp_ns=sample.stamp_ns + round(shift_s * 1e9)))
    bench.controller.tick()
    assert bench.controller.reason is HoldReason.INPUT_SKEW


def test_a_slow_camera_is_no_skew_while_it_waits_for_the_tick(bench):
    bench.armed().run(5)
    bench.cloud = False
    bench.run(14)  # the cloud is now 0.23 s old, the joint state new
    assert bench.controller.mode is Mode.RUNNING


def test_unstamped_inputs_are_not_compared(bench):
    bench.armed().run(5)
    bench.controller.set_cloud(replace(bench.controller._inputs.cloud, stamp_ns=0))
    assert bench.controller.fault() is None


@pytest.mark.parametrize("restart", [False, True])
def test_after_a_stale_input_it_waits_for_the_operator_or_goes_on_as_set(bundles, restart):
    bench = Bench(bundles, settings={"restart_after_stale": restart}).armed()
    bench.run(10)
    bench.cloud = False
    bench.run(60)
    assert bench.controller.mode is Mode.HOLDING
    bench.cloud = True
    bench.run(20)
    assert bench.controller.mode is (Mode.RUNNING if restart else Mode.HOLDING)
    bench.controller.arm()
    assert bench.controller.mode is Mode.RUNNING


def test_a_policy_that_fails_is_stopped_for_good_and_says_why(bundles):
    bench = Bench(bundles, settings={"restart_after_stale": True}).armed()
    bench.run(10)
    bench.policy.action = RuntimeError("action is not finite")
    command = bench.run(1)
    assert np.isfinite(command.values).all()
    assert bench.controller.reason is HoldReason.POLICY_FAULT
    assert bench.controller.policy_error == "action is not finite"
    bench.policy.action = (0.0, 0.0, 0.0)
    bench.run(60)
    assert bench.controller.mode is Mode.HOLDING


def test_ticks_that_take_too_long_hold_after_as_many_as_allowed(bench):
    bench.armed().run(5)
    bench.policy.clock, bench.policy.duration_s = bench.clock, 0.02
    bench.run(3)
    assert bench.controller.mode is Mode.RUNNING
    bench.run(1)
    assert bench.controller.reason is HoldReason.DEADLINE_MISSED
    assert bench.controller.loop.deadline_misses == 3


def test_a_tick_in_time_between_late_ones_starts_the_count_anew(bench):
    bench.armed().run(5)
    bench.policy.clock = bench.clock
    for tick in range(12):
        bench.policy.duration_s = 0.0 if tick % 3 == 2 else 0.02
        bench.run(1)
    assert bench.controller.mode is Mode.RUNNING and bench.controller.loop.deadline_misses == 8


def test_arming_names_the_input_that_is_missing(bench):
    with pytest.raises(ArmError, match="joint_state_stale"):
        bench.controller.arm()
    bench.cloud = False
    bench.run(1)
    with pytest.raises(ArmError, match="cloud_stale"):
        bench.controller.arm()


def test_arming_outside_the_limits_is_refused_by_the_name_of_the_joint(bench):
    bench.position = np.array([0.5, 0.45, 0.0])
    bench.run(1)
    with pytest.raises(ArmError, match=r"joint 'pin_y' is at 0.4500, outside \[0.1000, 0.4000\]"):
        bench.controller.arm()
    bench.position = np.array([0.5, 0.4 + 1e-6, 0.0])  # round-off is not a position
    bench.run(1)
    bench.controller.arm()


def test_the_ramp_in_lets_the_speed_grow(bundles):
    bench = Bench(bundles, settings={"ramp_in_s": 1.0}, policy=FakePolicy(bundles.contract(), (1.0, 0, 0)))
    bench.armed().run(90)
    positions = np.array([START[0]] + [c.values[0] for c in bench.commands if c is not None])
    speeds = np.diff(positions[:32]) / DT  # until the limit is near
    expected = np.minimum(np.arange(1, 32) * DT, 1.0) * 0.6
    np.testing.assert_allclose(speeds, np.minimum(expected, 0.6), rtol=1e-6)


def test_users_limits_bind_the_commands(bundles):
    limits = {"pin_x": UserLimits(max_position=0.55, max_velocity=0.1)}
    bench = Bench(bundles, policy=FakePolicy(bundles.contract(), (1.0, 0, 0)), user_limits=limits).armed()
    bench.run(200)
    x = np.array([START[0]] + [c.values[0] for c in bench.commands if c is not None])
    assert x.max() == 0.55 and np.diff(x).max() <= 0.1 * DT * (1 + 1e-9)
    with pytest.raises(LimitError):
        Bench(bundles, user_limits={"elbow": UserLimits()})


def test_a_policy_is_exchanged_without_a_jump_if_its_interface_is_the_same(bundles, bench):
    bench.armed().run(10)
    other = FakePolicy(replace(bench.contract, policy_name="second", train={"seed": 2}), (0.0, 0.0, 0.0))
    bench.controller.swap(other)
    before = bench.position.copy()
    np.testing.assert_allclose(bench.run(1).values, before)
    assert other.seen and bench.controller.contract.policy_name == "second"


def test_a_policy_with_another_interface_is_refused_by_the_field(bundles, bench):
    bench.armed().run(10)
    action = replace(bench.contract.action, joint_names=("pin_x", "pin_y", "wrist"))
    with pytest.raises(ContractError, match=r"action.joint_names\[2\]: expected 'pin_yaw', found 'wrist'"):
        bench.controller.swap(FakePolicy(replace(bench.contract, action=action)))
    bench.run(1)
    assert bench.controller.mode is Mode.RUNNING


def test_released_it_commands_nothing_and_can_be_armed_where_the_robot_then_is(bench):
    bench.armed().run(10)
    bench.controller.release()
    assert bench.run(1) is None
    bench.position = np.array([0.2, 0.2, 1.0])
    bench.run(1)
    bench.controller.arm()
    there = bench.position.copy()
    np.testing.assert_allclose(bench.run(1).values, there + MOVE)


def test_goal_and_previous_action_reach_the_policy(bundles):
    contract = bundles.contract()
    terms = (
        replace(contract.obs_terms[0], name="goal", kind="goal_position", frame="world"),
        replace(contract.obs_terms[0], name="last", kind="previous_action"),
        contract.obs_terms[2],
    )
    bench = Bench(bundles, contract=replace(contract, obs_terms=terms))
    bench.run(1)
    with pytest.raises(ArmError, match="goal_missing"):
        bench.controller.arm()
    bench.controller.set_goal(GoalSample(position=np.array([0.1, 0.2, 0.3])))
    bench.armed().run(2)
    first, second = (seen["obs"][0] for seen in bench.policy.seen)
    np.testing.assert_allclose(first, [0.1, 0.2, 0.3, 0, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(second, [0.1, 0.2, 0.3, 0.5, -0.25, 1.0], rtol=1e-6)


def test_a_term_of_the_wrong_size_is_refused_by_name(bundles):
    contract = bundles.contract()
    terms = (replace(contract.obs_terms[0], shape=(4,)), *contract.obs_terms[1:])
    with pytest.raises(ContractError, match=r"obs_terms\[joint_q\].shape: kind 'joint_position' has 3"):
        Bench(bundles, contract=replace(contract, obs_terms=terms))


@pytest.mark.parametrize("seed", range(6))
def test_under_random_faults_and_orders_no_command_is_outside_limits_or_beyond_speed(bundles, seed):
    rng = np.random.default_rng(seed)
    limits = {joint: UserLimits(max_acceleration=6.0) for joint in bundles.contract().action.joint_names}
    bench = Bench(bundles, settings={"restart_after_stale": bool(seed % 2)}, user_limits=limits).armed()
    action = bench.contract.action
    previous = None
    for _ in range(500):
        bench.policy.action = rng.choice([-1.0, 1.0], 3) if rng.random() < 0.9 else RuntimeError("no")
        bench.cloud, bench.joints = rng.random() < 0.9, rng.random() < 0.95
        event = rng.choice(["arm", "disarm", "stop", "reset_stop", "none"], p=[0.2, 0.02, 0.01, 0.05, 0.72])
        if event == "arm":
            with contextlib.suppress(ArmError):
                bench.controller.arm()
        elif event != "none":
            getattr(bench.controller, event)()
        command = bench.run(1)
        if previous is not None:
            assert command is not None  # once commanded, there is a command in every tick
            assert (np.abs(command.values - previous) <= np.array(action.max_velocity) * DT + 1e-9).all()
        if command is not None:
            assert ((command.values >= action.lower) & (command.values <= action.upper)).all()
            previous = command.values


def test_armed_again_after_a_hold_it_begins_where_the_robot_then_is(bench):
    bench.armed().run(10)
    bench.controller.disarm()
    bench.run(30)
    bench.position = np.array([0.2, 0.2, 1.0])  # somebody moved it
    bench.clock.now_s += DT
    bench.sense()
    bench.controller.arm()
    there = bench.position.copy()
    np.testing.assert_allclose(bench.run(1).values, there + MOVE)


@pytest.mark.parametrize(("moved", "goes_on"), [(0.02, True), (0.25, False)])
def test_armed_anew_commands_go_on_from_where_a_robot_near_it_was_held(bench, moved, goes_on):
    bench.armed().run(10)
    bench.controller.disarm()
    held = bench.run(30).values
    bench.obeys = False
    bench.position = held - [moved, 0.0, 0.0]
    bench.run(1)
    bench.controller.arm()
    first = bench.run(1).values
    top_step = np.array(bench.contract.action.max_velocity) * DT
    assert (np.abs(first - (held if goes_on else bench.position)) <= top_step * (1 + 1e-9)).all()


def test_after_silence_commands_begin_where_the_robot_is_even_if_that_is_near(bundles):
    bench = Bench(bundles, settings={"stop_mode": "publish_nothing"}).armed()
    bench.run(10)
    bench.controller.disarm()
    bench.run(30)
    bench.obeys = False
    bench.position = bench.position - [0.02, 0.0, 0.0]
    bench.run(1)
    bench.controller.arm()
    first = bench.run(1).values
    assert abs(first[0] - bench.position[0]) <= bench.contract.action.max_velocity[0] * DT * (1 + 1e-9)
