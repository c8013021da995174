"""Rows 16 to 24 of the fault table, over DDS: bundles offered to a runner while its policy moves a robot.

What each check refuses is tested beside the check; here it is that the robot does not notice.
"""

from __future__ import annotations

import os
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
from injection import follower
from offers import taking_from, unnoticed, write_policies
from onnx import helper, numpy_helper


@pytest.fixture(scope="module")
def policies(bundles, tmp_path_factory):
    return write_policies(bundles, tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def moving_robot(start_moving, policies):
    return start_moving(**taking_from(policies))


def spoilt(policies, name, change):
    """A copy of the second policy with `change` applied to its folder.

    To be made before the robot moves: its sensors stand still while files are written here.
    """
    folder = policies / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(policies / "second", folder)
    change(folder)
    return folder


def test_row_16_files_that_are_no_bundle_are_refused_while_the_old_policy_runs_on(faults, policies):
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
    folders = {name: spoilt(policies, name, change) for name, (change, _) in cases.items()}
    with unnoticed(faults) as offers:
        for name, (_, message) in cases.items():
            assert message in offers.refused(folders[name])
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
    faults, policies, bundles
):
    contract, w = follower(bundles)
    golden = bundles.golden(contract, w, count=200)
    folder = bundles.write(policies / "endless", contract, w=w, change_models=endless, golden=golden)
    with unnoticed(faults) as offers:
        message = offers.refused(folder)
    assert "the check took longer than 6.0 s" in message or "the check was ended by SIG" in message


def test_row_19_to_21_what_a_bundle_says_and_does_is_checked_before_it_is_taken(faults, policies, bundles):
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
    for name, (changes, _) in cases.items():
        bundles.write(policies / name, **({"contract": contract, "w": w} | changes))
    with unnoticed(faults) as offers:
        for name, (_, message) in cases.items():
            assert message in offers.refused(policies / name)


def test_row_22_the_policy_runs_on_when_its_folder_is_gone(faults, policies):
    first, away = policies / "first", policies / "away"
    other = spoilt(policies, "other", lambda f: (f / "policy.onnx").write_bytes(b"something else"))
    with unnoticed(faults) as offers:
        robot = offers.robot
        before = robot.diagnosis()["policy_sha256"]
        robot.meanwhile(lambda: (first.rename(away), other.rename(first)))
        robot.pass_time(1.0)
        assert "policy.onnx: sha256: expected" in offers.refused(first)
        robot.meanwhile(lambda: (first.rename(other), away.rename(first)))
        assert robot.diagnosis()["policy_sha256"] == before


class Payload:
    """Unpickled, it creates a folder."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def test_row_24_pickles_are_refused_and_never_run(faults, policies, tmp_path, bundles):
    canary = tmp_path / "the payload ran"
    gun = pickle.dumps(Payload(canary))
    (policies / "policy.pt").write_bytes(gun)
    folders = {}
    for name in ("policy.onnx", "golden.npz", "bundle.json"):
        folders[name] = spoilt(policies, f"gun in {name}", lambda f: (f / name).write_bytes(gun))  # noqa: B023
        if name != "bundle.json":
            bundles.sign(folders[name], replace(follower(bundles)[0], policy_name="second"))
    with unnoticed(faults) as offers:
        assert "found a file" in offers.refused(policies / "policy.pt")
        for name, folder in folders.items():
            assert offers.refused(folder).startswith(f"{name}: ")
    assert not canary.exists()
