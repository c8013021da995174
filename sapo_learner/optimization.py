"""AdamW: weight matrices decay, one clip over everything, no step on a broken gradient."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from sapo_learner.networks import StackedLinear
from sapo_learner.parallel import SINGLE, Ranks


def make_adamw(
    modules: Iterable[nn.Module],
    *,
    learning_rate: float,
    betas: tuple[float, float],
    weight_decay: float,
    eps: float = 1e-8,
) -> AdamW:
    """Make an optimiser over all parameters of `modules`; only the weights of linear layers decay."""
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for layer in (layer for module in modules for layer in module.modules()):
        for name, parameter in layer.named_parameters(recurse=False):
            is_weight = name == "weight" and isinstance(layer, nn.Linear | StackedLinear)
            (decayed if is_weight else others).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return AdamW(
        [group for group in groups if group["params"]], lr=learning_rate, betas=betas, eps=eps, fused=True
    )


def step_clipped(optimizer: AdamW, *, max_norm: float, ranks: Ranks = SINGLE) -> Tensor:
    """Clip the norm of all gradients together, and step; if it is not finite, leave everything as it is.

    The gradient is the mean over `ranks`, all of which take the same step or none.
    Returns the norm before clipping, on the device: nothing here waits for it.
    """
    gradients = [parameter.grad for parameter in parameters_of(optimizer) if parameter.grad is not None]
    ranks.average_(gradients)
    norm = _clip_(gradients, max_norm)
    # As torch's GradScaler does: with found_inf = 1 a fused step changes no parameter, moment or step count.
    setattr(optimizer, "found_inf", (~norm.isfinite()).float())  # noqa: B010 (AdamW does not declare it)
    optimizer.step()
    return norm


def _clip_(gradients: list[Tensor], max_norm: float) -> Tensor:
    """Do what torch's `clip_grad_norm_` does, to the last bit, but in a quarter of its time on small networks.

    Most of that it takes to sort gradients by device and type; here all are alike.
    """
    if not gradients:
        return torch.zeros(())
    norm = torch.stack(torch._foreach_norm(gradients)).norm()  # pyright: ignore[reportPrivateImportUsage]
    clip = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, clip)  # pyright: ignore[reportPrivateImportUsage]
    return norm


def ascend(
    optimizer: AdamW, objective: Tensor, *, max_norm: float, ranks: Ranks = SINGLE
) -> dict[str, Tensor]:
    """Step up the clipped gradient of an objective's mean over `ranks`; returns the actor's metrics, on the device."""
    optimizer.zero_grad()
    (-objective).backward(inputs=parameters_of(optimizer))
    norm = step_clipped(optimizer, max_norm=max_norm, ranks=ranks)
    return {
        "actor/objective": objective.detach(),
        "actor/grad_norm": norm,
        "actor/skipped": ~norm.isfinite(),
    }


def linear(first: float, last: float, progress: float) -> float:
    """Return a learning rate between `first` at progress 0 and `last` at progress 1."""
    return first + (last - first) * progress


def set_learning_rate(optimizer: AdamW, learning_rate: float) -> None:
    """Use this learning rate for all parameters from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def parameters_of(optimizer: AdamW) -> list[Tensor]:
    """Return all parameters that an optimiser steps."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
