"""Triangles for what a `Scene` holds: rigid shapes, skins of soft bodies, particles drawn as small balls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rewarped_sim.scene import SceneLines, SceneShape, SceneSurface

PLANE_HALF_SIZE_M = 200.0
"""A plane is drawn as a square this far in every direction: further than any robot runs in an episode."""


@dataclass(frozen=True)
class Mesh:
    """Triangles with a normal per corner."""

    vertices: NDArray[np.float32]
    """(V, 3) [m]."""
    triangles: NDArray[np.uint32]
    """(T, 3) indices into `vertices`, counter-clockwise seen from outside."""
    normals: NDArray[np.float32]
    """(V, 3) outward unit normals."""


def shape_mesh(shape: SceneShape) -> Mesh:
    """Triangulate one rigid shape in the frame of its scene; raises ValueError for an unknown kind."""
    mesh = local_mesh(shape)
    rotation = rotation_matrix(shape.quaternion)
    return Mesh(
        vertices=mesh.vertices @ rotation.T + np.asarray(shape.position, np.float32),
        triangles=mesh.triangles,
        normals=mesh.normals @ rotation.T,
    )


def local_mesh(shape: SceneShape) -> Mesh:
    """Triangulate one rigid shape in its own frame; raises ValueError for an unknown kind."""
    makers = {
        "sphere": _sphere,
        "capsule": _capsule,
        "box": _box,
        "plane": _plane,
        "cylinder": _cylinder,
        "cone": _cone,
    }
    if shape.kind not in makers:
        raise ValueError(f"shape {shape.name!r}: unknown kind {shape.kind!r}; known: {sorted(makers)}")
    return makers[shape.kind](*shape.size)


def balls_mesh(centers: NDArray[np.float32], radius: float) -> Mesh:
    """One ball of 80 triangles per centre, (N, 3) [m]; triangles 80 i to 80 i + 79 belong to ball i."""
    directions, faces = _icosphere(1)
    count, corners = len(centers), len(directions)
    first = corners * np.arange(count, dtype=np.uint32)
    return Mesh(
        vertices=(centers[:, None] + radius * directions).reshape(-1, 3).astype(np.float32),
        triangles=(faces + first[:, None, None]).reshape(-1, 3),
        normals=np.tile(directions, (count, 1)),
    )


def surface_mesh(surface: SceneSurface) -> Mesh:
    """A soft body's skin, smoothly shaded: a corner's normal is the mean of its triangles', by their areas."""
    vertices, triangles = surface.vertices, surface.triangles
    a, b, c = (vertices[triangles[:, corner]] for corner in range(3))
    facing = np.cross(b - a, c - a)
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, triangles[:, corner], facing)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    return Mesh(vertices=vertices, triangles=triangles.astype(np.uint32), normals=normals)


def lines_mesh(lines: SceneLines, *, sides: int = 8) -> Mesh:
    """One open tube of 2 `sides` triangles per line, in order."""
    along = lines.ends - lines.starts
    along = along / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-12)
    # Any vector that is not parallel to the line serves to find two across it.
    other = np.eye(3, dtype=np.float32)[np.abs(along).argmin(axis=1)]
    u = np.cross(along, other)
    u /= np.maximum(np.linalg.norm(u, axis=1, keepdims=True), 1e-12)
    v = np.cross(along, u)
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False, dtype=np.float32)
    around = u[:, None] * np.cos(angle)[:, None] + v[:, None] * np.sin(angle)[:, None]
    normals = np.repeat(around[:, None], 2, axis=1)
    vertices = np.stack([lines.starts, lines.ends], axis=1)[:, :, None] + lines.radius * normals
    near, following = np.arange(sides), (np.arange(sides) + 1) % sides
    tube = np.concatenate(
        [
            np.stack([near, following, near + sides], axis=1),
            np.stack([following, following + sides, near + sides], axis=1),
        ]
    )
    first = 2 * sides * np.arange(len(along))
    return Mesh(
        vertices=vertices.reshape(-1, 3).astype(np.float32),
        triangles=(tube + first[:, None, None]).reshape(-1, 3).astype(np.uint32),
        normals=normals.reshape(-1, 3).astype(np.float32),
    )


def joined(meshes: Sequence[Mesh]) -> Mesh:
    """All triangles of some meshes, in order."""
    first = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes[:-1])]).astype(np.uint32)
    return Mesh(
        vertices=np.concatenate([mesh.vertices for mesh in meshes]),
        triangles=np.concatenate([mesh.triangles + start for mesh, start in zip(meshes, first, strict=True)]),
        normals=np.concatenate([mesh.normals for mesh in meshes]),
    )


def rotation_matrix(quaternion: NDArray[np.float32]) -> NDArray[np.float32]:
    """(3, 3) matrix of a unit quaternion x y z w: columns are the rotated axes."""
    x, y, z, w = (float(value) for value in quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ],
        np.float32,
    )


def _sphere(radius: float) -> Mesh:
    directions, faces = _icosphere(3)
    return Mesh(vertices=radius * directions, triangles=faces, normals=directions)


def _capsule(radius: float, half_length: float, *, rings: int = 12) -> Mesh:
    # Two hemispheres of `rings` circles each; the band between their equators is the cylinder.
    polar = np.concatenate([np.linspace(0, np.pi / 2, rings), np.linspace(np.pi / 2, np.pi, rings)])
    normals = np.stack([np.sin(polar), np.cos(polar)], axis=1)
    points = radius * normals
    points[:rings, 1] += half_length
    points[rings:, 1] -= half_length
    return _revolved(points, normals)


def _cylinder(radius: float, half_length: float) -> Mesh:
    r, h = radius, half_length
    points = [(0, h), (r, h), (r, h), (r, -h), (r, -h), (0, -h)]  # a rim is there twice: its normals differ
    return _revolved(points, [(0, 1), (0, 1), (1, 0), (1, 0), (0, -1), (0, -1)])


def _cone(radius: float, half_length: float) -> Mesh:
    r, h = radius, half_length
    side = np.array([2 * h, r]) / np.hypot(2 * h, r)
    return _revolved([(0, h), (r, -h), (r, -h), (0, -h)], [side, side, (0, -1), (0, -1)])


def _revolved(points: ArrayLike, normals: ArrayLike, *, slices: int = 48) -> Mesh:
    """Turn a profile about z: points and their normals as (rho, z), (P, 2), from the top to the bottom."""
    angle = np.linspace(0, 2 * np.pi, slices, endpoint=False)

    def around(profile: ArrayLike) -> NDArray[np.float32]:
        rho, z = np.asarray(profile, float).T
        turned = [
            np.outer(rho, np.cos(angle)),
            np.outer(rho, np.sin(angle)),
            np.repeat(z[:, None], slices, 1),
        ]
        return np.stack(turned, axis=-1).reshape(-1, 3).astype(np.float32)

    vertices = around(points)
    ring, place = np.meshgrid(np.arange(len(vertices) // slices - 1), np.arange(slices), indexing="ij")
    a, b = ring * slices + place, ring * slices + (place + 1) % slices
    c, d = a + slices, b + slices
    triangles = np.stack([np.stack([a, c, b], -1), np.stack([b, c, d], -1)], axis=2).reshape(-1, 3)
    u, v, w = (vertices[triangles[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(v - u, w - u), axis=1)
    has_area = area > 1e-9 * area.max()  # not so at a pole and between equal rings
    return Mesh(vertices=vertices, triangles=triangles[has_area].astype(np.uint32), normals=around(normals))


def _box(half_x: float, half_y: float, half_z: float) -> Mesh:
    vertices, normals, triangles = [], [], []
    half = np.array([half_x, half_y, half_z], np.float32)
    for axis in range(3):
        for sign in (-1.0, 1.0):
            normal = np.zeros(3, np.float32)
            normal[axis] = sign
            u = np.roll(np.eye(3, dtype=np.float32)[0], axis + 1)
            v = np.cross(normal, u)
            first = len(vertices) * 4
            vertices.append(
                [(normal + s * u + t * v) * half for s, t in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
            )
            normals.append([normal] * 4)
            triangles += [(first, first + 1, first + 2), (first, first + 2, first + 3)]
    return Mesh(
        vertices=np.array(vertices, np.float32).reshape(-1, 3),
        triangles=np.array(triangles, np.uint32),
        normals=np.array(normals, np.float32).reshape(-1, 3),
    )


def _plane() -> Mesh:
    far = PLANE_HALF_SIZE_M
    return Mesh(
        vertices=np.array([[-far, -far, 0], [far, -far, 0], [far, far, 0], [-far, far, 0]], np.float32),
        triangles=np.array([[0, 1, 2], [0, 2, 3]], np.uint32),
        normals=np.tile(np.array([0, 0, 1], np.float32), (4, 1)),
    )


def _icosphere(subdivisions: int) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    """Build a unit sphere from an icosahedron, each triangle split into four `subdivisions` times."""
    g = (1 + 5**0.5) / 2
    points = [
        *((-1, g, 0), (1, g, 0), (-1, -g, 0), (1, -g, 0), (0, -1, g), (0, 1, g)),
        *((0, -1, -g), (0, 1, -g), (g, 0, -1), (g, 0, 1), (-g, 0, -1), (-g, 0, 1)),
    ]
    faces = [
        *((0, 11, 5), (0, 5, 1), (0, 1, 7), (0, 7, 10), (0, 10, 11), (1, 5, 9), (5, 11, 4), (11, 10, 2)),
        *((10, 7, 6), (7, 1, 8), (3, 9, 4), (3, 4, 2), (3, 2, 6), (3, 6, 8), (3, 8, 9), (4, 9, 5)),
        *((2, 4, 11), (6, 2, 10), (8, 6, 7), (9, 8, 1)),
    ]
    corners = [np.array(point, float) / np.linalg.norm(point) for point in points]
    for _ in range(subdivisions):
        middles: dict[tuple[int, int], int] = {}

        def middle(i: int, j: int, known: dict[tuple[int, int], int] = middles) -> int:
            key = (min(i, j), max(i, j))
            if key not in known:
                point = corners[i] + corners[j]
                known[key] = len(corners)
                corners.append(point / np.linalg.norm(point))
            return known[key]

        split = []
        for a, b, c in faces:
            ab, bc, ca = middle(a, b), middle(b, c), middle(c, a)
            split += [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
        faces = split
    return np.array(corners, np.float32), np.array(faces, np.uint32)
