"""Signed distances against brute force, normals against differences of the distance."""

import numpy as np
import pytest
from shape_cases import SIZES, distances


def surface_points(kind, rng, count):
    """Random points of the shape's surface, for brute-force distances."""
    direction = rng.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    r, h, _ = SIZES[kind]
    if kind == "sphere":
        return r * direction
    if kind == "capsule":
        return r * direction + np.array([0, 0, 1]) * rng.uniform(-h, h, (count, 1)) * (
            rng.random((count, 1)) < 0.7
        )
    points = rng.uniform(-1, 1, (count, 3))
    face = rng.integers(0, 3, count)
    points[np.arange(count), face] = np.sign(points[np.arange(count), face])
    return points * SIZES["box"]


@pytest.mark.parametrize("kind", ["sphere", "box"])
def test_distance_is_the_distance_to_the_nearest_surface_point(kind):
    rng = np.random.default_rng(0)
    q = rng.uniform(-0.8, 0.8, (50, 3))
    surface = surface_points(kind, rng, 200_000)
    expected = np.array([np.linalg.norm(surface - point, axis=1).min() for point in q])
    np.testing.assert_allclose(np.abs(distances(kind, q)[:, 0]), expected, atol=0.012)


def test_capsule_distance_is_that_to_its_segment():
    rng = np.random.default_rng(1)
    q = rng.uniform(-0.9, 0.9, (200, 3))
    radius, half, _ = SIZES["capsule"]
    along = np.linspace(-half, half, 20001)
    to_segment = np.array([np.hypot(np.hypot(p[0], p[1]), p[2] - along).min() for p in q])
    np.testing.assert_allclose(distances("capsule", q)[:, 0], to_segment - radius, atol=1e-7)


@pytest.mark.parametrize("kind", list(SIZES))
def test_normal_is_the_gradient_of_the_distance(kind):
    rng = np.random.default_rng(2)
    q = rng.uniform(-0.8, 0.8, (200, 3))
    eps = 1e-6
    gradient = np.stack(
        [(distances(kind, q + eps * e) - distances(kind, q - eps * e))[:, 0] / (2 * eps) for e in np.eye(3)],
        axis=1,
    )
    np.testing.assert_allclose(distances(kind, q)[:, 1:], gradient, atol=1e-8)
