"""How an objective looks around the weights that were found: on a plane through them, spanned by random directions.

Li, Xu, Taylor, Studer and Goldstein, "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018 (arXiv 1712.09913).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

Direction = list[Tensor]
"""One tensor for each parameter, of its shape."""


def filter_normalized_direction(parameters: Sequence[Tensor], generator: Generator) -> Direction:
    """Draw a direction in which every unit's weights change by as much as they are long.

    Each row of a weight matrix is a random vector with the norm of that row; otherwise networks that differ only by the
    scale of their weights would look different. Biases, norms and free standard deviations stay, as in the paper.
    """
    direction = []
    for parameter in parameters:
        weight = parameter.detach()
        if weight.dim() < 2:
            direction.append(torch.zeros_like(weight))
            continue
        drawn = torch.randn(weight.shape, generator=generator).to(weight)
        rows = tuple(range(1, weight.dim()))
        scale = weight.norm(dim=rows, keepdim=True) / drawn.norm(dim=rows, keepdim=True)
        direction.append(drawn * scale)
    return direction


@torch.no_grad()
def surface(
    parameters: Sequence[Tensor],
    first: Direction,
    second: Direction,
    coordinates: Sequence[float],
    objective: Callable[[], float],
    on_row: Callable[[int], None] = lambda row: None,
) -> Tensor:
    """Return objective(parameters + a first + b second), (len(coordinates),) * 2 float64: rows a, columns b.

    objective: asked after the parameters were moved, and must be a function of them alone. on_row: told how many rows
    are done. At the end the parameters are, to the bit, what they were, also after an exception.
    """
    origin = [parameter.detach().clone() for parameter in parameters]
    values = torch.full((len(coordinates), len(coordinates)), torch.nan, dtype=torch.float64)
    try:
        for row, a in enumerate(coordinates):
            for column, b in enumerate(coordinates):
                for parameter, start, u, v in zip(parameters, origin, first, second, strict=True):
                    parameter.copy_(start + a * u + b * v)
                values[row, column] = objective()
            on_row(row + 1)
    finally:
        for parameter, start in zip(parameters, origin, strict=True):
            parameter.copy_(start)
    return values
