"""Signed distances against brute force, normals and their adjoint against differences."""

from itertools import pairwise

import numpy as np
import pytest
from shape_cases import SIZES, distances, normals_adj

from rewarped_sim.engine.kinematics import Shape


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


def profile(kind):
    """Corners (rho, z) of half of a cross-section, from the axis below to the axis above."""
    radius, half, _ = SIZES[kind]
    upper = [(radius, half), (0.0, half)] if kind == "cylinder" else [(0.0, half)]
    return np.array([(0.0, -half), (radius, -half), *upper])


@pytest.mark.parametrize("kind", ["cylinder", "cone"])
def test_distance_of_a_solid_of_revolution_is_that_to_its_profile(kind):
    q = np.random.default_rng(5).uniform(-0.6, 0.6, (500, 3))
    rho, z = np.hypot(q[:, 0], q[:, 1]), q[:, 2]
    corners = profile(kind)
    t = np.linspace(0.0, 1.0, 20001)[:, None]
    surface = np.concatenate([a + t * (b - a) for a, b in pairwise(corners)])
    nearest = np.array([np.hypot(*(surface - point).T).min() for point in np.stack([rho, z], axis=1)])
    radius, half, _ = SIZES[kind]
    width = radius if kind == "cylinder" else radius * (half - z) / (2 * half)
    inside = (np.abs(z) < half) & (rho < width)
    assert 20 < inside.sum() < 100
    np.testing.assert_allclose(distances(kind, q)[:, 0], np.where(inside, -nearest, nearest), atol=1e-6)


@pytest.mark.parametrize("kind", ["cylinder", "cone"])
def test_ends_of_a_solid_of_revolution_face_along_its_axis(kind):
    _, half, _ = SIZES[kind]
    on_axis = [[0.0, 0.0, half + 0.1], [0.0, 0.0, -half - 0.1], [0.0, 0.0, -half + 0.01]]
    expected = [[0.1, 0.0, 0.0, 1.0], [0.1, 0.0, 0.0, -1.0], [-0.01, 0.0, 0.0, -1.0]]
    np.testing.assert_allclose(distances(kind, np.array(on_axis)), expected, atol=1e-12)


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


@pytest.mark.parametrize("kind", list(SIZES))
def test_adjoint_of_the_normal_is_its_derivative(kind):
    rng = np.random.default_rng(6)
    q = rng.uniform(-0.8, 0.8, (300, 3))
    q[0] = (0.0, 0.0, 0.7)  # above everything, exactly on the axis: an apex bends both ways there
    n_bar = rng.normal(size=(300, 3))
    expected, coarse = (slope_along(kind, q, n_bar, eps) for eps in (1e-4, 2e-4))
    smooth = np.abs(expected - coarse).max(axis=1) < 1e-6
    assert smooth[0] and smooth.mean() > 0.97
    np.testing.assert_allclose(normals_adj(kind, q, n_bar)[smooth], expected[smooth], atol=1e-7)


def slope_along(kind, q, n_bar, eps):
    """Derivative of n . n_bar with respect to q, by fourth-order central differences."""
    steps = ((1, 8), (-1, -8), (2, -1), (-2, 1))
    sums = [
        sum(w * (distances(kind, q + k * eps * e)[:, 1:] * n_bar).sum(1) for k, w in steps) for e in np.eye(3)
    ]
    return np.stack(sums, axis=1) / (12 * eps)


@pytest.mark.parametrize("size", [(0.1, 0.0), (-0.1, 0.2), (0.1, float("nan")), (float("inf"), 0.2)])
@pytest.mark.parametrize("kind", ["capsule", "cylinder", "cone"])
def test_a_shape_without_extent_is_refused(kind, size):
    with pytest.raises(ValueError, match="shape 'peg': sizes must be > 0 and finite, got"):
        Shape(name="peg", kind=kind, size=size)


@pytest.mark.parametrize("kind", ["sphere", "capsule", "cone"])
def test_where_many_surface_points_are_equally_near_no_derivative_is_made_up(kind):
    center = np.zeros((1, 3))
    np.testing.assert_array_equal(normals_adj(kind, center, np.ones((1, 3))), 0.0)
    assert np.linalg.norm(distances(kind, center)[0, 1:]) < 1.0  # the mean of opposite directions
