"""The weight of the entropy bonus."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Temperature(nn.Module):
    """The weight alpha > 0 of the entropy bonus, learned so that the entropy approaches a target."""

    def __init__(self, initial: float) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(initial).log())

    @property
    def value(self) -> Tensor:
        """Alpha, a scalar on the device, without gradient."""
        return self.log.detach().exp()

    def loss(self, entropy: Tensor, target: float) -> Tensor:
        """Return alpha (mean(h) - target): descent lowers alpha while the entropy h is above its target."""
        return self.log.exp() * (entropy.detach().mean() - target)
