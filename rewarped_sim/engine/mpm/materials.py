"""The materials an MPM scene may hold, and the one place where kernels dispatch between their laws."""

from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace

import warp as wp

from rewarped_sim.engine.mpm.fluid import fluid_functions
from rewarped_sim.engine.mpm.von_mises import von_mises_functions
from rewarped_sim.engine.scalars import Scalars

VON_MISES = 0
FLUID = 1

MATERIAL_FIELDS = ("law", "mu", "lam", "yield_stress", "volume", "mass")
"""Columns of the device table [env, material, field]; SI units, `volume` and `mass` per particle."""


@dataclass(frozen=True, kw_only=True)
class Dough:
    """Elastoplastic dough: Hencky elasticity with von Mises yield. See `von_mises`."""

    young: float
    """Young's modulus [Pa]."""
    poisson: float
    """Poisson's ratio."""
    yield_stress: float
    """Yield stress [Pa]."""
    density: float
    """Mass density [kg/m^3]."""

    def __post_init__(self) -> None:
        _check_elastic(self.young, self.poisson, self.density)
        if not self.yield_stress > 0.0:
            raise ValueError(f"yield_stress must be > 0, got {self.yield_stress}")

    def row(self, volume: float) -> tuple[float, ...]:
        """Entries of `MATERIAL_FIELDS` for particles of this volume [m^3]."""
        mu, lam = lame(self.young, self.poisson)
        return (VON_MISES, mu, lam, self.yield_stress, volume, volume * self.density)

    def sound_speed(self) -> float:
        """Speed of pressure waves [m/s]."""
        mu, lam = lame(self.young, self.poisson)
        return ((lam + 2.0 * mu) / self.density) ** 0.5


@dataclass(frozen=True, kw_only=True)
class Fluid:
    """Weakly compressible, inviscid fluid. See `fluid`."""

    young: float
    """With `poisson` it gives the bulk stiffness lambda [Pa]."""
    poisson: float
    """Poisson's ratio."""
    density: float
    """Mass density [kg/m^3]."""

    def __post_init__(self) -> None:
        _check_elastic(self.young, self.poisson, self.density)

    def row(self, volume: float) -> tuple[float, ...]:
        """Entries of `MATERIAL_FIELDS` for particles of this volume [m^3]."""
        _, lam = lame(self.young, self.poisson)
        return (FLUID, 0.0, lam, 0.0, volume, volume * self.density)

    def sound_speed(self) -> float:
        """Speed of pressure waves [m/s]."""
        _, lam = lame(self.young, self.poisson)
        return (lam / self.density) ** 0.5


Material = Dough | Fluid


def lame(young: float, poisson: float) -> tuple[float, float]:
    """Lame constants (mu, lambda) [Pa] of an isotropic solid."""
    return young / (2.0 * (1.0 + poisson)), young * poisson / ((1.0 + poisson) * (1.0 - 2.0 * poisson))


def _check_elastic(young: float, poisson: float, density: float) -> None:
    if not young > 0.0:
        raise ValueError(f"young must be > 0, got {young}")
    if not 0.0 <= poisson < 0.5:
        raise ValueError(f"poisson must be in [0, 0.5), got {poisson}")
    if not density > 0.0:
        raise ValueError(f"density must be > 0, got {density}")


@cache
def material_functions(scalars: Scalars) -> SimpleNamespace:
    """Build `Material` (one row of the table), `load`, `stress` and `stress_adj`."""
    real, mat33 = scalars.real, scalars.mat33
    von_mises = von_mises_functions(scalars)
    fluid = fluid_functions(scalars)
    von_mises_law, von_mises_law_adj = von_mises.law, von_mises.law_adj
    fluid_law, fluid_law_adj = fluid.law, fluid.law_adj

    @wp.struct
    class Material:
        law: int
        mu: real
        lam: real
        yield_stress: real
        volume: real
        mass: real

    @wp.func
    def load(table: wp.array3d(dtype=real), env: int, index: int):
        material = Material()
        material.law = int(table[env, index, 0])
        material.mu = table[env, index, 1]
        material.lam = table[env, index, 2]
        material.yield_stress = table[env, index, 3]
        material.volume = table[env, index, 4]
        material.mass = table[env, index, 5]
        return material

    @wp.func
    def stress(F: mat33, material: Material):
        """Trial deformation gradient to (F after plasticity, Kirchhoff stress)."""
        F_new = F
        tau = mat33()
        if material.law == VON_MISES:
            F_new, tau = von_mises_law(F, material.mu, material.lam, material.yield_stress)
        else:
            F_new, tau = fluid_law(F, material.lam)
        return F_new, tau

    @wp.func
    def stress_adj(F: mat33, material: Material, F_bar: mat33, tau_bar: mat33):
        """Adjoint of `stress`: the adjoint of the trial deformation gradient."""
        Ft_bar = mat33()
        if material.law == VON_MISES:
            Ft_bar = von_mises_law_adj(F, material.mu, material.lam, material.yield_stress, F_bar, tau_bar)
        else:
            Ft_bar = fluid_law_adj(F, material.lam, F_bar, tau_bar)
        return Ft_bar

    return SimpleNamespace(Material=Material, load=load, stress=stress, stress_adj=stress_adj)
