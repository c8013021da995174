"""Faults of robot, time, network and graph, on a clock of our own: each is held for, counted and explained."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from controller_bench import DT, MOVE, START, Bench, FakePolicy

from policy_runner.controller import CommandTopic
from policy_runner.inference import InferenceLateError, InferenceThread
from policy_runner.limiter import LimitError, UserLimits
from policy_runner.safety import HOMEWARD, ArmError, HoldReason, Mode
from policy_runner.settings import SettingsError


@pytest.fixture
def bench(bundles):
    return Bench(bundles)


def assert_holds(bench, reason, *, ticks=30):
    """From here on the command comes to rest and stays there, whatever the inputs, until an operator arms."""
    assert bench.controller.reason is reason and bench.controller.holds[reason] == 1
    steps = np.abs(np.diff([bench.run(1).values for _ in range(ticks)], axis=0))
    assert (np.diff(steps, axis=0) <= 1e-12).all() and not steps[-1].any()
    assert bench.controller.mode is Mode.HOLDING and bench.controller.at_rest


# ---- joints -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("jump", [1.0, -1.0, 0.2])
def test_a_joint_that_jumps_is_held_for_at_once_and_until_the_operator_arms(bundles, jump, restart):
    bench = Bench(bundles, settings={"restart_after_stale": restart}).armed()
    last = bench.run(10).values
    seen = len(bench.policy.seen)
    bench.position = last + np.array([0.0, 0.0, jump])
    command = bench.run(1)
    assert len(bench.policy.seen) == seen  # the policy was not even asked
    assert (np.abs(command.values - last) <= np.array(bench.contract.action.max_velocity) * DT + 1e-9).all()
    assert_holds(bench, HoldReason.JOINT_JUMP)
    said = bench.controller.detail(HoldReason.JOINT_JUMP)
    moved = jump + 0.05  # with the step that it was commanded
    assert said == f"joint 'pin_yaw' moved by {abs(moved):.4f} in 0.017 s, top speed 3.0000"
    bench.controller.arm()
    assert bench.controller.mode is Mode.RUNNING


def test_a_jump_there_and_back_between_two_ticks_is_seen(bench):
    bench.armed().run(10)
    bench.clock.now_s += DT
    bench.sense()
    jumped = replace(bench.controller._inputs.joints, position=bench.position + np.array([0.3, 0.0, 0.0]))
    bench.controller.set_joints(jumped)
    bench.sense()
    bench.controller.tick()
    assert bench.controller.reason is HoldReason.JOINT_JUMP


def test_a_joint_outside_its_limits_is_held_for_and_never_clamped_and_gone_on_with(bundles):
    bench = Bench(bundles, settings={"max_joint_jump": 100.0, "restart_after_stale": True}).armed()
    bench.run(10)
    bench.position = np.array([0.5, 0.46, 0.0])  # the limit is 0.4, the margin 0.05
    bench.obeys = False  # it stays out there
    bench.run(1)
    assert_holds(bench, HoldReason.JOINT_JUMP)
    assert "joint 'pin_y' is at 0.4600, outside [0.1000, 0.4000]" in bench.controller.detail(
        bench.controller.reason
    )
    with pytest.raises(ArmError, match=r"joint_jump: joint 'pin_y' is at 0.4600, outside"):
        bench.controller.arm()
    bench.position = np.array([0.5, 0.3, 0.0])
    bench.run(1)
    bench.controller.arm()
    assert bench.controller.mode is Mode.RUNNING


def test_what_moves_while_nobody_commands_is_no_jump(bench):
    bench.run(5)
    bench.position = np.array([0.7, 0.2, 0.9])
    bench.run(1)
    bench.controller.arm()
    bench.run(5)
    assert bench.controller.mode is Mode.RUNNING and not bench.controller.holds


def test_far_from_the_start_pose_arming_is_refused_but_after_a_hold_it_goes_on(bundles):
    bench = Bench(bundles, settings={"max_start_distance": 0.5})
    bench.position = np.array([0.5, 0.3, 0.6])
    bench.run(1)
    with pytest.raises(ArmError, match=r"joint 'pin_yaw' is at 0.6000, further than max_start_distance 0.5"):
        bench.controller.arm()
    assert bench.controller.mode is Mode.IDLE and bench.run(1) is None
    bench.position = START.copy()
    bench.run(1)
    bench.controller.arm()
    bench.run(20)
    bench.controller.disarm()
    bench.run(20)
    assert bench.position[2] > 0.5
    bench.controller.arm()
    assert bench.controller.mode is Mode.RUNNING


def test_where_it_may_start_it_ramps_in_from_where_the_robot_is(bundles):
    bench = Bench(bundles, settings={"ramp_in_s": 1.0})
    bench.position = np.array([0.6, 0.2, -0.9])
    there = bench.position.copy()
    bench.armed()
    first = bench.run(1).values
    assert (np.abs(first - there) <= DT * np.array(bench.contract.action.max_velocity) * DT + 1e-9).all()


# ---- time ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restart", [False, True])
def test_after_a_time_away_everything_is_stale_however_fresh_it_looks(bundles, restart):
    """The process is stopped for 2 s; then it finds messages that waited, and more of them come."""
    bench = Bench(bundles, settings={"restart_after_stale": restart}).armed()
    bench.run(30)
    seen = len(bench.policy.seen)
    bench.clock.now_s += 2.0
    bench.sense()  # what had waited in the queues comes in first
    command = bench.controller.tick()
    assert command is not None and command.stamp_ns == 0
    assert bench.controller.reason is HoldReason.STALLED and bench.controller.loop.stalls == 1
    bench.run(5)  # 83 ms, less than the timeout of joint states
    assert bench.controller.fault() is HoldReason.JOINT_STATE_STALE
    bench.run(2)
    assert bench.controller.fault() is None
    bench.run(30)
    assert bench.controller.mode is (Mode.RUNNING if restart else Mode.HOLDING)
    assert (len(bench.policy.seen) > seen) == restart
    assert bench.controller.holds == {HoldReason.STALLED: 1}


def test_a_clock_that_was_set_makes_everything_stale_until_it_is_said_again(bench):
    bench.controller.note_clock_jump()
    assert bench.run(1) is None and not bench.controller.holds
    bench.armed().run(10)
    bench.controller.note_clock_jump()
    assert bench.controller.fault() is HoldReason.JOINT_STATE_STALE
    bench.run(1)
    assert_holds(bench, HoldReason.STALLED)
    bench.controller.arm()
    assert bench.controller.mode is Mode.RUNNING


def test_a_time_away_while_idle_or_released_is_nobodys_fault(bench):
    bench.run(3)
    bench.clock.now_s += 60.0
    bench.run(10)
    assert bench.controller.loop.stalls == 1 and not bench.controller.holds
    bench.controller.release()
    bench.clock.now_s += 60.0
    bench.run(1)
    assert bench.controller.loop.stalls == 1
    bench.controller.arm()
    bench.run(10)
    assert bench.controller.mode is Mode.RUNNING


def test_a_loop_that_is_only_late_is_not_away(bench):
    bench.armed().run(5)
    for _ in range(20):
        bench.clock.now_s += 0.08  # with the next period, 97 ms
        bench.run(1)
    assert bench.controller.loop.stalls == 0 and bench.controller.mode is Mode.RUNNING


# ---- network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_action_that_is_not_finite_is_held_for_even_if_the_network_lets_it_pass(bundles, value):
    bench = Bench(bundles, settings={"restart_after_stale": True}).armed()
    bench.run(10)
    bench.policy.action = (0.0, value, 0.0)
    bench.run(1)
    bench.policy.action = (0.0, 0.0, 0.0)
    assert_holds(bench, HoldReason.POLICY_FAULT)
    assert "action is not finite" in bench.controller.policy_error
    assert np.isfinite([c.values for c in bench.commands if c is not None]).all()


def test_a_late_network_is_held_for_and_counted_and_goes_on_where_it_may(bundles):
    bench = Bench(bundles, settings={"restart_after_stale": True}).armed()
    bench.run(10)
    bench.policy.action = InferenceLateError("no action within 0.0083 s")
    bench.run(1)
    assert bench.controller.reason is HoldReason.INFERENCE_LATE
    assert bench.controller.detail(bench.controller.reason) == "no action within 0.0083 s"
    assert bench.controller.loop.deadline_misses == 1 and not bench.controller.policy_error
    bench.policy.action, bench.policy.ready = (0.0, 0.0, 0.0), False  # it still computes
    bench.run(60)
    assert bench.controller.mode is Mode.HOLDING and bench.controller.fault() is HoldReason.INFERENCE_LATE
    with pytest.raises(ArmError, match="inference_late: no action within"):
        bench.controller.arm()
    bench.policy.ready = True
    bench.run(1)
    assert bench.controller.mode is Mode.RUNNING


def test_a_network_that_hangs_blocks_no_tick_and_another_one_in_its_place_recovers(bundles):
    """On a real thread: the clock of the controller stands still, but the network's answer never comes."""
    may_answer = threading.Event()

    class Hanging(FakePolicy):
        def act(self, observation):
            assert may_answer.wait(60.0)
            return super().act(observation)

    contract = bundles.contract()
    hanging = InferenceThread(Hanging(contract), budget_s=0.005)
    other = InferenceThread(FakePolicy(contract), budget_s=60.0)
    try:
        bench = Bench(bundles, policy=hanging)
        bench.armed()
        bench.run(1)
        assert_holds(bench, HoldReason.INFERENCE_LATE)
        assert bench.controller.loop.ticks == 32
        with pytest.raises(ArmError, match="inference_late"):
            bench.controller.arm()
        bench.controller.swap(other)
        bench.controller.arm()
        there = bench.position.copy()
        np.testing.assert_allclose(bench.run(1).values, there + MOVE)
    finally:
        may_answer.set()
        hanging.close()
        other.close()


def test_the_filter_weighs_the_newest_action_and_the_policy_still_sees_its_own(bundles):
    contract = bundles.contract()
    terms = (*contract.obs_terms, replace(contract.obs_terms[0], name="last", kind="previous_action"))
    policy = FakePolicy(replace(contract, obs_terms=terms), (0.0, 0.0, 0.0))
    bench = Bench(bundles, policy=policy, settings={"action_filter_alpha": 0.25}).armed()
    bench.run(1)
    expected, scale = np.zeros(3), np.array(contract.action.scale)
    rng = np.random.default_rng(1)
    for _ in range(40):
        policy.action = rng.uniform(-0.2, 0.2, 3)
        expected = 0.75 * expected + 0.25 * policy.action.astype(np.float32)
        before = bench.position.copy()
        np.testing.assert_allclose(bench.run(1).values, before + scale * expected, atol=1e-12)
    bench.run(1)
    np.testing.assert_array_equal(policy.seen[-1]["obs"][0, -3:], policy.action.astype(np.float32))
    bench.controller.disarm()
    bench.run(30)
    bench.controller.arm()  # anew: no memory of what it did before
    before = bench.position.copy()
    np.testing.assert_allclose(bench.run(1).values, before + scale * policy.action, atol=1e-8)


def test_after_a_gap_a_policy_that_goes_on_by_itself_remembers_no_action_from_before(bundles):
    contract = bundles.contract()
    terms = (*contract.obs_terms, replace(contract.obs_terms[0], name="last", kind="previous_action"))
    policy = FakePolicy(replace(contract, obs_terms=terms))
    bench = Bench(bundles, policy=policy, settings={"restart_after_stale": True}).armed()
    bench.run(10)
    assert policy.seen[-1]["obs"][0, -3:].tolist() == [0.5, -0.25, 1.0]
    bench.cloud = False
    bench.run(40)
    seen, bench.cloud = len(policy.seen), True
    bench.run(2)
    assert bench.controller.mode is Mode.RUNNING
    assert [seen["obs"][0, -3:].tolist() for seen in policy.seen[seen:]] == [[0, 0, 0], [0.5, -0.25, 1.0]]


def test_a_loop_that_would_be_away_at_each_of_its_own_steps_is_refused(bundles):
    slow = {"rate_hz": 10.0, "joint_state_timeout_s": 0.1}
    with pytest.raises(
        SettingsError, match=r"joint_state_timeout_s: must be longer than a control step, 0.1 s"
    ):
        Bench(bundles, settings=slow)
    bench = Bench(bundles, settings=slow | {"joint_state_timeout_s": 0.11}).armed()
    bench.run(10)
    assert bench.controller.mode is Mode.RUNNING and bench.controller.loop.stalls == 0


# ---- graph --------------------------------------------------------------------------------------------------


def test_another_publisher_of_commands_is_named_and_ends_the_run_for_good(bundles):
    bench = Bench(bundles, settings={"restart_after_stale": True})
    bench.topic = CommandTopic(listeners=1, others=("/left/policy_runner", "/teleop"))
    bench.run(1)
    message = "other_publisher: commands also come from /left/policy_runner, /teleop"
    with pytest.raises(ArmError, match=message):
        bench.controller.arm()
    bench.topic = CommandTopic(listeners=1)
    bench.armed().run(10)
    bench.topic = CommandTopic(listeners=1, others=("/teleop",))
    bench.run(1)
    bench.topic = CommandTopic(listeners=1)
    assert_holds(bench, HoldReason.OTHER_PUBLISHER)
    assert bench.controller.detail(HoldReason.OTHER_PUBLISHER) == "commands also come from /teleop"


@pytest.mark.parametrize("allowed", [False, True])
def test_where_nobody_listens_it_runs_only_if_it_may(bundles, allowed):
    bench = Bench(bundles, settings={"arm_without_listener": allowed})
    bench.topic = CommandTopic(listeners=0)
    bench.run(1)
    if not allowed:
        with pytest.raises(ArmError, match=r"^no_listener$"):
            bench.controller.arm()
        bench.topic = CommandTopic(listeners=1)
        bench.armed().run(10)
        bench.topic = CommandTopic(listeners=0)  # the robot's controller was deactivated
        bench.run(1)
        assert_holds(bench, HoldReason.NO_LISTENER)
    else:
        bench.controller.arm()
        bench.run(10)
        assert bench.controller.mode is Mode.RUNNING


@pytest.mark.parametrize(
    "graver", [HoldReason.OTHER_PUBLISHER, HoldReason.NO_LISTENER, HoldReason.JOINT_JUMP, "outside"]
)
def test_what_only_an_operator_may_excuse_needs_one_even_during_a_hold_that_would_pass_by_itself(
    bundles, graver
):
    bench = Bench(bundles, settings={"restart_after_stale": True}).armed()
    bench.run(30)
    bench.cloud = bench.obeys = False
    bench.run(30)
    assert bench.controller.reason is HoldReason.CLOUD_STALE
    where = bench.position
    if graver is HoldReason.OTHER_PUBLISHER:  # and who knows where to it moved the robot
        bench.topic = CommandTopic(listeners=1, others=("/teleop",))
    elif graver is HoldReason.NO_LISTENER:
        bench.topic = CommandTopic(listeners=0)
    elif graver is HoldReason.JOINT_JUMP:
        bench.position = where + np.array([0.0, 0.0, 0.2])
    else:
        bench.run(1)
        slowly = np.linspace(where, [0.97, *where[1:]], 100)
        for bench.position in slowly:
            bench.run(1)
    bench.run(5)
    bench.topic, bench.cloud, bench.position = CommandTopic(listeners=1), True, where
    bench.run(60)
    assert bench.controller.mode is Mode.HOLDING
    assert bench.controller.reason is (HoldReason.JOINT_JUMP if graver == "outside" else graver)
    bench.controller.arm()
    assert bench.run(1).stamp_ns > 0


# ---- ways to stop -------------------------------------------------------------------------------------------


def test_holding_now_stands_still_in_the_same_tick(bundles):
    bench = Bench(bundles, settings={"stop_mode": "hold_now"}).armed()
    last = bench.run(30).values
    bench.controller.stop()
    np.testing.assert_array_equal(bench.run(1).values, last)
    assert bench.controller.at_rest


def test_publishing_nothing_falls_silent_at_any_hold_until_armed_again(bundles):
    bench = Bench(bundles, settings={"stop_mode": "publish_nothing"}).armed()
    assert bench.run(30) is not None
    bench.cloud = False
    bench.run(20)
    assert bench.controller.reason is HoldReason.CLOUD_STALE and bench.commands[-1] is None
    bench.cloud = True
    bench.run(1)
    bench.controller.arm()
    assert bench.run(1) is not None


def test_a_policy_that_goes_on_by_itself_after_silence_begins_where_the_robot_has_come_to(bundles):
    settings = {"stop_mode": "publish_nothing", "restart_after_stale": True}
    bench = Bench(bundles, settings=settings).armed()
    bench.run(30)
    bench.cloud = bench.obeys = False
    bench.run(20)
    for _ in range(100):  # nobody told it to stay
        bench.position = bench.position - np.array([0.001, 0.0, 0.0])
        assert bench.run(1) is None
    bench.cloud = True
    np.testing.assert_allclose(bench.run(1).values, bench.position + MOVE)


@pytest.mark.parametrize(
    "reason", [HoldReason.CLOUD_STALE, HoldReason.POLICY_FAULT, HoldReason.INFERENCE_LATE]
)
def test_a_robot_whose_policy_fails_goes_home_if_it_is_told_to(bundles, reason):
    home = {"pin_x": 0.3, "pin_yaw": -0.5}
    bench = Bench(bundles, settings={"stop_mode": "return_home"}, home_position=home).armed()
    bench.run(20)
    fail(bench, reason)
    bench.run(900)
    np.testing.assert_allclose(bench.position, [0.3, 0.3, -0.5], atol=1e-9)
    assert bench.controller.reason is reason and bench.controller.at_rest


@pytest.mark.parametrize("reason", ["disarm", "stop", HoldReason.JOINT_STATE_STALE, HoldReason.JOINT_JUMP])
def test_a_robot_that_an_operator_stopped_or_whose_joints_are_unknown_stays(bundles, reason):
    bench = Bench(bundles, settings={"stop_mode": "return_home"}, home_position={"pin_x": 0.3}).armed()
    bench.run(20)
    if isinstance(reason, str):
        getattr(bench.controller, reason)()
    else:
        fail(bench, reason)
    rest = bench.run(60).values
    np.testing.assert_array_equal(bench.run(300).values, rest)


@pytest.mark.parametrize("event", ["disarm", "stop", "joints", "jump", "other", "nobody"])
def test_on_the_way_home_whatever_makes_motion_unsafe_ends_it(bundles, event):
    bench = Bench(bundles, settings={"stop_mode": "return_home"}, home_position={"pin_x": 0.2}).armed()
    bench.run(20)
    fail(bench, HoldReason.CLOUD_STALE)
    bench.run(60)
    assert not bench.controller.at_rest  # on its way
    if event == "joints":
        bench.joints = False
    elif event == "jump":
        bench.position = bench.position + np.array([0.0, 0.0, 1.0])
    elif event == "other":
        bench.topic = CommandTopic(listeners=1, others=("/teleop",))
    elif event == "nobody":  # whoever listens next would find that the commands had gone on without it
        bench.topic = CommandTopic(listeners=0)
    else:
        getattr(bench.controller, event)()
    rest = bench.run(30).values
    assert rest[0] > 0.3
    np.testing.assert_array_equal(bench.run(200).values, rest)


def test_the_reasons_to_go_home_are_all_about_the_policy_and_its_eyes():
    joints_and_people = {
        HoldReason.JOINT_STATE_STALE,
        HoldReason.JOINT_JUMP,
        HoldReason.INPUT_SKEW,
        HoldReason.STALLED,
        HoldReason.OTHER_PUBLISHER,
        HoldReason.NO_LISTENER,
        HoldReason.DISARMED,
        HoldReason.STOPPED,
    }
    assert HOMEWARD | joints_and_people == set(HoldReason) and not HOMEWARD & joints_and_people


def test_a_home_or_a_stop_mode_that_cannot_be_is_refused(bundles):
    with pytest.raises(LimitError, match=r"home_position.pin_x: must be in \[0.1, 0.55\], got 0.8"):
        limits = {"pin_x": UserLimits(max_position=0.55)}
        settings = {"stop_mode": "return_home"}
        Bench(bundles, settings=settings, home_position={"pin_x": 0.8}, user_limits=limits)
    contract = bundles.contract()
    velocity = replace(contract, action=replace(contract.action, mode="velocity"))
    with pytest.raises(SettingsError, match="return_home needs position commands"):
        Bench(bundles, contract=velocity, settings={"stop_mode": "return_home"})


def fail(bench, reason):
    """Let something go wrong, and stay so, until the runner holds for it."""
    if reason is HoldReason.CLOUD_STALE:
        bench.cloud = False
    elif reason is HoldReason.JOINT_STATE_STALE:
        bench.joints = False
    elif reason is HoldReason.POLICY_FAULT:
        bench.policy.action = RuntimeError("no")
    elif reason is HoldReason.INFERENCE_LATE:
        bench.policy.action = InferenceLateError("no")
    elif reason is HoldReason.JOINT_JUMP:
        bench.position = bench.position + np.array([0.0, 0.0, 0.5])
    while bench.controller.mode is Mode.RUNNING:
        bench.run(1)
    assert bench.controller.reason is reason


# ---- what it says of itself ---------------------------------------------------------------------------------


def test_saturation_is_the_share_of_joints_and_ticks_of_the_last_second_that_were_cut(bundles):
    bench = Bench(bundles, policy=FakePolicy(bundles.contract(), (0.1, 0.1, 0.1))).armed()
    bench.run(60)
    assert bench.controller.saturation == 0.0
    limits = np.array(bench.contract.action.max_velocity) * DT / np.array(bench.contract.action.scale)
    assert (limits >= 0.99).all()  # so that what is asked for here is cut by its position limit only
    bench.policy.action = (1.0, 0.0, 0.0)
    bench.run(30)  # from 0.56 to the limit of 0.9 in 34 ticks
    assert bench.controller.saturation == 0.0
    bench.run(64)
    assert bench.controller.saturation == pytest.approx(1.0 / 3.0)
    bench.controller.disarm()
    bench.run(30)
    assert bench.controller.saturation == pytest.approx(1.0 / 6.0)
    bench.run(30)
    assert bench.controller.saturation == 0.0


def test_an_action_that_swings_from_limit_to_limit_is_slew_limited_and_shows(bundles):
    limits = {joint: UserLimits(max_acceleration=2.0) for joint in bundles.contract().action.joint_names}
    bench = Bench(bundles, user_limits=limits).armed()
    positions = []
    for tick in range(120):
        bench.policy.action = np.full(3, 1.0 if tick % 2 else -1.0)
        positions.append(bench.run(1).values)
    velocity = np.diff(positions, axis=0) / DT
    assert (np.abs(np.diff(velocity, axis=0)) / DT <= 2.0 * (1 + 1e-6)).all()
    assert bench.controller.saturation > 0.95


def test_tick_times_are_reported(bench):
    bench.armed()
    bench.policy.clock, bench.policy.duration_s = bench.clock, 0.004
    bench.run(100)
    times = bench.controller.loop.tick_times()
    assert (times.p50, times.p99, times.max) == pytest.approx((0.004, 0.004, 0.004))


@pytest.mark.parametrize("seed", range(4))
def test_whatever_goes_wrong_with_robot_time_network_and_graph_no_command_is_unsafe(bundles, seed):
    rng = np.random.default_rng(seed)
    limits = {joint: UserLimits(max_acceleration=6.0) for joint in bundles.contract().action.joint_names}
    settings = {
        "restart_after_stale": bool(seed % 2),
        "stop_mode": ["decelerate_hold", "return_home"][seed // 2],
    }
    bench = Bench(bundles, settings=settings, user_limits=limits).armed()
    action = bench.contract.action
    previous, armed_anew = None, False
    for _ in range(800):
        fault = rng.choice(
            ["none", "jump", "stall", "clock", "late", "nan", "other", "cloud"], p=[0.79, *[0.03] * 7]
        )
        bench.policy.action = rng.choice([-1.0, 1.0], 3)
        bench.topic = CommandTopic(listeners=1, others=("/x",) if fault == "other" else ())
        bench.cloud = fault != "cloud"
        if fault == "jump":
            bench.position = rng.uniform(np.array(action.lower) - 0.2, np.array(action.upper) + 0.2)
        elif fault == "stall":
            bench.clock.now_s += rng.uniform(0.05, 3.0)
        elif fault == "clock":
            bench.controller.note_clock_jump()
        elif fault == "late":
            bench.policy.action = InferenceLateError("no")
        elif fault == "nan":
            bench.policy.action = rng.choice([np.nan, np.inf, 1.0], 3)
        command = bench.run(1)
        assert command is not None and np.isfinite(command.values).all()
        assert ((command.values >= action.lower) & (command.values <= action.upper)).all()
        if previous is not None and not armed_anew:
            assert (np.abs(command.values - previous) <= np.array(action.max_velocity) * DT + 1e-9).all()
        previous, armed_anew = command.values, False
        if bench.controller.mode is Mode.HOLDING and rng.random() < 0.2:
            try:
                bench.controller.arm()
                armed_anew = True  # commands begin where the robot is
            except ArmError:
                pass
    held = set(bench.controller.holds)
    assert held >= {
        HoldReason.JOINT_JUMP,
        HoldReason.STALLED,
        HoldReason.INFERENCE_LATE,
        HoldReason.POLICY_FAULT,
    }
