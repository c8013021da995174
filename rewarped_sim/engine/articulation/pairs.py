"""Pairs of shapes that may touch: their candidate points, and the function that tells gap, normal and point of one.

A pair of kinds has a fixed number of candidates, so one thread can take each, and what does not touch costs little.
`contact` of a pair kind is a Warp function with Warp's own adjoint,

    contact(candidate, size_a, pos_a, rot_a, size_b, pos_b, rot_b) -> (gap, normal, point),

of the sizes (as in `Geom`, filled up with zeros) and world poses of two shapes. The normal points from b to a; the
point lies halfway between the two surfaces; both are in world axes. The shapes touch where gap < 0, and -gap is the
depth of their overlap, or the candidate's share of it (`round_pairs`, `box_pair`). Gap, normal and point move with the
poses, and so do their derivatives.

A candidate without contact has gap >= 0, which is no distance between the shapes; its normal and point mean nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from rewarped_sim.engine.articulation.box_pair import NUM_CORNERS, NUM_EDGES, box_pair_function
from rewarped_sim.engine.articulation.model import ArticulationModel, Geom
from rewarped_sim.engine.articulation.round_pairs import round_pair_functions
from rewarped_sim.engine.articulation.shapes import bounding_radius
from rewarped_sim.engine.scalars import Scalars

PairKind = tuple[str, str]

NUM_CANDIDATES: dict[PairKind, int] = {
    ("sphere", "sphere"): 1,
    ("sphere", "capsule"): 1,
    ("sphere", "box"): 1,
    ("capsule", "capsule"): 3,
    ("capsule", "box"): 3,
    ("box", "box"): NUM_CORNERS + NUM_EDGES,
}
"""Candidates of a pair by its kinds, which are in this order always."""


@cache
def pair_functions(scalars: Scalars) -> dict[PairKind, Any]:
    """Build `contact` of every pair kind."""
    round_pairs = vars(round_pair_functions(scalars))
    functions = {kinds: round_pairs.get("_".join(kinds)) for kinds in NUM_CANDIDATES}
    return {**functions, ("box", "box"): box_pair_function(scalars)}


@dataclass(frozen=True, kw_only=True)
class PairTable:
    """Every pair of shapes of one kind that may touch. Shapes are counted through all bodies of the model."""

    kinds: PairKind
    geom_a: np.ndarray
    """(pairs,) int32"""
    geom_b: np.ndarray
    """(pairs,) int32"""
    reach: np.ndarray
    """(pairs,) sum of bounding radii [m]: shapes whose centres are farther apart do not touch."""

    @property
    def num_candidates(self) -> int:
        """Of each pair."""
        return NUM_CANDIDATES[self.kinds]


def all_geoms(model: ArticulationModel) -> list[tuple[str, Geom]]:
    """Every shape with its body's name, in the order in which `PairTable` counts."""
    return [(body.name, geom) for body in model.bodies for geom in body.geoms]


def pair_tables(model: ArticulationModel) -> list[PairTable]:
    """The pairs that `model.contact_pairs` lets touch, grouped by kinds; shapes that touch nothing are left out."""
    by_kinds: dict[PairKind, list[tuple[int, int]]] = {}
    geoms = [geom for _, geom in all_geoms(model)]
    order = {kind: at for at, kind in enumerate(("sphere", "capsule", "box"))}
    for first, second in _pairs(model):
        a, b = sorted((first, second), key=lambda at: (order[geoms[at].kind], at))
        by_kinds.setdefault((geoms[a].kind, geoms[b].kind), []).append((a, b))
    return [
        PairTable(
            kinds=kinds,
            geom_a=np.array([a for a, _ in by_kinds[kinds]], np.int32),
            geom_b=np.array([b for _, b in by_kinds[kinds]], np.int32),
            reach=np.array(
                [bounding_radius(geoms[a]) + bounding_radius(geoms[b]) for a, b in by_kinds[kinds]]
            ),
        )
        for kinds in NUM_CANDIDATES
        if kinds in by_kinds
    ]


def _pairs(model: ArticulationModel) -> Iterator[tuple[int, int]]:
    """Indices of every two shapes that may touch, once."""
    touching: dict[str, list[int]] = {body.name: [] for body in model.bodies}
    for index, (body, geom) in enumerate(all_geoms(model)):
        if geom.contact is not None:
            touching[body].append(index)
    for first, second in dict.fromkeys(tuple(sorted(pair)) for pair in model.contact_pairs):
        for a in touching[first]:
            for b in touching[second]:
                yield a, b
