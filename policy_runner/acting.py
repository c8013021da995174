"""From the newest inputs to an action: what the policy sees, what it answers, and a filter on that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from policy_runner.bundle import contract_difference
from policy_runner.contract import ContractError
from policy_runner.inference import InferenceError, Network
from policy_runner.latest_inputs import LatestInputs
from policy_runner.observation import ObservationBuilder

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


class Actor(Network, Protocol):
    """A network that may be busy, as `inference.InferenceThread` may be."""

    @property
    def ready(self) -> bool:
        """Whether it can take an observation now."""
        ...


class Acting:
    """A policy in use. What it sees of its previous actions is what it gave, before the filter."""

    def __init__(self, policy: Actor, *, filter_alpha: float) -> None:
        """filter_alpha: weight of the newest action, 1 for no filter.

        Raises:
            ContractError: an observation term does not fit the robot.
        """
        self.policy = policy
        self._builder = ObservationBuilder(policy.contract)
        self._filter_alpha = filter_alpha
        self.needs_cloud, self.needs_velocity = self._builder.needs_cloud, self._builder.needs_velocity
        self.goal_frame = self._builder.goal_frame
        """Frame of the goal that the policy sees; None where it sees none."""
        self.observation: Mapping[str, Float32] | None = None
        """What the policy saw last."""
        self.raw_action: Float32 | None = None
        """What it gave last, before the filter."""
        self.begin()

    def begin(self) -> None:
        """Forget the actions before this moment."""
        self._previous: Float32 = np.zeros(self.policy.contract.action.size, np.float32)
        self._filtered: Float64 | None = None

    def act(self, inputs: LatestInputs) -> Float64:
        """Return the filtered action (num_joints,) in [-1, 1].

        Raises:
            InferenceError: the network is late, or its action is not finite.
            Exception: whatever else the network raises.
        """
        assert inputs.joints is not None
        self.observation = self._builder.build(inputs.joints, inputs.cloud, inputs.goal, self._previous)
        self.raw_action = action = self.policy.act(self.observation)
        if not np.isfinite(action).all():
            raise InferenceError(f"action is not finite: {action.tolist()}")
        self._previous = action
        newest = action.astype(np.float64)
        last = newest if self._filtered is None else self._filtered
        self._filtered = last + self._filter_alpha * (newest - last) if self._filter_alpha < 1.0 else newest
        return self._filtered

    def swap(self, policy: Actor) -> None:
        """Put another policy in place of this one.

        Raises:
            ContractError: it does not take the same inputs and give the same commands; the message names the
                field.
        """
        own = self.policy.contract
        offered = replace(policy.contract, policy_name=own.policy_name, train=own.train)
        if difference := contract_difference(own, offered):
            raise ContractError(f"the policy in place cannot be exchanged while configured: {difference}")
        self.policy = policy
