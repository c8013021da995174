"""What the runner cannot measure it refuses by name, before anything moves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from policy_runner.contract import ContractError, ObsTerm, PolicyContract
from policy_runner.controller import Controller
from policy_runner.inputs import CloudSample, JointSample
from policy_runner.observation import ObservationBuilder
from policy_runner.settings import RunnerSettings


def with_term(contract, term):
    """The contract with one more term, before its cloud."""
    return replace(contract, obs_terms=(*contract.obs_terms[:2], term, contract.obs_terms[2]))


def privileged(bundles, name="torso_velocity", size=5):
    return with_term(bundles.contract(), ObsTerm(name=name, kind="privileged", shape=(size,), unit="m/s"))


@pytest.mark.parametrize("size", [1, 3, 47])
def test_a_privileged_term_may_have_any_size_and_survives_json(bundles, size):
    contract = privileged(bundles, size=size)
    assert PolicyContract.from_json(contract.to_json()) == contract
    assert contract.state_size == 6 + size


def test_a_privileged_term_is_one_row_of_numbers(bundles):
    with pytest.raises(ContractError, match=r"obs_terms\[pose\].shape: kind 'privileged' takes \(size,\)"):
        ObsTerm(name="pose", kind="privileged", shape=(4, 3))


@pytest.mark.parametrize("name", ["torso_velocity", "cube_position"])
def test_a_runner_refuses_what_only_a_simulator_knows_by_name(bundles, name):
    message = rf"obs_terms\[{name}\].kind: 'privileged' is known to the simulator only; .*'joint_position'"
    with pytest.raises(ContractError, match=message):
        ObservationBuilder(privileged(bundles, name))


def test_no_controller_comes_up_with_such_a_policy(bundles):
    class Policy:
        contract = privileged(bundles)

        def act(self, observation):
            raise AssertionError("must never be asked")

    with pytest.raises(ContractError, match="torso_velocity"):
        Controller(Policy(), RunnerSettings())


def test_the_same_contract_without_it_is_laid_out_term_by_term(bundles):
    velocity = ObsTerm(name="joint_qd", kind="joint_velocity", shape=(3,), unit="rad/s", scale=0.1)
    builder = ObservationBuilder(with_term(bundles.contract(), velocity))
    assert builder.needs_velocity and builder.needs_cloud and builder.goal_frame is None
    joints = JointSample(
        position=np.array([1.0, 2.0, 3.0]), velocity=np.array([10.0, 20.0, 30.0]), stamp_ns=0, arrival_s=0.0
    )
    points = np.arange(24, dtype=np.float32).reshape(8, 3)
    inputs = builder.build(joints, CloudSample(points=points, stamp_ns=0, arrival_s=0.0), None, np.zeros(3))
    np.testing.assert_allclose(inputs["obs"], [[1.0, 2.0, 3.0, 10.5, 11.5, 12.5, 1.0, 2.0, 3.0]])
    np.testing.assert_array_equal(inputs["particle_q"], points[None])
