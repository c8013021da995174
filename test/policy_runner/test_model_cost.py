"""Rows 18 and 26 of the fault table: a model that no control loop could wait for is refused before it is in one."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

from policy_runner.bundle import BundleError
from policy_runner.model_cost import ModelCost
from policy_runner.vet import VetLimits, load_vetted

PATIENT = VetLimits(wall_s=240.0, cpu_s=120)
SIZE = 1500
UNITS, STEPS = 512, 60_000


def test_what_is_within_bounds_is_no_problem():
    assert ModelCost(open_s=0.9, step_s=0.01).problem(0.02) == ""


def test_what_takes_too_long_is_named_with_its_bound():
    message = ModelCost(open_s=2.0, step_s=0.0).problem(0.02)
    assert message == "opening takes 2 s of processor time, expected at most 1 s"
    message = ModelCost(open_s=0.0, step_s=0.5).problem(0.02)
    assert message == "a step takes 0.5 s, but the control period is 0.02 s"


def product(name, model):
    """Add nothing to the action, by a product of matrices with the observation in it."""
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
    graph.node.extend(
        [
            helper.make_node("ReduceSum", ["inner"], ["scalar"], keepdims=1),
            helper.make_node("Add", ["square", "scalar"], ["wide"]),
            helper.make_node("MatMul", ["wide", "square"], ["squared"]),
            helper.make_node("MatMul", ["shrink", "squared"], ["low"]),
            helper.make_node("MatMul", ["low", "grow"], ["nothing"]),
            helper.make_node("ReduceSum", ["nothing", "rows"], ["zeros"], keepdims=1),
            helper.make_node("Add", ["inner", "zeros"], ["actions"]),
        ]
    )


def recurrence(name, model):
    """Add nothing to the action, by the last state of a recurrent network that is shown constants alone."""
    if name != "policy.onnx":
        return
    graph = model.graph
    for weight, shape in (
        ("shown", (STEPS, 1, 1)),
        ("inputs", (1, 3 * UNITS, 1)),
        ("states", (1, 3 * UNITS, UNITS)),
    ):
        graph.initializer.append(numpy_helper.from_array(np.zeros(shape, np.float32), weight))
    graph.node[-1].output[0] = "inner"
    graph.node.extend(
        [
            helper.make_node("GRU", ["shown", "inputs", "states"], ["", "last"], hidden_size=UNITS),
            helper.make_node("ReduceSum", ["last"], ["nothing"], keepdims=0),
            helper.make_node("Add", ["inner", "nothing"], ["actions"]),
        ]
    )


def test_a_policy_slower_than_its_control_period_is_refused(bundles, tmp_path):
    """7e9 operations in the millisecond that it has."""
    contract = bundles.contract(control_dt_s=1e-3)
    folder = bundles.write(tmp_path / "b", contract, change_models=product)
    with pytest.raises(
        BundleError, match=r"policy.onnx: a step takes \S+ s, but the control period is 0.001 s"
    ):
        load_vetted(folder, PATIENT)


def test_a_policy_that_takes_long_to_open_is_refused(bundles, tmp_path):
    """onnxruntime computes what is constant when it opens a model: here 1e11 operations, one after the other."""
    folder = bundles.write(tmp_path / "b", change_models=recurrence)
    with pytest.raises(
        BundleError, match=r"policy.onnx: opening takes \S+ s of processor time, expected at most"
    ):
        load_vetted(folder, PATIENT)
