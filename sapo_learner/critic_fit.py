"""Fit critics to the targets of a window."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator, Tensor, nn
from torch.optim import AdamW

from sapo_learner.network_input import NetworkInput
from sapo_learner.optimization import step_clipped
from sapo_learner.parallel import SINGLE, Ranks
from sapo_learner.settings import require


def require_enough_samples(samples: int, num_minibatches: int) -> None:
    """Raise ValueError where a window has too few samples for its minibatches."""
    message = f"num_minibatches must be <= horizon * num_envs = {samples}, got {num_minibatches}"
    require(samples >= num_minibatches, message)


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
    rank computes the share of its own envs. Returns metrics, on the device.
    """
    all_targets, num_envs = ranks.gather(targets, dim=1), targets.shape[1]
    inputs, targets = inputs.map(lambda x: x.flatten(0, 1)), targets.flatten()
    losses, norms = [], []
    for _ in range(passes):
        for batch in _minibatches(
            all_targets.numel(), num_minibatches, generator if shuffle else None, targets.device
        ):
            own = ranks.own_samples(batch, num_envs)
            values = critics(inputs.map(lambda x, own=own: x[own]))
            loss = ranks.part_of_mean((values - targets[own]).square(), len(values) * len(batch))
            optimizer.zero_grad()
            loss.backward()
            norms.append(step_clipped(optimizer, max_norm=max_grad_norm, ranks=ranks))
            losses.append(loss.detach())
    norm = torch.stack(norms)
    return {
        "critic/loss": torch.stack(losses).mean(),
        "critic/grad_norm": norm.mean(),
        "critic/skipped": (~norm.isfinite()).sum(),
        "critic/target_mean": all_targets.mean(),
        "critic/target_std": all_targets.std(correction=0),
    }


def _minibatches(
    size: int, count: int, generator: Generator | None, device: torch.device
) -> Iterator[Tensor]:
    if generator is None:
        indices = torch.arange(size, device=device)
    else:
        indices = torch.randperm(size, generator=generator, device=device)
    yield from indices.tensor_split(count)
