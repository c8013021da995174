"""The policy is in command only while armed and while nothing is wrong; a stop stays until it is reset."""

from __future__ import annotations

import random

import pytest

from policy_runner.safety import RECOVERABLE, ArmError, HoldReason, Mode, Supervisor

STALE = HoldReason.CLOUD_STALE


def armed(**settings):
    supervisor = Supervisor(**({"ramp_in_s": 2.0, "restart_after_stale": False} | settings))
    supervisor.arm(10.0, fault=None, at_rest=True)
    return supervisor


def test_nothing_runs_before_it_is_armed():
    supervisor = Supervisor(ramp_in_s=0.0, restart_after_stale=True)
    for _ in range(5):
        assert supervisor.update(1.0, fault=None, at_rest=True) is Mode.IDLE
    assert not supervisor.commanding


def test_arming_is_refused_while_something_is_wrong_or_moves():
    supervisor = Supervisor(ramp_in_s=0.0, restart_after_stale=False)
    with pytest.raises(ArmError, match="cloud_stale"):
        supervisor.arm(0.0, fault=STALE, at_rest=True)
    with pytest.raises(ArmError, match="decelerating"):
        supervisor.arm(0.0, fault=None, at_rest=False)
    assert supervisor.mode is Mode.IDLE


@pytest.mark.parametrize("reason", list(HoldReason))
def test_every_fault_takes_the_command_at_once_and_is_counted(reason):
    supervisor = armed()
    assert supervisor.update(10.1, fault=None, at_rest=False) is Mode.RUNNING
    assert supervisor.update(10.2, fault=reason, at_rest=False) is Mode.HOLDING
    assert supervisor.reason is reason
    assert supervisor.holds == {reason: 1}
    assert supervisor.update(10.3, fault=reason, at_rest=False) is Mode.HOLDING
    assert supervisor.holds == {reason: 1}


@pytest.mark.parametrize("reason", list(HoldReason))
def test_a_hold_lasts_until_an_operator_arms_again(reason):
    supervisor = armed()
    supervisor.update(10.2, fault=reason, at_rest=False)
    assert supervisor.update(11.0, fault=None, at_rest=True) is Mode.HOLDING
    supervisor.arm(12.0, fault=None, at_rest=True)
    assert supervisor.mode is Mode.RUNNING and supervisor.reason is None


@pytest.mark.parametrize("reason", list(HoldReason))
def test_where_asked_to_it_goes_on_by_itself_at_rest_but_only_after_reasons_that_pass(reason):
    supervisor = armed(restart_after_stale=True)
    supervisor.update(10.2, fault=reason, at_rest=False)
    assert supervisor.update(10.3, fault=None, at_rest=False) is Mode.HOLDING
    expected = Mode.RUNNING if reason in RECOVERABLE else Mode.HOLDING
    assert supervisor.update(10.4, fault=None, at_rest=True) is expected


def test_an_operator_who_disarms_during_a_hold_keeps_the_policy_from_coming_back():
    supervisor = armed(restart_after_stale=True)
    supervisor.update(10.2, fault=STALE, at_rest=False)
    supervisor.disarm()
    assert supervisor.update(10.4, fault=None, at_rest=True) is Mode.HOLDING


def test_a_stop_is_latched_through_arming_faults_and_release():
    supervisor = armed(restart_after_stale=True)
    supervisor.stop()
    for _ in range(3):
        assert supervisor.update(11.0, fault=None, at_rest=True) is Mode.STOPPED
    with pytest.raises(ArmError, match="reset_stop"):
        supervisor.arm(11.0, fault=None, at_rest=True)
    supervisor.disarm()
    supervisor.release()
    assert supervisor.mode is Mode.STOPPED
    supervisor.reset_stop()
    assert supervisor.mode is Mode.IDLE
    supervisor.arm(12.0, fault=None, at_rest=True)
    assert supervisor.mode is Mode.RUNNING


def test_after_a_reset_stop_it_holds_and_does_not_run():
    supervisor = armed(restart_after_stale=True)
    supervisor.stop()
    supervisor.reset_stop()
    assert supervisor.update(11.0, fault=None, at_rest=True) is Mode.HOLDING


def test_a_stop_before_the_first_arming_commands_nothing():
    supervisor = Supervisor(ramp_in_s=0.0, restart_after_stale=False)
    supervisor.stop()
    assert supervisor.mode is Mode.STOPPED and not supervisor.commanding
    supervisor.reset_stop()
    assert supervisor.mode is Mode.IDLE


def test_authority_grows_from_zero_to_one_over_the_ramp_in_and_again_after_a_hold():
    supervisor = armed()
    assert [supervisor.authority(t) for t in (9.0, 10.0, 10.5, 11.0, 12.0, 99.0)] == [0, 0, 0.25, 0.5, 1, 1]
    supervisor.update(20.0, fault=STALE, at_rest=False)
    supervisor.arm(30.0, fault=None, at_rest=True)
    assert supervisor.authority(30.5) == 0.25
    assert armed(ramp_in_s=0.0).authority(10.0) == 1.0


@pytest.mark.parametrize("seed", range(20))
def test_no_sequence_of_events_runs_the_policy_with_a_fault_or_after_a_stop(seed):
    rng = random.Random(seed)
    supervisor = Supervisor(ramp_in_s=1.0, restart_after_stale=rng.random() < 0.5)
    stopped = False
    for now in range(300):
        fault = rng.choice([None, None, *HoldReason])
        at_rest = rng.random() < 0.5
        event = rng.choice(["arm", "disarm", "stop", "reset_stop", "release", "update", "update", "update"])
        if event == "arm":
            try:
                supervisor.arm(float(now), fault=fault, at_rest=at_rest)
            except ArmError:
                pass
            else:
                assert not stopped
        elif event == "update":
            mode = supervisor.update(float(now), fault=fault, at_rest=at_rest)
            assert not (mode is Mode.RUNNING and (fault is not None or stopped))
        else:
            getattr(supervisor, event)()
            stopped = event == "stop" or (stopped and event != "reset_stop")
        assert (supervisor.mode is Mode.STOPPED) == stopped


def test_a_hold_may_be_given_another_reason_which_is_counted_as_well():
    supervisor = armed(restart_after_stale=True)
    supervisor.update(10.2, fault=STALE, at_rest=False)
    supervisor.hold(HoldReason.JOINT_JUMP)
    assert supervisor.reason is HoldReason.JOINT_JUMP
    assert supervisor.holds == {STALE: 1, HoldReason.JOINT_JUMP: 1}
    assert (
        supervisor.update(10.4, fault=None, at_rest=True) is Mode.HOLDING
    )  # that one does not pass by itself


@pytest.mark.parametrize("fault", list(HoldReason))
def test_a_hold_that_would_pass_by_itself_waits_for_an_operator_once_anything_does_that_never_passes(fault):
    supervisor = armed(restart_after_stale=True)
    supervisor.update(10.2, fault=STALE, at_rest=False)
    supervisor.update(10.3, fault=fault, at_rest=True)
    passes = fault in RECOVERABLE
    assert supervisor.goes_on_by_itself == passes
    assert supervisor.reason is (STALE if passes else fault) and supervisor.holds[STALE] == 1
    assert supervisor.update(10.4, fault=None, at_rest=True) is (Mode.RUNNING if passes else Mode.HOLDING)


def test_a_reason_to_hold_neither_unlatches_a_stop_nor_makes_an_idle_runner_command():
    supervisor = Supervisor(ramp_in_s=0.0, restart_after_stale=False)
    supervisor.hold(STALE)
    assert supervisor.mode is Mode.IDLE
    supervisor.stop()
    supervisor.hold(STALE)
    assert supervisor.mode is Mode.STOPPED and supervisor.reason is HoldReason.STOPPED


def test_refusing_to_arm_says_how_one_can_tell():
    supervisor = Supervisor(ramp_in_s=0.0, restart_after_stale=False)
    with pytest.raises(ArmError, match=r"^joint_jump: joint 'a' moved$"):
        supervisor.arm(0.0, fault=HoldReason.JOINT_JUMP, at_rest=True, detail="joint 'a' moved")
