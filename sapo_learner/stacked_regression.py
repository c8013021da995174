"""The gradient of a stack of critics on a minibatch, written out.

Such a step is dozens of operations of some ten microseconds each; autograd spends about as much again around them, and
what it keeps for the backward pass falls out of the processor's cache. Here one member goes forward and back before
the next one starts, and gradients are written where they belong. `bench.learner_epoch` measures what that is worth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import elu, silu

from sapo_learner.networks import Activation, StackedCritics

EPSILON = 1e-5
"""Of the LayerNorms, as everywhere in torch."""
_aten = torch.ops.aten
_ACTIVATIONS: dict[Activation, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "silu": (silu, _aten.silu_backward),
    "elu": (elu, lambda x_bar, y: _aten.elu_backward(x_bar, 1.0, 1.0, 1.0, False, y)),
}
"""The function of y, and from the gradient of its result, and y, that of y."""


class _Block(NamedTuple):
    """What belongs to one Linear and the LayerNorm after it: parameters, or their gradients."""

    weight: Tensor
    """(in, out)."""
    bias: Tensor
    """(1, out)."""
    scale: Tensor
    """(out,)."""
    offset: Tensor
    """(out,)."""


class StackRegression:
    """Regression of all members of a stack on the same targets: sets `parameter.grad`, all of it at each call.

    It holds on to the memory of parameters and gradients, and is of no use once others take their place.
    """

    def __init__(self, stack: StackedCritics) -> None:
        self._activate, self._activation_backward = _ACTIVATIONS[stack.activation]
        for parameter in stack.parameters():
            parameter.grad = torch.zeros_like(parameter)
        values = [parameter.detach() for parameter in stack.parameters()]
        gradients = [parameter.grad for parameter in stack.parameters() if parameter.grad is not None]
        self._members = [(_views(values, member), _views(gradients, member)) for member in range(stack.count)]

    @torch.no_grad()
    def __call__(self, features: Tensor, targets: Tensor, *, weight: float) -> Tensor:
        """Differentiate weight times the squared errors' mean over members and sum over samples, and return it.

        features: (B, in), targets: (B,); where a target is not finite, the error is 0. Returns a scalar on the
        device; nothing here waits for it.
        """
        share = weight / len(self._members)
        targets = targets.unsqueeze(1)
        known = targets.isfinite()
        errors = [self._member(i, features, targets, known, share) for i in range(len(self._members))]
        return torch.stack(errors).sum() * share

    def _member(self, member: int, features: Tensor, targets: Tensor, known: Tensor, share: float) -> Tensor:
        """Return a member's sum of squared errors. A name in `_bar` is a gradient with respect to the name's bearer."""
        parameters, gradients = self._members[member]
        (blocks, (last_weight, last_bias)), (blocks_bar, last_bar) = parameters, gradients
        x, kept = features, []
        for block in blocks:
            z = torch.addmm(block.bias, x, block.weight)
            y, mean, inverse_std = torch.native_layer_norm(z, z.shape[1:], block.scale, block.offset, EPSILON)
            kept.append((x, z, mean, inverse_std, y))
            x = self._activate(y)
        error = torch.where(known, torch.addmm(last_bias, x, last_weight) - targets, 0.0)

        z_bar = error * (2.0 * share)
        _linear_backward(x, z_bar, *last_bar)
        above = last_weight
        for block, bar in zip(reversed(blocks), reversed(blocks_bar), strict=True):
            x, z, mean, inverse_std, y = kept.pop()
            y_bar = self._activation_backward(z_bar.mm(above.t()), y)
            z_bar, scale_bar, offset_bar = _aten.native_layer_norm_backward(
                y_bar, z, z.shape[1:], mean, inverse_std, block.scale, block.offset, [True, True, True]
            )
            bar.scale.copy_(scale_bar)
            bar.offset.copy_(offset_bar)
            _linear_backward(x, z_bar, bar.weight, bar.bias)
            above = block.weight
        return error.square().sum()


def _linear_backward(x: Tensor, z_bar: Tensor, weight_bar: Tensor, bias_bar: Tensor) -> None:
    torch.mm(x.t(), z_bar, out=weight_bar)
    torch.sum(z_bar, 0, keepdim=True, out=bias_bar)


def _views(tensors: list[Tensor], member: int) -> tuple[list[_Block], tuple[Tensor, Tensor]]:
    """Part the parameters of a stack, or what looks like them, into one member's blocks and its last layer."""
    *hidden, weight, bias = (tensor[member] for tensor in tensors)
    blocks = [
        _Block(hidden[i], hidden[i + 1], hidden[i + 2][0], hidden[i + 3][0]) for i in range(0, len(hidden), 4)
    ]
    return blocks, (weight, bias)
