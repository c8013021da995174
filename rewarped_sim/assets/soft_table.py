"""The soft table: a slab on four legs, of 204 vertices and 444 tetrahedra.

The slab is 7 x 7 cells wide and 2 high, each leg one cell wide and 3 high; a cell's edge is `CELL_M`. Every cell of a
leg, and every column of two cells of the slab, is cut into six tetrahedra around its diagonal (Kuhn's triangulation);
the upright edges around the rim of the slab are then halved. Diagonals run down, forward and inward, left as right: a
body whose diagonals all ran one way would creep that way while nothing drives it.

Numbers, volumes and bounding box are those of the published SoftJumper, which has y up; here z is up, +x forward as
there. How its tetrahedra are arranged is not published.
"""

from dataclasses import dataclass
from functools import cache
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from rewarped_sim.engine.fem.mesh import neighbours, signed_volumes

CELL_M = 0.3544279
LOWEST_CORNER_M = (-1.1602, -1.2596, 0.0073)
"""Of the bounding box."""
_WIDTH = 7
"""Cells of the slab along x and y."""
_SLAB = (3, 5)
"""Its lower and upper layer of vertices."""
_MIDDLE = 4

Point = tuple[int, int, int]
_Tet = tuple[Point, ...]


@dataclass(frozen=True)
class SoftTable:
    """A mesh of tetrahedra."""

    vertices: NDArray[np.float64]
    """(204, 3) [m], z up."""
    tets: NDArray[np.int32]
    """(444, 4) indices of vertices. Tetrahedra 2 k and 2 k + 1 share a face: they make actuator k."""


@cache
def soft_table() -> SoftTable:
    """Build the mesh; its arrays are read-only."""
    tets = _legs() + _slab()
    for x, y in product(range(_WIDTH + 1), repeat=2):
        if x in (0, _WIDTH) or y in (0, _WIDTH):
            tets = _halved(tets, (x, y, _SLAB[0]), (x, y, _SLAB[1]))
    points = sorted({point for tet in tets for point in tet})
    index = {point: i for i, point in enumerate(points)}
    vertices = np.array(LOWEST_CORNER_M) + CELL_M * np.array(points, np.float64)
    corners = np.array([[index[point] for point in tet] for tet in tets], np.int32)
    inverted = signed_volumes(vertices, corners) < 0.0
    corners[inverted, 2:] = corners[inverted, :1:-1]
    corners = corners[_paired(neighbours(corners))]
    for array in (vertices, corners):
        array.setflags(write=False)
    return SoftTable(vertices, corners)


def _legs() -> list[_Tet]:
    corners = product((0, _WIDTH - 1), (0, _WIDTH - 1), range(_SLAB[0]))
    return [tet for corner in corners for tet in _kuhn(corner, height=1)]


def _slab() -> list[_Tet]:
    corners = product(range(_WIDTH), range(_WIDTH), _SLAB[:1])
    return [tet for corner in corners for tet in _kuhn(corner, height=_SLAB[1] - _SLAB[0])]


def _kuhn(corner: Point, *, height: int) -> list[_Tet]:
    """Six tetrahedra of a box one cell wide: the ways along its edges from one end of its diagonal to the other."""
    x, y, z = corner
    on_right = y <= _WIDTH // 2
    start = (x, y if on_right else y + 1, z + height)
    step = (1, 1 if on_right else -1, -height)
    tets = []
    for order in permutations(range(3)):
        point, way = list(start), [start]
        for axis in order:
            point[axis] += step[axis]
            way.append((point[0], point[1], point[2]))
        tets.append(tuple(way))
    return tets


def _halved(tets: list[_Tet], low: Point, high: Point) -> list[_Tet]:
    """The same tetrahedra, those around the edge from `low` to `high` cut in two at its middle."""
    middle = (low[0], low[1], _MIDDLE)
    result = []
    for tet in tets:
        if low in tet and high in tet:
            result += [tuple(middle if p == end else p for p in tet) for end in (low, high)]
        else:
            result.append(tet)
    return result


def _paired(adjacent: list[list[int]]) -> list[int]:
    """An order in which each two tetrahedra share a face.

    Always first the one with the fewest free neighbours, with that of them that has the fewest itself. That leaves none
    over here; it need not for any mesh.
    """
    free = {index: set(others) for index, others in enumerate(adjacent)}
    order = []
    while free:
        first = min(free, key=lambda index: (len(free[index]), index))
        second = min(free[first], key=lambda index: (len(free[index]), -index))
        for taken in (first, second):
            for other in free.pop(taken):
                if other in free:
                    free[other].discard(taken)
        order += [first, second]
    return order
