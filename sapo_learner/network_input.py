"""From an observation dict to the two tensors that a network takes: one state vector, at most one cloud."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from policy_runner.contract import ObsTerm
from sapo_learner.vec_env import Obs


class NetworkInput(NamedTuple):
    """What a network sees of a batch of observations."""

    state: Tensor
    """(..., state_size) all terms but the cloud, one after the other."""
    cloud: Tensor | None
    """(..., num_points, 3), or None for tasks without a cloud."""

    def map(self, function: Callable[[Tensor], Tensor]) -> NetworkInput:
        """Apply `function` to every tensor."""
        return NetworkInput(function(self.state), None if self.cloud is None else function(self.cloud))


def stack(inputs: Sequence[NetworkInput]) -> NetworkInput:
    """Stack along a new first dimension."""
    clouds = [x.cloud for x in inputs if x.cloud is not None]
    return NetworkInput(torch.stack([x.state for x in inputs]), torch.stack(clouds) if clouds else None)


class ObsLayout:
    """Where the terms of an observation go in a `NetworkInput`, in the order of the specification."""

    def __init__(self, obs_spec: Sequence[ObsTerm]) -> None:
        """Raise ValueError unless the specification has a state term and at most one cloud term."""
        self.state_terms = tuple(term for term in obs_spec if term.kind != "cloud")
        clouds = [term for term in obs_spec if term.kind == "cloud"]
        if not self.state_terms or len(clouds) > 1:
            raise ValueError(
                "obs_spec: expected at least one state term and at most one cloud, "
                f"got {[(term.name, term.kind) for term in obs_spec]}"
            )
        self.cloud_term = clouds[0] if clouds else None
        self.terms: tuple[ObsTerm, ...] = (*self.state_terms, *clouds)
        self.state_size = sum(term.size for term in self.state_terms)

    def pack(self, obs: Obs) -> NetworkInput:
        """Concatenate the state terms of an observation and pick its cloud; gradients flow through."""
        state = torch.cat([obs[term.name] for term in self.state_terms], dim=-1)
        return NetworkInput(state, None if self.cloud_term is None else obs[self.cloud_term.name])
