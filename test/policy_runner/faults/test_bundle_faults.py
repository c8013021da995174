"""Rows 16 to 24 and 49 of the fault table, over DDS: bundles offered to a runner while its policy moves a robot.

What each check refuses is tested beside the check; here it is that the robot does not notice.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from command_stream import assert_safe, by_policy
from injection import RATE_HZ, Faults, follower
from lifecycle_msgs.msg import Transition
from onnx import helper, numpy_helper
from rclpy.parameter import Parameter

from policy_runner.bundle import read_bundle

DT_S = 1.0 / RATE_HZ


@pytest.fixture(scope="module")
def policies(bundles, tmp_path_factory):
    """The folder that policies may come from, with two in it, and one beside it."""
    contract, w = follower(bundles)
    parent = tmp_path_factory.mktemp("bundles")
    folder = parent / "policies"
    bundles.write(folder / "first", contract, w=w)
    slow = {name: np.float32(0.5) * value for name, value in w.items()}
    bundles.write(folder / "second", replace(contract, policy_name="second"), w=slow)
    shutil.copytree(folder / "second", parent / "elsewhere")
    return folder


@pytest.fixture(scope="module")
def moving_robot(start_moving, policies):
    return start_moving(
        policy=policies / "first", policy_dirs=[str(policies)], vet_timeout_s=6.0, deadline_miss_limit=1000
    )


class Offers:
    """Bundles that are offered to a runner, and the refusals that it has to count."""

    def __init__(self, robot):
        self.robot, self.refusals, self.last = robot, 0, ""

    def refused(self, path) -> str:
        """Offer a bundle that is refused, and return why; the answer names the policy that stays."""
        response = self.robot.call("load_policy", path=str(path))
        assert not response.success and response.message.startswith("refused: ")
        assert response.policy_name == "roller"
        self.refusals, self.last = self.refusals + 1, response.message
        return response.message.removeprefix("refused: ")


@pytest.fixture
def unnoticed(faults: Faults):
    """What is done inside leaves no trace in the commands: the policy is in command all the time."""

    @contextmanager
    def unnoticed():
        armed = faults.move()
        robot, offers = faults.robot, Offers(faults.robot)
        before = robot.diagnosis()
        yield offers
        after = robot.diagnosis()
        assert int(after["policies_refused"]) == int(before["policies_refused"]) + offers.refusals
        assert offers.last in ("", after["last_refused_policy"])
        stream = robot.stream[armed:]
        assert len(by_policy(stream)) == len(stream) > 5
        faults.observe(stream, counted={"policies_refused": offers.refusals})

    return unnoticed


def spoilt(policies, name, change):
    """A copy of the second policy with `change` applied to its folder."""
    folder = policies / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(policies / "second", folder)
    change(folder)
    return folder


def test_row_16_files_that_are_no_bundle_are_refused_while_the_old_policy_runs_on(unnoticed, policies):
    def without(name, make):
        def change(folder):
            (folder / name).unlink()
            make(folder / name)

        return change

    cases = {
        "missing": (lambda f: shutil.rmtree(f), "found nothing"),
        "empty": (without("policy.onnx", lambda p: p.write_bytes(b"")), "policy.onnx: sha256: expected"),
        "random": (
            without("bundle.json", lambda p: p.write_bytes(os.urandom(500))),
            "bundle.json: not valid",
        ),
        "folder": (without("policy.onnx", os.mkdir), "policy.onnx: cannot be read: Is a directory"),
        "pipe": (without("policy.onnx", os.mkfifo), "policy.onnx: expected a plain file"),
        "loop": (without("policy.onnx", lambda p: p.symlink_to(p.name)), "policy.onnx: cannot be read"),
    }
    with unnoticed() as offers:
        for name, (change, message) in cases.items():
            assert message in offers.refused(spoilt(policies, name, change))
        message = offers.refused(policies / "second" / "policy.onnx")
    assert "expected a folder with bundle.json, found a file" in message


def endless(name, model):
    """Add nothing to the action, at the end of a chain of products that takes seconds a step and little memory."""
    if name != "policy.onnx":
        return
    size, count = 1500, 20
    for weight, values in (
        ("grow", np.zeros((3, size))),
        ("tall", np.zeros((size, 1))),
        ("square", np.full((size, size), 1.0 / size)),
        ("shrink", np.zeros((size, 3))),
    ):
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), weight))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "rows"))
    model.graph.node[-1].output[0] = "inner"
    model.graph.node.extend(
        [
            helper.make_node("MatMul", ["inner", "grow"], ["wide"]),
            helper.make_node("Add", ["wide", "tall"], ["m0"]),
            *(helper.make_node("MatMul", [f"m{i}", "square"], [f"m{i + 1}"]) for i in range(count)),
            helper.make_node("MatMul", [f"m{count}", "shrink"], ["narrow"]),
            helper.make_node("ReduceSum", ["narrow", "rows"], ["nothing"], keepdims=1),
            helper.make_node("Add", ["inner", "nothing"], ["actions"]),
        ]
    )


def test_row_18_a_model_that_takes_minutes_is_refused_in_time_while_the_old_policy_runs_on(
    unnoticed, policies, bundles
):
    contract, w = follower(bundles)
    golden = bundles.golden(contract, w, count=200)
    folder = bundles.write(policies / "endless", contract, w=w, change_models=endless, golden=golden)
    with unnoticed() as offers:
        message = offers.refused(folder)
    assert "the check took longer than 6.0 s" in message or "the check was ended by SIG" in message


def test_row_19_to_21_what_a_bundle_says_and_does_is_checked_before_it_is_taken(unnoticed, policies, bundles):
    contract, w = follower(bundles)
    other = {name: np.float32(1.001) * value for name, value in w.items()}

    def batch(name, model):
        if name == "policy.onnx":
            model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"

    fast = replace(contract, action=replace(contract.action, max_velocity=(9.0, 9.0, 9.0)))
    cases = {
        "dynamic": ({"change_models": batch}, "inputs: 'obs': expected shape [1, 9], found ['batch', 9]"),
        "other weights": (
            {"golden": bundles.golden(contract, other)},
            "golden.npz: pair 0: policy.onnx differs",
        ),
        "other limits": ({"contract": fast}, "action.max_velocity[0]: expected 0.6, found 9.0"),
    }
    with unnoticed() as offers:
        for name, (changes, message) in cases.items():
            changes = {"contract": contract, "w": w} | changes
            assert message in offers.refused(bundles.write(policies / name, **changes))


def test_row_22_the_policy_runs_on_when_its_folder_is_gone(unnoticed, policies):
    with unnoticed() as offers:
        robot = offers.robot
        before = robot.diagnosis()["policy_sha256"]
        shutil.move(policies / "first", policies / "away")
        shutil.copytree(policies / "second", policies / "first")
        (policies / "first" / "policy.onnx").write_bytes(b"something else")
        robot.pass_time(1.0)
        assert "policy.onnx: sha256: expected" in offers.refused(policies / "first")
        shutil.rmtree(policies / "first")
        shutil.move(policies / "away", policies / "first")
        assert robot.diagnosis()["policy_sha256"] == before


def test_row_23_swaps_in_a_row_are_counted_and_never_jump(unnoticed, policies):
    with unnoticed() as offers:
        robot = offers.robot
        before = int(robot.diagnosis()["policies_exchanged"])
        for name in ("second", "first") * 3:
            response = robot.call("load_policy", path=str(policies / name))
            assert response.success, response.message
            assert response.policy_name == {"first": "roller", "second": "second"}[name]
        after = robot.diagnosis()
        assert int(after["policies_exchanged"]) == before + 6
        assert after["policy_sha256"] == read_bundle(policies / "first").digest


def test_two_loads_at_once_are_one_too_many(unnoticed, policies):
    with unnoticed() as offers:
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


class Payload:
    """Unpickled, it creates a folder."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def test_row_24_pickles_are_refused_and_never_run(unnoticed, policies, tmp_path, bundles):
    canary = tmp_path / "the payload ran"
    gun = pickle.dumps(Payload(canary))
    (policies / "policy.pt").write_bytes(gun)
    with unnoticed() as offers:
        assert "found a file" in offers.refused(policies / "policy.pt")
        for name in ("policy.onnx", "golden.npz", "bundle.json"):
            folder = spoilt(policies, f"gun in {name}", lambda f: (f / name).write_bytes(gun))  # noqa: B023
            if name != "bundle.json":
                bundles.sign(folder, replace(follower(bundles)[0], policy_name="second"))
            assert offers.refused(folder).startswith(f"{name}: ")
    assert not canary.exists()


def test_row_49_nobody_on_the_graph_can_have_a_policy_loaded_from_elsewhere(unnoticed, policies):
    elsewhere = policies.parent / "elsewhere"
    (policies / "link").unlink(missing_ok=True)
    (policies / "link").symlink_to(elsewhere)
    with unnoticed() as offers:
        expected = f"{elsewhere}: expected a folder inside policy_dirs ['{policies}'], found one outside"
        for path in (elsewhere, policies / "link", f"{policies}/first/../../elsewhere"):
            assert offers.refused(path) == expected
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
