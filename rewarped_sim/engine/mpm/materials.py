"""The materials an MPM scene may hold, and the one place where kernels dispatch between their laws."""

from collections.abc import Set
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import ClassVar

import warp as wp

from rewarped_sim.engine.mpm.corotated import corotated_functions
from rewarped_sim.engine.mpm.fluid import fluid_functions
from rewarped_sim.engine.mpm.hencky import hencky_functions
from rewarped_sim.engine.mpm.material_table import (
    COROTATED,
    FLUID,
    NEO_HOOKEAN,
    SAND,
    VON_MISES,
    material_table_functions,
)
from rewarped_sim.engine.mpm.neo_hookean import neo_hookean_functions
from rewarped_sim.engine.mpm.sand import friction_of
from rewarped_sim.engine.scalars import Scalars


@dataclass(frozen=True, kw_only=True)
class _Elastic:
    young: float
    """Young's modulus [Pa]."""
    poisson: float
    """Poisson's ratio."""
    density: float
    """Mass density [kg/m^3]."""

    law: ClassVar[int]
    """Code of the law in `material_table`."""

    def __post_init__(self) -> None:
        if not self.young > 0.0:
            raise ValueError(f"young must be > 0, got {self.young}")
        if not 0.0 <= self.poisson < 0.5:
            raise ValueError(f"poisson must be in [0, 0.5), got {self.poisson}")
        if not self.density > 0.0:
            raise ValueError(f"density must be > 0, got {self.density}")

    def row(self, volume: float) -> tuple[float, ...]:
        """Entries of `MATERIAL_FIELDS` for particles of this volume [m^3]."""
        mu, lam = lame(self.young, self.poisson)
        return (self.law, mu, lam, 0.0, 0.0, 0.0, volume, volume * self.density)

    def sound_speed(self) -> float:
        """Speed of pressure waves [m/s]."""
        mu, lam = lame(self.young, self.poisson)
        return ((lam + 2.0 * mu) / self.density) ** 0.5


@dataclass(frozen=True, kw_only=True)
class Dough(_Elastic):
    """Elastoplastic dough: Hencky elasticity with von Mises yield. See `hencky` and `von_mises`."""

    yield_stress: float
    """Yield stress [Pa]."""

    law: ClassVar[int] = VON_MISES

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.yield_stress > 0.0:
            raise ValueError(f"yield_stress must be > 0, got {self.yield_stress}")

    def row(self, volume: float) -> tuple[float, ...]:
        """Entries of `MATERIAL_FIELDS` for particles of this volume [m^3]."""
        law, mu, lam, _, *rest = super().row(volume)
        return (law, mu, lam, self.yield_stress, *rest)


@dataclass(frozen=True, kw_only=True)
class Sand(_Elastic):
    """Grains with friction and cohesion: Hencky elasticity with a Drucker-Prager cone. See `hencky` and `sand`."""

    friction_angle_deg: float = 25.0
    """Angle of internal friction [deg]."""
    cohesion: float = 0.0
    """Stretch at which the grains come apart, as a logarithmic strain per axis."""

    law: ClassVar[int] = SAND

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.friction_angle_deg < 90.0:
            raise ValueError(f"friction_angle_deg must be in (0, 90), got {self.friction_angle_deg}")
        if not self.cohesion >= 0.0:
            raise ValueError(f"cohesion must be >= 0, got {self.cohesion}")

    def row(self, volume: float) -> tuple[float, ...]:
        """Entries of `MATERIAL_FIELDS` for particles of this volume [m^3]."""
        law, mu, lam, _, _, _, *rest = super().row(volume)
        return (law, mu, lam, 0.0, friction_of(self.friction_angle_deg), self.cohesion, *rest)


@dataclass(frozen=True, kw_only=True)
class NeoHookean(_Elastic):
    """Rubber-like solid that always springs back. See `neo_hookean`."""

    law: ClassVar[int] = NEO_HOOKEAN


@dataclass(frozen=True, kw_only=True)
class Corotated(_Elastic):
    """Solid of the fixed-corotated law, that always springs back. See `corotated`."""

    law: ClassVar[int] = COROTATED


@dataclass(frozen=True, kw_only=True)
class Fluid(_Elastic):
    """Weakly compressible, inviscid fluid; `young` and `poisson` give its bulk stiffness lambda. See `fluid`."""

    law: ClassVar[int] = FLUID

    def row(self, volume: float) -> tuple[float, ...]:
        """Entries of `MATERIAL_FIELDS` for particles of this volume [m^3]."""
        law, _, *rest = super().row(volume)
        return (law, 0.0, *rest)

    def sound_speed(self) -> float:
        """Speed of pressure waves [m/s]."""
        _, lam = lame(self.young, self.poisson)
        return (lam / self.density) ** 0.5


Material = Dough | Sand | NeoHookean | Corotated | Fluid


def lame(young: float, poisson: float) -> tuple[float, float]:
    """Lame constants (mu, lambda) [Pa] of an isotropic solid."""
    return young / (2.0 * (1.0 + poisson)), young * poisson / ((1.0 + poisson) * (1.0 - 2.0 * poisson))


@cache
def material_functions(scalars: Scalars, laws: Set[int]) -> SimpleNamespace:
    """Build `stress(F, material) -> (F', tau)` and `stress_adj(F, material, F'_bar, tau_bar) -> (F_bar, LawAdjoint)`.

    F is the trial deformation gradient, tau the Kirchhoff stress. laws: the laws to compile in; a scene of fluid
    carries no singular value decomposition.
    """
    mat33 = scalars.mat33
    table = material_table_functions(scalars)
    Material, LawAdjoint = table.Material, table.LawAdjoint
    hencky = hencky_functions(scalars, laws & {VON_MISES, SAND})
    hencky_law, hencky_law_adj = hencky.law, hencky.law_adj
    neo_hookean, corotated, fluid = (
        neo_hookean_functions(scalars),
        corotated_functions(scalars),
        fluid_functions(scalars),
    )
    neo_hookean_law, neo_hookean_law_adj = neo_hookean.law, neo_hookean.law_adj
    corotated_law, corotated_law_adj = corotated.law, corotated.law_adj
    fluid_law, fluid_law_adj = fluid.law, fluid.law_adj
    with_hencky = VON_MISES in laws or SAND in laws
    with_neo_hookean, with_corotated, with_fluid = NEO_HOOKEAN in laws, COROTATED in laws, FLUID in laws

    @wp.func
    def stress(F: mat33, material: Material):
        F_new = F
        tau = mat33()
        if wp.static(with_hencky):
            if material.law == VON_MISES or material.law == SAND:
                F_new, tau = hencky_law(F, material)
        if wp.static(with_neo_hookean):
            if material.law == NEO_HOOKEAN:
                tau = neo_hookean_law(F, material.mu, material.lam)
        if wp.static(with_corotated):
            if material.law == COROTATED:
                tau = corotated_law(F, material.mu, material.lam)
        if wp.static(with_fluid):
            if material.law == FLUID:
                F_new, tau = fluid_law(F, material.lam)
        return F_new, tau

    @wp.func
    def stress_adj(F: mat33, material: Material, F_bar: mat33, tau_bar: mat33):
        Ft_bar = F_bar
        constants = LawAdjoint()
        if wp.static(with_hencky):
            if material.law == VON_MISES or material.law == SAND:
                Ft_bar, constants = hencky_law_adj(F, material, F_bar, tau_bar)
        if wp.static(with_neo_hookean):
            if material.law == NEO_HOOKEAN:
                through, mu_bar, lam_bar = neo_hookean_law_adj(F, material.mu, material.lam, tau_bar)
                Ft_bar = F_bar + through
                constants.mu = mu_bar
                constants.lam = lam_bar
        if wp.static(with_corotated):
            if material.law == COROTATED:
                through, mu_bar, lam_bar = corotated_law_adj(F, material.mu, material.lam, tau_bar)
                Ft_bar = F_bar + through
                constants.mu = mu_bar
                constants.lam = lam_bar
        if wp.static(with_fluid):
            if material.law == FLUID:
                Ft_bar, lam_bar = fluid_law_adj(F, material.lam, F_bar, tau_bar)
                constants.lam = lam_bar
        return Ft_bar, constants

    return SimpleNamespace(stress=stress, stress_adj=stress_adj)
