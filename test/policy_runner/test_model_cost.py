"""Rows 18 and 26 of the fault table: a model that no control loop could wait for is refused before it is in one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from onnx import helper, numpy_helper

from policy_runner.bundle import BundleError
from policy_runner.model_cost import ModelCost
from policy_runner.vet import VetLimits, load_vetted

PATIENT = VetLimits(wall_s=240.0, cpu_s=120)
SIZE = 1500


def test_what_is_within_bounds_is_no_problem():
    assert ModelCost(open_s=0.9, step_s=0.01).problem(0.02) == ""


def test_what_takes_too_long_is_named_with_its_bound():
    message = ModelCost(open_s=2.0, step_s=0.0).problem(0.02)
    assert message == "opening takes 2 s of processor time, expected at most 1 s"
    message = ModelCost(open_s=0.0, step_s=0.5).problem(0.02)
    assert message == "a step takes 0.5 s, but the control period is 0.02 s"


def products(count, *, of_constants):
    """Add nothing to the action, by products of matrices: of the observation, or of constants alone."""

    def change(name, model):
        if name != "policy.onnx":
            return
        graph = model.graph
        for weight, values in (
            ("grow", np.zeros((SIZE, 3))),
            ("square", np.full((SIZE, SIZE), 1.0 / SIZE)),
            ("shrink", np.zeros((3, SIZE))),
        ):
            graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), weight))
        graph.initializer.append(numpy_helper.from_array(np.array([0]), "rows"))
        graph.node[-1].output[0] = "inner"
        first = "square" if of_constants else "wide"
        names = [first, *(f"m{index}" for index in range(count))]
        graph.node.extend(
            [
                helper.make_node("ReduceSum", ["inner"], ["scalar"], keepdims=1),
                helper.make_node("Add", ["square", "scalar"], ["wide"]),
                *(helper.make_node("MatMul", [a, "square"], [b]) for a, b in itertools.pairwise(names)),
                helper.make_node("MatMul", ["shrink", names[-1]], ["low"]),
                helper.make_node("MatMul", ["low", "grow"], ["nothing"]),
                helper.make_node("ReduceSum", ["nothing", "rows"], ["zeros"], keepdims=1),
                helper.make_node("Add", ["inner", "zeros"], ["actions"]),
            ]
        )

    return change


def test_a_policy_slower_than_its_control_period_is_refused(bundles, tmp_path):
    """7e9 operations in the millisecond that it has."""
    contract = bundles.contract(control_dt_s=1e-3)
    folder = bundles.write(tmp_path / "b", contract, change_models=products(1, of_constants=False))
    with pytest.raises(
        BundleError, match=r"policy.onnx: a step takes \S+ s, but the control period is 0.001 s"
    ):
        load_vetted(folder, PATIENT)


def test_a_policy_that_takes_long_to_open_is_refused(bundles, tmp_path):
    """onnxruntime computes what is constant when it opens a model: here 2e11 operations."""
    folder = bundles.write(tmp_path / "b", change_models=products(25, of_constants=True))
    with pytest.raises(
        BundleError, match=r"policy.onnx: opening takes \S+ s of processor time, expected at most"
    ):
        load_vetted(folder, PATIENT)
