"""A material's constants as kernels see them: one row of the device table [env, part, field]."""

from functools import cache
from types import SimpleNamespace

import warp as wp

from rewarped_sim.engine.scalars import Scalars

VON_MISES = 0
SAND = 1
NEO_HOOKEAN = 2
COROTATED = 3
FLUID = 4

MATERIAL_FIELDS = ("law", "mu", "lam", "yield_stress", "friction", "cohesion", "volume", "mass")
"""Columns of the table; SI units, `volume` and `mass` per particle. What a law does not use is zero."""
LAW_CONSTANTS = MATERIAL_FIELDS[1:6]
"""The columns that a law of stress depends on."""


@cache
def material_table_functions(scalars: Scalars) -> SimpleNamespace:
    """Build `Material` (a row of the table), `load(table, env, part)` and `LawAdjoint`."""
    real = scalars.real

    @wp.struct
    class Material:
        law: int
        mu: real
        lam: real
        yield_stress: real
        friction: real
        cohesion: real
        volume: real
        mass: real

    @wp.struct
    class LawAdjoint:
        """Adjoints of `LAW_CONSTANTS`."""

        mu: real
        lam: real
        yield_stress: real
        friction: real
        cohesion: real

    @wp.func
    def load(table: wp.array3d(dtype=real), env: int, part: int):
        material = Material()
        material.law = int(table[env, part, 0])
        material.mu = table[env, part, 1]
        material.lam = table[env, part, 2]
        material.yield_stress = table[env, part, 3]
        material.friction = table[env, part, 4]
        material.cohesion = table[env, part, 5]
        material.volume = table[env, part, 6]
        material.mass = table[env, part, 7]
        return material

    return SimpleNamespace(Material=Material, LawAdjoint=LawAdjoint, load=load)
