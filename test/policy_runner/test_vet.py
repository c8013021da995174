"""Bundles are checked in a child process: its verdict counts, and its death or greed harms nobody."""

from __future__ import annotations

import os
import resource
import shutil
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from policy_runner import vet
from policy_runner.bundle import BundleError, read_bundle
from policy_runner.inference import Policy
from policy_runner.vet import VetLimits, load_vetted

PATIENT = VetLimits(wall_s=120.0, cpu_s=60)


@pytest.fixture(scope="module")
def whole(bundles, tmp_path_factory):
    return bundles.write(tmp_path_factory.mktemp("bundle"))


def test_a_good_bundle_comes_back_as_it_was_read(whole, bundles, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the child must find this package from anywhere
    bundle = load_vetted(whole, PATIENT)
    assert bundle.contract == bundles.contract()
    assert bundle.policy == (whole / "policy.onnx").read_bytes()


def test_a_path_is_taken_relative_to_where_one_is(whole, monkeypatch):
    monkeypatch.chdir(whole.parent)
    assert load_vetted(whole.name, PATIENT).contract.task == "rolling_flat"


def test_what_the_child_finds_is_what_is_raised(bundles, tmp_path):
    contract = bundles.contract()
    golden = bundles.golden(contract, bundles.weights(contract))
    golden["actions"] += np.float32(1e-3)
    folder = bundles.write(tmp_path / "b", contract, golden=golden)
    with pytest.raises(BundleError, match=r"golden.npz: pair 0: policy.onnx differs by 0.001"):
        load_vetted(folder, PATIENT)


def bomb(elements):
    """A model that computes the right actions after it has filled memory."""

    def change(name, model):
        if name == "policy.onnx":
            model.graph.node[-1].output[0] = "inner"
            shape = numpy_helper.from_array(np.array([elements], np.int64), "bomb_shape")
            axes = numpy_helper.from_array(np.array([0], np.int64), "bomb_axes")
            model.graph.initializer.extend([shape, axes])
            model.graph.node.extend(
                [
                    helper.make_node("ReduceMax", ["inner"], ["bomb_value"], keepdims=0),
                    helper.make_node("Expand", ["bomb_value", "bomb_shape"], ["bomb"]),
                    helper.make_node("ReduceMax", ["bomb", "bomb_axes"], ["bomb_top"], keepdims=0),
                    helper.make_node("Min", ["bomb_top", "bomb_value"], ["bomb_same"]),
                    helper.make_node("Sub", ["bomb_same", "bomb_value"], ["bomb_zero"]),
                    helper.make_node("Add", ["inner", "bomb_zero"], ["actions"]),
                ]
            )

    return change


def test_a_model_that_takes_more_memory_than_allowed_is_refused(bundles, tmp_path):
    folder = bundles.write(tmp_path / "b", change_models=bomb(200_000_000))  # 0.8 GB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BundleError):
        load_vetted(folder, VetLimits(memory_bytes=1 << 29, wall_s=120.0, cpu_s=60))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
    small = bundles.write(tmp_path / "small", change_models=bomb(1000))
    assert load_vetted(small, PATIENT)  # the same graph is fine where it is modest


def test_a_check_that_takes_too_long_is_ended(whole):
    with pytest.raises(BundleError, match=r"took longer than 0.001 s"):
        load_vetted(whole, VetLimits(wall_s=0.001))


def test_a_child_that_dies_is_a_refusal(whole):
    with pytest.raises(BundleError, match=r"the check (failed with code|was ended by)"):
        load_vetted(whole, VetLimits(memory_bytes=20 << 20, wall_s=120.0))  # not even the libraries fit


def test_row_22_what_was_hashed_and_checked_is_what_is_used_whatever_happens_to_the_folder(
    whole, bundles, tmp_path, monkeypatch
):
    folder = shutil.copytree(whole, tmp_path / "b")

    def read_then_exchange(path, allowed):
        bundle = read_bundle(path, allowed)
        bundles.write(folder, bundles.contract(policy_name="impostor"))
        return bundle

    monkeypatch.setattr(vet, "read_bundle", read_then_exchange)
    bundle = load_vetted(folder, PATIENT)
    assert bundle.contract.policy_name == "roller"
    assert bundle.policy == (whole / "policy.onnx").read_bytes() != (folder / "policy.onnx").read_bytes()
    shutil.rmtree(folder)  # nor is the folder needed once it was read
    assert Policy(bundle).digest == bundle.digest


def test_the_child_knows_no_path_to_the_bundle_and_inherits_no_secrets(whole, tmp_path, monkeypatch):
    """A child with another program in it writes down what it sees of the world."""
    monkeypatch.setenv("ROBOT_PASSWORD", "hunter2")
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    monkeypatch.chdir(whole)
    program = (
        "import json, os, sys; sys.stdin.buffer.read(); "
        "print(json.dumps({'refused': json.dumps([sys.argv[2:], dict(os.environ), os.getcwd()])}))"
    )
    monkeypatch.setattr(vet, "_PROGRAM", program)
    with pytest.raises(BundleError) as caught:
        load_vetted(whole, PATIENT)
    words = str(caught.value)
    assert str(whole) not in words and "hunter2" not in words and words.endswith('"/"]')


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("print('x' * 10_000_000)", "the check failed with code"),
        ("import sys; print('x' * 10_000_000, file=sys.stderr)", "the check failed with code"),
        ("print('[' * 60_000)", "the check failed with code 0: no output"),
        ("print('{}')", "the check gave no verdict on"),
        ('print(\'{"digest": "0", "open_s": 0.1, "step_s": 0.1}\')', "the check gave no verdict on"),
        ("print(3)", "the check gave no verdict on"),
        ("import os; os.abort()", "the check was ended by SIGABRT"),
        ("import sys; sys.exit(7)", "the check failed with code 7: no output"),
        ("while True: pass", "the check was ended by SIG(XCPU|KILL)"),
        ("open('/dev/null'); a = [open('/dev/null') for _ in range(100)]", "Too many open files"),
        ("a = bytearray(1 << 31)", "the check failed with code 1: MemoryError"),
    ],
)
def test_row_18_a_check_that_goes_astray_is_bounded_in_every_way_and_is_a_refusal(
    whole, monkeypatch, program, message
):
    """The child after a hostile model has taken it over: it does as it likes, within the limits."""
    confined = (
        "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from policy_runner import vet; "
        f"vet._confine(vet.VetLimits(**json.loads(sys.argv[2])))\n{program}"
    )
    monkeypatch.setattr(vet, "_PROGRAM", confined)
    with pytest.raises(BundleError, match=message):
        load_vetted(whole, VetLimits(wall_s=60.0, cpu_s=1))


def test_a_child_that_hangs_is_ended_with_all_that_it_has_started(whole, tmp_path, monkeypatch):
    pids = tmp_path / "pids"
    program = (
        "import os, subprocess, sys, time; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}'); time.sleep(600)"
    )
    monkeypatch.setattr(vet, "_PROGRAM", program)
    with pytest.raises(BundleError, match=r"the check took longer than 3.0 s"):
        load_vetted(whole, VetLimits(wall_s=3.0))
    processes = [Path(f"/proc/{pid}/stat") for pid in pids.read_text().split()]
    assert len(processes) == 2
    give_up_s = time.monotonic() + 60.0
    while any(alive(process) for process in processes):
        assert time.monotonic() < give_up_s
        time.sleep(0.01)


def alive(process: Path) -> bool:
    try:
        return ") Z " not in process.read_text()  # gone, but for init to notice
    except OSError:
        return False


def test_no_check_leaves_a_descriptor_or_a_child_behind(whole):
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    load_vetted(whole, PATIENT)
    before = descriptors()
    for limits in (PATIENT, VetLimits(wall_s=0.01)):
        with suppress(BundleError):
            load_vetted(whole, limits)
    assert descriptors() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_limits_must_be_positive():
    with pytest.raises(ValueError, match="cpu_s must be > 0, got 0"):
        VetLimits(cpu_s=0)
