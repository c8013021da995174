"""More from one backward pass through the simulator: gradients of actions, used again and mixed with others.

The objective J depends on a policy's parameters through the actions taken and through the entropy bonus, so
dJ/dtheta = sum_t dJ/da_t da_t/dtheta + d(bonus)/dtheta, observations held. Once the simulator has given dJ/da_t, a
further step of the policy costs a pass through its networks alone. Actions are taken up again as the changed policy
would take them: with the noise that leads to the same action, u = mu' + sigma' eps'.

Reuse, the bounds of the ratio and the penalty: RPO (arXiv 2508.06214). Mixture by inverse variance: IVW-H
(arXiv 2604.18161).
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


def without_broken_envs(gradient: Tensor) -> Tensor:
    """Return the gradients (H, N, d) with zeros in envs that have any that is not finite."""
    finite = gradient.isfinite().all(dim=-1).all(dim=0)
    return torch.where(finite[:, None], gradient, 0.0)


def pathwise(policy: SquashedNormal, taken: Tensor, gradient: Tensor) -> Tensor:
    """Return g_t a_t, (H, N, d), with the actions taken as functions of the policy that could have taken them.

    taken: the samples u, gradient: dJ/da, (H, N, d) each. Its derivative is that of J by this policy's parameters,
    but for the actions' weight: see `ratio`.
    """
    noise = ((taken - policy.mean) * (-policy.log_std).exp()).detach()
    return gradient * policy.sample(noise)


def score(policy: SquashedNormal, taken: Tensor, advantage: Tensor) -> Tensor:
    """Return A_t log pi(a_t), (H, N, d), apart for each action dimension and but for a constant.

    taken: the samples u, (H, N, d); advantage: (H, N), weighted as J weights its reward. The expected derivative is
    that of `pathwise`; it needs no gradient of the simulator, and suffers more from chance.
    """
    return advantage[..., None] * _log_density(policy, taken)


def ratio(policy: SquashedNormal, taken: Taken) -> Tensor:
    """Return how much likelier the actions are now than when taken, (H, N); 0 outside of the bounds. No gradient."""
    change = _log_density(policy, taken.pre_tanh) - _log_density(taken.policy, taken.pre_tanh)
    result = change.sum(dim=-1).detach().exp()
    return torch.where((result >= MIN_RATIO) & (result <= MAX_RATIO), result, 0.0)


def pathwise_share(taken: Taken, advantage: Tensor, ranks: Ranks = SINGLE) -> Tensor:
    """Return the weight of `pathwise` beside `score`, in [0, 1], (H, 1, d): by the inverse of their variances.

    The variances are those over all ranks' envs, of the gradients by the mean of u, per step and action dimension.
    """
    slope = 1.0 - taken.pre_tanh.tanh().square()
    by_path = ranks.gather(taken.gradient * slope, dim=1).var(dim=1, keepdim=True)
    noise = (taken.pre_tanh - taken.policy.mean) * (-taken.policy.log_std).exp()
    by_score = advantage[..., None] * noise * (-taken.policy.log_std).exp()
    by_score = ranks.gather(by_score, dim=1).var(dim=1, keepdim=True)
    total = by_path + by_score
    return torch.where(total > 0.0, by_score / total, 1.0)


def divergence(old: SquashedNormal, new: SquashedNormal) -> Tensor:
    """Return KL(old | new) [nat], (...,): that of the Normals, which the tanh leaves as it is."""
    squares = (2.0 * old.log_std).exp() + (old.mean - new.mean).square()
    by_dimension = new.log_std - old.log_std + 0.5 * squares * (-2.0 * new.log_std).exp() - 0.5
    return by_dimension.sum(dim=-1)


def _log_density(policy: SquashedNormal, pre_tanh: Tensor) -> Tensor:
    """Return the log density of each dimension of an action, but for terms that no policy changes."""
    noise = (pre_tanh - policy.mean) * (-policy.log_std).exp()
    return -0.5 * noise.square() - policy.log_std
