"""Policies that were checked and then go wrong: on clouds that no golden pair shows, or by being slow."""

from __future__ import annotations

import numpy as np
from onnx import helper, numpy_helper

from policy_runner.contract import ObsTerm

PREVIOUS_ACTION = ObsTerm(name="previous_action", kind="previous_action", shape=(3,))
NAN_BEYOND_X = INFINITE_BEYOND_Y = HUGE_BEYOND_Z = 0.9
"""Where the cloud's centre is when these networks give NaN, infinity or a million."""
SWINGS_BEYOND_Z = 0.6
"""Where the cloud's centre is when the action is the opposite of the one before, from one limit to the other."""
COM_Q, PREVIOUS = 3, 9
"""Where these terms begin in the observation."""


def go_wrong(name, model):
    """Change a model so that it goes wrong where the cloud is in one of these places, and is as before elsewhere."""
    calm = _insert_before_output(model)
    x, y, z = (_term(model, f"com_{axis}", COM_Q + index, 1) for index, axis in enumerate("xyz"))
    previous = _term(model, "previous", PREVIOUS, 3)
    nothing, tiny, million = (
        _constant(model, word, np.full((1, 3), value))
        for word, value in (("nothing", 0.0), ("tiny", 1e-30), ("million", 1e9))
    )
    edge = _constant(model, "edge", [[NAN_BEYOND_X]])
    nan = _chain(model, ("Sub", [edge, x]), ("Log", []), ("Mul", [nothing]))
    infinite = _chain(model, ("Sub", [edge, y]), ("Relu", []), ("Reciprocal", []), ("Mul", [tiny]))
    huge = _chain(model, ("Sub", [z, edge]), ("Relu", []), ("Mul", [million]))
    swings = _chain(model, ("Greater", [z, _constant(model, "swing_edge", [[SWINGS_BEYOND_Z]])]))
    was_positive = _chain(model, ("Greater", [previous, nothing]))
    ends = (_constant(model, word, np.full((1, 3), value)) for word, value in (("low", -1.0), ("high", 1.0)))
    opposite = _chain(model, ("Where", [was_positive, *ends]))
    either = _chain(model, ("Where", [swings, opposite, calm]))
    _chain(model, ("Add", [either, nan]), ("Add", [infinite]), ("Add", [huge]), output="actions")


def be_slow(name, model, *, products=150, size=512):
    """Change a model so that it multiplies large matrices first, of which nothing is left in the action."""
    calm = _insert_before_output(model)
    spread = _constant(
        model, "spread", np.full((model.graph.input[0].type.tensor_type.shape.dim[1].dim_value, size), 1e-3)
    )
    row = _chain(model, ("MatMul", ["obs", spread]))
    square = _chain(model, ("MatMul", [_chain(model, ("Transpose", [row])), row]))
    shrink = _constant(model, "shrink", 0.9 * np.eye(size))
    product = _chain(model, ("MatMul", [square, shrink]), *[("MatMul", [shrink])] * products)
    column = _constant(model, "column", np.zeros((size, 3)))
    nothing = _chain(
        model,
        ("MatMul", [product, column]),
        ("ReduceMax", [_constant(model, "axis", np.array([0], np.int64))]),
    )
    _chain(model, ("Add", [calm, nothing]), output="actions")


def golden(bundles, contract, w):
    """Golden pairs on which nothing goes wrong."""
    chance = np.random.default_rng(5)
    obs = chance.uniform(-0.5, 0.5, (1, contract.state_size)).astype(np.float32)
    inputs = {"obs": obs, "particle_q": chance.uniform(0, 0.5, (1, 8, 3)).astype(np.float32)}
    return inputs | {"actions": bundles.oracle(contract, w, inputs).astype(np.float32)}


def _insert_before_output(model):
    model.graph.node[-1].output[0] = "calm_actions"
    return "calm_actions"


def _constant(model, name, values):
    values = np.asarray(values)
    values = values if values.dtype == np.int64 else values.astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(values, name))
    return name


def _term(model, name, first, size):
    """Pick `size` values of the observation, from `first` on."""
    count = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    pick = np.zeros((count, size))
    pick[first : first + size] = np.eye(size)
    return _chain(model, ("MatMul", ["obs", _constant(model, f"pick_{name}", pick)]))


def _chain(model, *steps, output=None):
    """Append operators, each applied to the result of the one before and its own inputs; return the last result."""
    result = []
    for index, (operator, inputs) in enumerate(steps):
        is_last = index == len(steps) - 1
        name = output if is_last and output else f"{operator}_{len(model.graph.node)}"
        attributes = {"keepdims": 1} if operator == "ReduceMax" else {}
        model.graph.node.append(helper.make_node(operator, [*result, *inputs], [name], **attributes))
        result = [name]
    return result[0]
