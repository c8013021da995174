"""The actor: normaliser, encoder and head, from an observation to an action."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Generator, Tensor, nn

from policy_runner.contract import ObsTerm
from sapo_learner.distributions import Distribution, standard_normal
from sapo_learner.encoders import FlatEncoder, PointEncoder, Pool, make_encoder
from sapo_learner.heads import Head, SquashedHead
from sapo_learner.network_input import NetworkInput, ObsLayout
from sapo_learner.networks import SILU, Style
from sapo_learner.normalizer import StateNormalizer
from sapo_learner.vec_env import Obs


class Policy(Protocol):
    """Anything that acts."""

    def act(self, obs: Obs, deterministic: bool) -> Tensor:
        """Return actions in [-1, 1], (num_envs, action_dim)."""
        ...

    def begin(self, started: Tensor) -> None:
        """Be told, before `act`, in which envs an episode begins. started: (num_envs,) bool."""
        ...


class GaussianPolicy(nn.Module):
    """A distribution over actions that depends on the observation."""

    def __init__(
        self,
        layout: ObsLayout,
        encoder: FlatEncoder | PointEncoder,
        head: Head,
        *,
        samples: Generator,
        clip: float = math.inf,
    ) -> None:
        """Put the parts together. `act` samples from `samples`, on the policy's device.

        clip: of normalised states; see `StateNormalizer`.
        """
        super().__init__()
        self.layout = layout
        self.samples = samples
        self.normalizer = StateNormalizer(layout.state_size, clip=clip)
        self.encoder = encoder
        self.head = head

    @property
    def action_dim(self) -> int:
        """Actions of an env."""
        return self.head.mean.out_features

    def normalize(self, obs: Obs) -> NetworkInput:
        """Pack an observation and normalise its state; gradients flow through."""
        state, cloud = self.layout.pack(obs)
        return NetworkInput(self.normalizer(state), cloud)

    def distribution(self, inputs: NetworkInput) -> Distribution:
        """Return the distribution of actions given normalised inputs (B, ...)."""
        return self.head(self.encoder(*inputs))

    @torch.no_grad()
    def act(self, obs: Obs, deterministic: bool) -> Tensor:
        """Return actions in [-1, 1], (B, action_dim): the mode if deterministic, else a sample."""
        distribution = self.distribution(self.normalize(obs))
        if deterministic:
            return distribution.mode()
        noise = standard_normal(tuple(distribution.mean.shape), self.samples)
        return distribution.sample(noise).clamp(-1.0, 1.0)

    def begin(self, started: Tensor) -> None:
        """Nothing is remembered from one step to the next, so a new episode changes nothing."""


def make_policy(
    obs_spec: Sequence[ObsTerm],
    action_dim: int,
    *,
    hidden: Sequence[int],
    weights: Generator,
    samples: Generator,
    head: type[Head] = SquashedHead,
    pool: Pool = "mean",
    style: Style = SILU,
    head_gain: float = 1.0,
    clip: float = math.inf,
) -> GaussianPolicy:
    """Make a policy for such observations, with its first weights drawn from `weights`, on the CPU.

    head: which distribution. head_gain: of its last layers. The other arguments are those of the parts.
    """
    layout = ObsLayout(obs_spec)
    encoder = make_encoder(layout, pool, weights, style)
    last = head(encoder.size, hidden, action_dim, weights, style=style, gain=head_gain)
    return GaussianPolicy(layout, encoder, last, samples=samples, clip=clip)
