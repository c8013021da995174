"""Fill the contract's observation terms from what the runner knows of the world."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policy_runner.bundle import OBS_INPUT
from policy_runner.contract import ContractError, ObsTerm, PolicyContract
from policy_runner.inputs import CloudSample, GoalSample, JointSample

Values = NDArray[np.floating]


class ObservationBuilder:
    """Turns samples into the inputs of `policy.onnx`: `scale * value`, term by term, in order."""

    def __init__(self, contract: PolicyContract) -> None:
        """Check that every term has the size that its kind has on this robot.

        Raises:
            ContractError: naming the term.
        """
        joints = contract.action.size
        sizes = {
            "joint_position": joints,
            "joint_velocity": joints,
            "previous_action": joints,
            "cloud_mean": 3,
            "goal_position": 3,
        }
        for term in contract.state_terms:
            if term.kind == "privileged":
                raise ContractError(
                    f"obs_terms[{term.name}].kind: 'privileged' is known to the simulator only; this runner measures "
                    f"{sorted(sizes)} and clouds"
                )
            if term.size != sizes[term.kind]:
                raise ContractError(
                    f"obs_terms[{term.name}].shape: kind {term.kind!r} has {sizes[term.kind]} values, "
                    f"got {term.size}"
                )
        self._contract = contract
        kinds = {term.kind for term in contract.obs_terms}
        self.needs_velocity = "joint_velocity" in kinds
        self.needs_cloud = contract.point_cloud is not None
        self.goal_frame = next((t.frame for t in contract.obs_terms if t.kind == "goal_position"), None)

    def build(
        self,
        joints: JointSample,
        cloud: CloudSample | None,
        goal: GoalSample | None,
        previous_action: Values,
    ) -> dict[str, NDArray[np.float32]]:
        """Return the model's inputs by name, float32, each with a leading batch dimension of 1.

        cloud and goal may be None only where no term needs them; previous_action: (num_joints,), zeros at
        first.
        """
        values = {"joint_position": joints.position, "previous_action": previous_action}
        if joints.velocity is not None:
            values["joint_velocity"] = joints.velocity
        if cloud is not None:
            values["cloud"] = cloud.points
            values["cloud_mean"] = cloud.points.mean(axis=0, dtype=np.float64)
        if goal is not None:
            values["goal_position"] = goal.position
        inputs = {term.name: _scaled(term, values)[np.newaxis] for term in self._contract.cloud_terms}
        if self._contract.state_terms:
            state = np.concatenate([_scaled(term, values) for term in self._contract.state_terms])
            inputs[OBS_INPUT] = state[np.newaxis]
        return inputs


def _scaled(term: ObsTerm, values: dict[str, Values]) -> NDArray[np.float32]:
    return (values[term.kind] * term.scale).astype(np.float32)
