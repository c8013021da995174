"""Facts about meshes of tetrahedra: volumes, faces, the surface. NumPy only."""

import numpy as np
from numpy.typing import NDArray

FACES = ((1, 2, 3), (0, 3, 2), (0, 1, 3), (0, 2, 1))
"""Corners of the face opposite each corner, seen from outside counterclockwise, of a tetrahedron of positive volume."""


def signed_volumes(vertices: NDArray, tets: NDArray) -> NDArray[np.float64]:
    """Volume of each tetrahedron, negative where it is inside out: (tets,).

    vertices: (vertices, 3) [m]; tets: (tets, 4) indices of vertices.
    """
    return np.linalg.det(edges(vertices, tets)) / 6.0


def edges(vertices: NDArray, tets: NDArray) -> NDArray[np.float64]:
    """Matrices whose columns run from corner 0 to corners 1, 2, 3 of each tetrahedron: (tets, 3, 3)."""
    corners = np.asarray(vertices, np.float64)[tets]
    return np.swapaxes(corners[:, 1:] - corners[:, :1], 1, 2)


def neighbours(tets: NDArray) -> list[list[int]]:
    """Of each tetrahedron, those that it shares a face with; ascending."""
    found: list[list[int]] = [[] for _ in tets]
    owner: dict[tuple[int, ...], int] = {}
    for index, tet in enumerate(tets):
        for face in FACES:
            key = tuple(sorted(int(tet[corner]) for corner in face))
            if key in owner:
                other = owner.pop(key)
                found[other].append(index)
                found[index].append(other)
            else:
                owner[key] = index
    return [sorted(others) for others in found]


def boundary_triangles(tets: NDArray) -> NDArray[np.int32]:
    """Faces that belong to one tetrahedron only, seen from outside counterclockwise: (triangles, 3)."""
    faces = np.asarray(tets)[:, FACES].reshape(-1, 3)
    _, first, count = np.unique(np.sort(faces, axis=1), axis=0, return_index=True, return_counts=True)
    return faces[np.sort(first[count == 1])].astype(np.int32)
