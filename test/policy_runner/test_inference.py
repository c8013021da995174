"""The network's numbers are those of its formula, and nothing that is not finite passes in or out."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

from policy_runner.bundle import read_bundle
from policy_runner.inference import InferenceError, Policy


@pytest.fixture(scope="module")
def policy(bundles, tmp_path_factory):
    return Policy(read_bundle(bundles.write(tmp_path_factory.mktemp("bundle"))))


def inputs(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "obs": rng.normal(size=(1, 6)).astype(np.float32),
        "particle_q": rng.normal(size=(1, 8, 3)).astype(np.float32),
    }


def test_the_action_is_what_the_formula_gives(policy, bundles):
    contract = bundles.contract()
    for seed in range(50):
        expected = bundles.oracle(contract, bundles.weights(contract), inputs(seed))[0]
        found = policy.act(inputs(seed))
        assert found.shape == (3,) and found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["obs", "particle_q"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_input_that_is_not_finite_is_refused_by_name(policy, name, value):
    bad = inputs()
    bad[name].flat[-1] = value
    with pytest.raises(InferenceError, match=f"input '{name}': 1 values are not finite"):
        policy.act(bad)


@pytest.mark.parametrize(
    ("factor", "message"),
    [(np.nan, "not finite"), (np.inf, "not finite"), (1e6, "not within"), (1.1, "not within")],
)
def test_an_action_that_is_not_finite_or_too_large_is_refused(bundles, tmp_path, factor, message):
    def multiply(name, model):
        model.graph.node[-1].output[0] = "inner"
        model.graph.initializer.append(numpy_helper.from_array(np.full(3, factor, np.float32), "factor"))
        model.graph.node.append(helper.make_node("Mul", ["inner", "factor"], ["actions"]))

    policy = Policy(read_bundle(bundles.write(tmp_path / "b", change_models=multiply)))
    saturating = {"obs": np.full((1, 6), 50.0, np.float32), "particle_q": inputs()["particle_q"]}
    with pytest.raises(InferenceError, match=message):
        policy.act(saturating)
