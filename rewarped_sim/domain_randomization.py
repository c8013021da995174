"""Robots that differ between environments and episodes: a policy must cope with what nobody measured on hardware."""

from __future__ import annotations

from dataclasses import dataclass, fields

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
    """Parameters of an articulated model that vary within spreads."""

    def __init__(self, model: ArticulationModel, spread: DomainRandomization, device: torch.device) -> None:
        self.is_off = spread.is_off
        layout = ParameterLayout.of(model)
        bodies = len(model.bodies)
        # One number per body for its mass, and one for each quantity that varies as a whole.
        self._places = [
            (spread.friction_spread, _contact(layout, "friction")),
            (spread.stiffness_spread, _contact(layout, "stiffness")),
            (spread.damping_spread, _places(layout.damping)),
            (spread.gain_spread, _places(layout.drive_stiffness) + _places(layout.drive_damping)),
            (spread.gravity_spread, _places(layout.gravity)),
        ]
        self.num_random = 0 if self.is_off else bodies + len(self._places)
        """Random numbers that an env's parameters take."""
        self._mass, self._mass_spread = layout.mass, spread.mass_spread
        self._bodies = bodies
        self._own = torch.tensor(default_parameters(model), dtype=torch.float32, device=device)

    def __call__(self, uniform: Tensor) -> dict[str, Tensor]:
        """Nothing, or `parameters` (num_envs, size) from numbers in [0, 1), (num_envs, num_random)."""
        if self.is_off:
            return {}
        u = 2.0 * uniform - 1.0
        values = self._own.repeat(len(uniform), 1)
        values[:, self._mass] *= 1.0 + self._mass_spread * u[:, : self._bodies]
        for (spread, places), change in zip(self._places, u[:, self._bodies :].unbind(dim=1), strict=True):
            values[:, places] *= 1.0 + spread * change[:, None]
        return {"parameters": values}


def _contact(layout: ParameterLayout, field: str) -> list[int]:
    return [layout.contact.start + CONTACT_FIELDS.index(field)]


def _places(where: slice) -> list[int]:
    return list(range(where.start, where.stop))
