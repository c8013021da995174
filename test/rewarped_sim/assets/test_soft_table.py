"""The soft table against the published figures of its mesh."""

import numpy as np
import pytest

from rewarped_sim.assets.soft_table import CELL_M, soft_table
from rewarped_sim.engine.fem.mesh import boundary_triangles, signed_volumes


def test_numbers_are_the_published_ones():
    table = soft_table()
    assert table.vertices.shape == (204, 3)
    assert table.tets.shape == (444, 4)
    assert boundary_triangles(table.tets).shape == (404, 3)


def test_volumes_are_a_sixth_or_a_third_of_a_cell():
    table = soft_table()
    sixths = 6.0 * signed_volumes(table.vertices, table.tets) / CELL_M**3
    np.testing.assert_allclose(sixths, np.round(sixths), atol=1e-9)
    assert (np.round(sixths) == 1).sum() == 228
    assert (np.round(sixths) == 2).sum() == 216
    assert sixths.sum() / 6.0 == pytest.approx(110)


def test_place_and_centre_are_the_published_ones_with_z_up():
    vertices = soft_table().vertices
    # Published (x, y, z) with y up is (x, -z, y) here.
    np.testing.assert_allclose(vertices.min(axis=0), [-1.1602, -1.2596, 0.0073], atol=1e-4)
    np.testing.assert_allclose(vertices.max(axis=0), [1.3208, 1.2214, 1.7795], atol=1e-4)
    np.testing.assert_allclose(vertices.mean(axis=0), [0.0803, -0.0191, 1.3748 - 0.2], atol=1e-4)


def test_tetrahedra_of_an_actuator_share_a_face():
    pairs = soft_table().tets.reshape(222, 2, 4)
    assert all(len(np.intersect1d(first, second)) == 3 for first, second in pairs)


def test_the_body_is_in_one_piece_and_its_surface_is_closed():
    table = soft_table()
    triangles = boundary_triangles(table.tets)
    a, b, c = (table.vertices[triangles[:, k]] for k in range(3))
    enclosed = np.einsum("ti,ti->t", a, np.cross(b, c)).sum() / 6.0
    assert enclosed == pytest.approx(110 * CELL_M**3)
    edges = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    _, count = np.unique(edges, axis=0, return_counts=True)
    assert (count == 2).all()


def test_legs_are_alike_on_the_left_and_on_the_right():
    table = soft_table()
    middle = (table.vertices[:, 1].min() + table.vertices[:, 1].max()) / 2.0
    mirrored = table.vertices * [1.0, -1.0, 1.0] + [0.0, 2.0 * middle, 0.0]
    centres = {
        tuple(np.round(points.mean(axis=0), 6))
        for points in table.vertices[table.tets]
        if points[:, 2].max() < 1.1
    }
    others = {
        tuple(np.round(points.mean(axis=0), 6)) for points in mirrored[table.tets] if points[:, 2].max() < 1.1
    }
    assert len(centres) == 72
    assert centres == others
