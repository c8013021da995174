"""The actor: normaliser, encoder and head, from an observation to an action."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from policy_runner.contract import ObsTerm
from sapo_learner.distributions import SquashedNormal, standard_normal
from sapo_learner.encoders import Pool, make_encoder
from sapo_learner.network_input import NetworkInput, ObsLayout
from sapo_learner.networks import ActorHead
from sapo_learner.normalizer import StateNormalizer
from sapo_learner.vec_env import Obs


class SquashedNormalPolicy(nn.Module):
    """A tanh-squashed Normal over actions whose mean and standard deviation depend on the observation."""

    def __init__(
        self,
        obs_spec: Sequence[ObsTerm],
        action_dim: int,
        *,
        hidden: Sequence[int],
        pool: Pool,
        weights: Generator,
        samples: Generator,
        head_gain: float = 1.0,
    ) -> None:
        """Draw weights from `weights`, on the CPU; `act` samples from `samples`, on the policy's device."""
        super().__init__()
        self.layout = ObsLayout(obs_spec)
        self.action_dim = action_dim
        self.samples = samples
        self.normalizer = StateNormalizer(self.layout.state_size)
        self.encoder = make_encoder(self.layout, pool, weights)
        self.head = ActorHead(self.encoder.size, hidden, action_dim, weights, gain=head_gain)

    def normalize(self, obs: Obs) -> NetworkInput:
        """Pack an observation and normalise its state; gradients flow through."""
        state, cloud = self.layout.pack(obs)
        return NetworkInput(self.normalizer(state), cloud)

    def distribution(self, inputs: NetworkInput) -> SquashedNormal:
        """Return the distribution of actions given normalised inputs (B, ...)."""
        return SquashedNormal(*self.head(self.encoder(*inputs)))

    @torch.no_grad()
    def act(self, obs: Obs, deterministic: bool) -> Tensor:
        """Return actions in [-1, 1], (B, action_dim): tanh(mean) if deterministic, else a sample."""
        distribution = self.distribution(self.normalize(obs))
        if deterministic:
            return distribution.mode()
        return distribution.sample(standard_normal(tuple(distribution.mean.shape), self.samples))
