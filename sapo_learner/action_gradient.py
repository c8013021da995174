"""More steps of the policy from one backward pass through the simulator: gradients of actions, used again.

The objective J depends on a policy's parameters through the actions taken and through the entropy bonus, so
dJ/dtheta = sum_t dJ/da_t da_t/dtheta + d(bonus)/dtheta, observations held. Once the simulator has given dJ/da_t, a
further step costs a pass through the policy alone. Actions are taken up again as the changed policy would take them:
with the noise that leads to the same action, u = mu' + sigma' eps'. arXiv 2508.06214 (RPO), which also has the bounds
of the ratio and the penalty for the divergence.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sapo_learner.distributions import SquashedNormal
from sapo_learner.parallel import SINGLE, Ranks

MIN_RATIO, MAX_RATIO = 0.2, 2.0
"""How much less or more likely than when it was taken an action may be and still be learned from."""


class Taken(NamedTuple):
    """Actions of a window and what is known of them. Nothing here carries a gradient."""

    policy: SquashedNormal
    """(H, N, d): the distributions that they were drawn from."""
    pre_tanh: Tensor
    """(H, N, d): the samples u; the actions were tanh(u)."""
    gradient: Tensor
    """(H, N, d): dJ/da, later actions' answers to this one included."""


def without_broken_envs(gradient: Tensor, ranks: Ranks = SINGLE) -> Tensor:
    """Return the gradients (H, N, d) with zeros in envs that have any that is not finite.

    Where no env of any rank is left they stay as they are, for the guard of the optimiser's step to see.
    """
    whole = gradient.isfinite().all(dim=-1).all(dim=0)
    share = whole.double().mean()
    ranks.average_([share])
    return torch.where((whole | (share == 0.0))[:, None], gradient, 0.0)


def pathwise(policy: SquashedNormal, taken: Taken) -> Tensor:
    """Return g_t a_t, (H, N), with the actions taken as functions of a policy that takes the same ones.

    At the policy that took them, its derivative is that of J but for the entropy bonus. Elsewhere it is to be weighed
    by the `ratio`.
    """
    noise = ((taken.pre_tanh - policy.mean) * (-policy.log_std).exp()).detach()
    return (taken.gradient * policy.sample(noise)).sum(dim=-1)


def ratio(policy: SquashedNormal, taken: Taken) -> Tensor:
    """Return how much likelier the actions are now than when taken, (H, N); 0 outside of the bounds. No gradient."""
    with torch.no_grad():
        result = (policy.log_prob(taken.pre_tanh) - taken.policy.log_prob(taken.pre_tanh)).exp()
    return torch.where((result >= MIN_RATIO) & (result <= MAX_RATIO), result, 0.0)


def divergence(old: SquashedNormal, new: SquashedNormal) -> Tensor:
    """Return KL(old | new) [nat], (...,): that of the Normals, which the tanh leaves as it is."""
    squares = (2.0 * old.log_std).exp() + (old.mean - new.mean).square()
    by_dimension = new.log_std - old.log_std + 0.5 * squares * (-2.0 * new.log_std).exp() - 0.5
    return by_dimension.sum(dim=-1)
