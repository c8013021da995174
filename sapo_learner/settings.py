"""Checks that the algorithms' settings share. Each raises ValueError: name, what is expected, what was given."""

from __future__ import annotations

import math
from typing import Any


def require(condition: bool, message: str) -> None:
    """Raise ValueError with `message` unless `condition` holds."""
    if not condition:
        raise ValueError(message)


def require_positive(config: Any, *names: str) -> None:
    """Each is > 0 and finite."""
    for name in names:
        value = getattr(config, name)
        require(0 < value < math.inf, f"{name} must be > 0{_and_finite(value)}, got {value}")


def require_not_negative(config: Any, *names: str) -> None:
    """Each is >= 0 and finite."""
    for name in names:
        value = getattr(config, name)
        require(0 <= value < math.inf, f"{name} must be >= 0{_and_finite(value)}, got {value}")


def _and_finite(value: float) -> str:
    return "" if math.isfinite(value) else " and finite"


def require_fraction(config: Any, *names: str) -> None:
    """Each is between 0 and 1, both included."""
    for name in names:
        value = getattr(config, name)
        require(0 <= value <= 1, f"{name} must be between 0 and 1, got {value}")


def require_one_of(config: Any, name: str, choices: tuple[str, ...]) -> None:
    """It is one of `choices`."""
    value = getattr(config, name)
    require(value in choices, f"{name} must be one of {list(choices)}, got {value!r}")


def require_sizes(config: Any, *names: str) -> None:
    """Each is a sequence of sizes > 0; a list, as YAML has it, becomes a tuple."""
    for name in names:
        sizes = tuple(getattr(config, name))
        object.__setattr__(config, name, sizes)
        require(all(size > 0 for size in sizes), f"{name} must hold sizes > 0, got {sizes}")


def require_betas(config: Any, name: str = "betas") -> None:
    """It holds the two decay rates of an optimiser; a list, as YAML has it, becomes a tuple."""
    betas = tuple(getattr(config, name))
    object.__setattr__(config, name, betas)
    sound = len(betas) == 2 and all(0 <= beta < 1 for beta in betas)
    require(sound, f"{name} must be two numbers in [0, 1), got {betas}")
