"""Bundles are checked in a child process: its verdict counts, and its death or greed harms nobody."""

from __future__ import annotations

import resource
import shutil

import numpy as np
import pytest
from onnx import helper, numpy_helper

from policy_runner import inspect_bundle, vet
from policy_runner.bundle import BundleError, read_bundle
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


def test_files_that_change_during_the_check_are_refused(whole, bundles, tmp_path, monkeypatch):
    folder = shutil.copytree(whole, tmp_path / "b")

    def read_then_exchange(path):
        bundle = read_bundle(path)
        bundles.write(folder, bundles.contract(policy_name="impostor"))
        return bundle

    monkeypatch.setattr(vet, "read_bundle", read_then_exchange)
    with pytest.raises(BundleError, match="changed while it was checked"):
        load_vetted(folder, PATIENT)


def test_limits_must_be_positive():
    with pytest.raises(ValueError, match="cpu_s must be > 0, got 0"):
        VetLimits(cpu_s=0)


def test_the_command_prints_the_contract_of_a_good_bundle(whole, capsys, bundles):
    assert inspect_bundle.main([str(whole)]) == 0
    text = capsys.readouterr().out
    for word in (
        "rolling_flat",
        "60 Hz",
        "particle_q [8, 3]",
        "delta_position",
        "pin_yaw",
        "8 points by stride",
    ):
        assert word in text
    assert inspect_bundle.main([str(whole), "--json"]) == 0
    assert capsys.readouterr().out.strip() == bundles.contract().to_json()


def test_the_command_says_why_a_bundle_is_refused(whole, tmp_path, capsys):
    folder = shutil.copytree(whole, tmp_path / "b")
    (folder / "golden.npz").unlink()
    assert inspect_bundle.main([str(folder)]) == 1
    assert capsys.readouterr().err.startswith("refused: golden.npz: cannot be read")
