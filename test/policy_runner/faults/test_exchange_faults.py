"""Rows 23, 49 and 50 of the fault table, over DDS: policies exchanged on demand, by whoever demands it."""

from __future__ import annotations

import json
import os

import pytest
from command_stream import assert_safe
from injection import RATE_HZ
from lifecycle_msgs.msg import Transition
from offers import taking_from, unnoticed, write_policies
from rclpy.parameter import Parameter

from policy_runner.bundle import read_bundle

DT_S = 1.0 / RATE_HZ


@pytest.fixture(scope="module")
def policies(bundles, tmp_path_factory):
    return write_policies(bundles, tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def moving_robot(start_moving, policies):
    return start_moving(**taking_from(policies))


def test_row_23_swaps_in_a_row_are_counted_and_never_jump(faults, policies):
    with unnoticed(faults) as offers:
        robot = offers.robot
        before = int(robot.diagnosis()["policies_exchanged"])
        for name in ("second", "first") * 2:
            response = robot.call("load_policy", path=str(policies / name))
            assert response.success, response.message
            assert response.policy_name == {"first": "roller", "second": "second"}[name]
        after = robot.diagnosis()
        assert int(after["policies_exchanged"]) == before + 4
        assert after["policy_sha256"] == read_bundle(policies / "first").digest


def test_two_loads_at_once_are_one_too_many(faults, policies):
    with unnoticed(faults) as offers:
        robot = offers.robot
        load = robot.clients["load_policy"]
        requests = [load.srv_type.Request(path=str(policies / "first")) for _ in range(5)]
        futures = [load.call_async(request) for request in requests]
        robot.until(lambda: all(future.done() for future in futures))
        answers = [future.result().message for future in futures]
        offers.refusals, offers.last = 4, "already loading a policy"
    assert answers.count("running 'roller'") == 1
    assert answers.count("already loading a policy") == 4


def test_a_swap_during_a_hold_or_a_stop_moves_nothing_and_ends_neither(faults, policies):
    armed = faults.move()
    robot = faults.robot
    for end, message in (
        (lambda: robot.call("arm", data=False), "active: holding: disarmed"),
        (lambda: robot.call("stop"), "active: stopped"),
    ):
        end()
        held = robot.held(commands=5)
        for name in ("second", "first"):
            assert robot.call("load_policy", path=str(policies / name)).success
        robot.pass_time(0.3)
        assert robot.status.message == message
        assert robot.commands[-1].position == held.position
    assert not robot.call("arm", data=True).success
    assert robot.call("reset_stop").success
    faults.move()
    assert_safe(robot.stream[armed:], robot.contract.action, DT_S)


def test_row_49_nobody_on_the_graph_can_have_a_policy_loaded_from_elsewhere(faults, policies):
    elsewhere = policies.parent / "elsewhere"
    (policies / "link").unlink(missing_ok=True)
    (policies / "link").symlink_to(elsewhere)
    with unnoticed(faults) as offers:
        expected = f"expected a folder inside policy_dirs ['{policies}'], found one outside"
        for path in (elsewhere, policies / "link", f"{policies}/first/../../elsewhere"):
            assert offers.refused(path) == f"{path}: {expected}"
        for path in ("/etc/passwd", "/", "", "x" * 10_000):
            assert offers.refused(path)


@pytest.mark.parametrize(("name", "value"), [("policy_dirs", ["/"]), ("policy_sha256", [""])])
def test_row_49_nobody_on_the_graph_can_change_where_policies_may_come_from(faults, policies, name, value):
    robot = faults.robot
    message = Parameter(name, value=value).to_parameter_msg()
    robot.call("arm", data=False)
    robot.held(commands=5)
    for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP):
        assert robot.change_state(transition)
    (result,) = robot.call("set_parameters", parameters=[message]).results
    assert not result.successful and "read-only" in result.reason
    elsewhere = Parameter("policy", value=str(policies.parent / "elsewhere")).to_parameter_msg()
    assert robot.call("set_parameters", parameters=[elsewhere]).results[0].successful
    assert not robot.change_state(Transition.TRANSITION_CONFIGURE)
    robot.until(lambda: "found one outside" in robot.status.message)
    back = Parameter("policy", value=str(policies / "first")).to_parameter_msg()
    assert robot.call("set_parameters", parameters=[back]).results[0].successful
    for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        assert robot.change_state(transition)
    faults.move()


def test_row_50_what_the_graph_hears_names_nothing_but_what_the_operator_named(faults, policies):
    """Neither the folder of this software nor that of the interpreter, nor any other variable of the environment."""
    robot = faults.robot
    values = robot.diagnosis()
    del values["transport"]  # which names the file that the operator has set in the environment
    words = json.dumps(values) + robot.status.message
    assert os.path.expanduser("~") + "/" not in words and "site-packages" not in words
    assert os.getcwd() not in words
