"""Fit critics to the targets of a window."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Generator, Tensor, nn
from torch.optim import AdamW

from sapo_learner.critics import Critics
from sapo_learner.encoders import FlatEncoder
from sapo_learner.network_input import NetworkInput
from sapo_learner.optimization import step_clipped
from sapo_learner.parallel import SINGLE, Ranks
from sapo_learner.settings import require
from sapo_learner.stacked_regression import StackRegression

LossWithGradient = Callable[[NetworkInput, Tensor, int], Tensor]
"""From this rank's inputs and targets, and the number of samples of all ranks, to a loss whose mean over the ranks is
the minibatch's mean squared error; sets the gradient of each of the critics' parameters to its own."""


def require_enough_samples(samples: int, num_minibatches: int) -> None:
    """Raise ValueError where a window has too few samples for its minibatches."""
    message = f"num_minibatches must be <= horizon * num_envs = {samples}, got {num_minibatches}"
    require(samples >= num_minibatches, message)


@torch.no_grad()
def meet_mean(critics: Critics, inputs: NetworkInput, targets: Tensor, *, ranks: Ranks = SINGLE) -> None:
    """Set each critic's constant by least squares: its mean over the window becomes that of the targets.

    inputs: (H, N, ...), targets: (H, N). What all states have in common is the bulk of a value under steady
    rewards. A network that learns it by gradient descent bends on the way, and the actor climbs the bends. Targets
    that are not finite count for nothing.
    """
    values = critics(inputs.map(lambda x: x.flatten(0, 1))).unflatten(1, targets.shape)
    error = ranks.gather(targets - values, dim=2)
    known = error.isfinite()
    total = torch.where(known, error, 0.0).sum(dim=(1, 2))
    critics.raise_by(total / known.sum(dim=(1, 2)).clamp(min=1))


def fit_critics(
    critics: nn.Module,
    optimizer: AdamW,
    inputs: NetworkInput,
    targets: Tensor,
    *,
    passes: int,
    num_minibatches: int,
    shuffle: bool,
    max_grad_norm: float,
    generator: Generator,
    ranks: Ranks = SINGLE,
) -> dict[str, Tensor]:
    """Regress all critics on the same targets, in several passes of minibatches over the window.

    inputs: (H, N, ...), targets: (H, N), both without gradient. shuffle: draw minibatches at random from
    `generator`; otherwise they are taken in the order of time. A minibatch is one of all ranks together, and each
    rank computes the share of its own envs. Targets that are not finite are counted and teach nothing: their errors
    are 0. Returns metrics, on the device.
    """
    all_targets, num_envs = ranks.gather(targets, dim=1), targets.shape[1]
    inputs, targets = inputs.map(lambda x: x.flatten(0, 1)), targets.flatten()
    loss_with_gradient = _loss_with_gradient(critics, ranks)
    losses, norms = [], []
    for _ in range(passes):
        for batch in _minibatches(
            all_targets.numel(), num_minibatches, generator if shuffle else None, targets.device
        ):
            own = ranks.own_samples(batch, num_envs)
            own_inputs = inputs.map(lambda x, own=own: x.index_select(0, own))
            losses.append(loss_with_gradient(own_inputs, targets.index_select(0, own), len(batch)))
            norms.append(step_clipped(optimizer, max_norm=max_grad_norm, ranks=ranks))
    norm = torch.stack(norms)
    return {
        "critic/loss": torch.stack(losses).mean(),
        "critic/grad_norm": norm.mean(),
        "critic/skipped": (~norm.isfinite()).sum(),
        "critic/masked_targets": (~all_targets.isfinite()).sum(),
        "critic/target_mean": all_targets.mean(),
        "critic/target_std": all_targets.std(correction=0),
    }


def _loss_with_gradient(critics: nn.Module, ranks: Ranks) -> LossWithGradient:
    """Return the way that suits the critics: written out for those that see the state as it is, else by autograd."""
    if isinstance(critics, Critics) and isinstance(critics.encoder, FlatEncoder):
        regression = StackRegression(critics.heads)
        return lambda inputs, targets, samples: regression(inputs.state, targets, weight=ranks.size / samples)

    def by_autograd(inputs: NetworkInput, targets: Tensor, samples: int) -> Tensor:
        values = critics(inputs)
        error = torch.where(targets.isfinite(), values - targets, 0.0)
        loss = ranks.part_of_mean(error.square(), len(values) * samples)
        critics.zero_grad()
        loss.backward()
        return loss.detach()

    return by_autograd


def _minibatches(
    size: int, count: int, generator: Generator | None, device: torch.device
) -> Iterator[Tensor]:
    if generator is None:
        indices = torch.arange(size, device=device)
    else:
        indices = torch.randperm(size, generator=generator, device=device)
    yield from indices.tensor_split(count)
