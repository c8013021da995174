"""Robots that differ between environments and episodes: a policy must cope with what nobody measured on hardware."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from rewarped_sim.engine.articulation.model import ArticulationModel
from rewarped_sim.engine.articulation.parameters import CONTACT_FIELDS, ParameterLayout, default_parameters


@dataclass(frozen=True, kw_only=True)
class DomainRandomization:
    """Largest relative changes, each in [0, 1); 0 leaves a quantity as it is."""

    mass_spread: float = 0.0
    """Of each body's mass and inertia, independently."""
    friction_spread: float = 0.0
    """Of the Coulomb coefficient of all contacts together."""
    stiffness_spread: float = 0.0
    """Of the normal stiffness of all contacts together."""
    damping_spread: float = 0.0
    """Of the joints' damping, all together."""
    gain_spread: float = 0.0
    """Of stiffness and damping of position drives, all together."""
    strength_spread: float = 0.0
    """Of what each motor or muscle makes of its action, independently."""
    gravity_spread: float = 0.0
    """Of the strength of gravity."""

    def __post_init__(self) -> None:
        for spread in fields(DomainRandomization):
            value = getattr(self, spread.name)
            if not 0.0 <= value < 1.0:
                raise ValueError(f"{spread.name} must be in [0, 1), got {value}")

    @property
    def is_off(self) -> bool:
        """Whether nothing varies."""
        return not any(getattr(self, spread.name) for spread in fields(DomainRandomization))


class RandomParameters:
    """Constants of an articulated model, and strengths of its actuators, that vary within spreads."""

    def __init__(
        self, model: ArticulationModel, spread: DomainRandomization, device: torch.device, *, actuators: int
    ) -> None:
        """actuators: motors, or muscles, that actions drive.

        Raises ValueError for the spread of something that the model does not have.
        """
        self.is_off = spread.is_off
        layout, own = ParameterLayout.of(model), default_parameters(model)
        touches = model.ground is not None or len(model.contact_pairs) > 0
        contact = _places(layout.contact) if touches else []
        field = {name: contact[i : i + 1] for i, name in enumerate(CONTACT_FIELDS)}
        drives = _places(layout.drive_stiffness) + _places(layout.drive_damping)
        varying = [("mass_spread", [place]) for place in _places(layout.mass)]
        varying += [
            ("friction_spread", field["friction"]),
            ("stiffness_spread", field["stiffness"]),
            ("damping_spread", _places(layout.damping)),
            ("gain_spread", drives),
            ("gravity_spread", _places(layout.gravity)),
        ]
        # One row for each random number: by how much it changes which parameter.
        spreads = np.zeros((len(varying), layout.size), np.float32)
        for row, (name, places) in zip(spreads, varying, strict=True):
            row[places] = value = getattr(spread, name)
            if value > 0.0 and not own[places].any():
                raise ValueError(f"{name} = {value}: this model has none to vary")
        self._counts = (len(varying), actuators)
        self.num_random = 0 if self.is_off else sum(self._counts)
        """Random numbers that an env's robot takes."""
        self._spreads = torch.tensor(spreads, device=device)
        self._strength_spread = spread.strength_spread
        self._own = torch.tensor(own, dtype=torch.float32, device=device)

    def __call__(self, uniform: Tensor) -> dict[str, Tensor]:
        """Nothing, or state entries from numbers in [0, 1), (num_envs, num_random).

        They are `parameters` (num_envs, size), which physics takes, and `strength` (num_envs, actuators), by which a
        task multiplies what its actions do.
        """
        if self.is_off:
            return {}
        changes, strengths = (2.0 * uniform - 1.0).split(self._counts, dim=1)
        return {
            "parameters": self._own * (1.0 + changes @ self._spreads),
            "strength": 1.0 + self._strength_spread * strengths,
        }


def _places(where: slice) -> list[int]:
    return list(range(where.start, where.stop))
