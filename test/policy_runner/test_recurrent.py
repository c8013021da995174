"""A policy that remembers more than its last action is refused by the name of what it would remember."""

from __future__ import annotations

import json

import pytest
from onnx import TensorProto, helper

from policy_runner.bundle import BundleError, load_bundle
from policy_runner.contract import ContractError, PolicyContract


def test_a_contract_with_a_state_is_refused_by_its_field(bundles):
    raw = json.loads(bundles.contract().to_json()) | {"recurrent_state": [{"name": "h", "shape": [64]}]}
    with pytest.raises(ContractError, match="unknown field 'recurrent_state'"):
        PolicyContract.from_json(json.dumps(raw))


def test_a_model_that_takes_and_gives_a_state_is_refused_by_its_name(bundles, tmp_path):
    def remember(_, model):
        state = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 64]) for name in ("h", "h_next")]
        model.graph.input.append(state[0])
        model.graph.output.append(state[1])
        model.graph.node.append(helper.make_node("Identity", ["h"], ["h_next"]))

    with pytest.raises(BundleError, match=r"inputs: expected \['obs', 'particle_q'\], found \['h', 'obs',"):
        load_bundle(bundles.write(tmp_path / "b", change_models=remember))
