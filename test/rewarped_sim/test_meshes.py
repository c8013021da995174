import numpy as np
import pytest

from rewarped_sim.engine.kinematics import SHAPE_SIZES
from rewarped_sim.meshes import balls_mesh, joined, lines_mesh, rotation_matrix, shape_mesh, surface_mesh
from rewarped_sim.scene import SceneLines, SceneShape, SceneSurface

UPRIGHT = np.array([0, 0, 0, 1], np.float32)
TILTED = np.array([0.1, -0.5, 0.3, 0.8], np.float32) / np.linalg.norm([0.1, -0.5, 0.3, 0.8])


def shape(kind, size, quaternion=UPRIGHT, position=(0.0, 0.0, 0.0)):
    return SceneShape(
        name="thing",
        kind=kind,
        size=size,
        position=np.array(position, np.float32),
        quaternion=np.asarray(quaternion, np.float32),
    )


def enclosed_volume(mesh):
    """By the divergence theorem; positive only if all triangles are seen counter-clockwise from outside."""
    a, b, c = (mesh.vertices[mesh.triangles[:, k]].astype(float) for k in range(3))
    return np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6


@pytest.mark.parametrize(
    ("kind", "size", "volume"),
    [
        ("sphere", (0.2,), 4 / 3 * np.pi * 0.2**3),
        ("capsule", (0.1, 0.3), 4 / 3 * np.pi * 0.1**3 + np.pi * 0.1**2 * 0.6),
        ("box", (0.1, 0.2, 0.3), 8 * 0.1 * 0.2 * 0.3),
        ("cylinder", (0.1, 0.3), np.pi * 0.1**2 * 0.6),
        ("cone", (0.1, 0.3), np.pi * 0.1**2 * 0.6 / 3),
    ],
)
@pytest.mark.parametrize("quaternion", [UPRIGHT, TILTED])
def test_solids_enclose_their_volume_wherever_they_are(kind, size, volume, quaternion):
    mesh = shape_mesh(shape(kind, size, quaternion, position=(1.0, -2.0, 0.5)))
    assert enclosed_volume(mesh) == pytest.approx(volume, rel=0.02)


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("sphere", (0.2,)),
        ("capsule", (0.1, 0.3)),
        ("box", (0.1, 0.2, 0.3)),
        ("cylinder", (0.1, 0.3)),
        ("cone", (0.1, 0.3)),
    ],
)
def test_normals_agree_with_the_triangles(kind, size):
    mesh = shape_mesh(shape(kind, size, TILTED))
    a, b, c = (mesh.vertices[mesh.triangles[:, k]] for k in range(3))
    flat = np.cross(b - a, c - a)
    area = np.linalg.norm(flat, axis=1, keepdims=True)
    assert area.min() > 0
    flat /= area
    smooth = mesh.normals[mesh.triangles]
    assert np.einsum("ij,ikj->ik", flat, smooth).min() > 0.9
    assert np.linalg.norm(smooth, axis=2) == pytest.approx(1.0, abs=1e-5)


def test_a_capsule_lies_along_its_local_z_axis():
    half = 2**-0.5
    along_y = shape_mesh(shape("capsule", (0.1, 0.3), (half, 0, 0, half)))
    assert np.abs(along_y.vertices).max(axis=0) == pytest.approx([0.1, 0.4, 0.1], abs=1e-3)


def test_a_cone_points_along_its_local_z_axis():
    half = 2**-0.5
    along_y = shape_mesh(shape("cone", (0.1, 0.3), (-half, 0, 0, half)))
    apex = along_y.vertices[along_y.vertices[:, 1] > 0.29]
    base = along_y.vertices[along_y.vertices[:, 1] < -0.29]
    assert apex == pytest.approx(np.tile([0, 0.3, 0], (len(apex), 1)), abs=1e-6)
    assert np.abs(base).max(axis=0) == pytest.approx([0.1, 0.3, 0.1], abs=1e-3)


def test_every_kind_that_collides_can_be_drawn():
    for kind, count in SHAPE_SIZES.items():
        assert len(shape_mesh(shape(kind, (0.1, 0.2, 0.3)[:count])).triangles) > 0


def test_a_quarter_turn_about_z_takes_x_to_y():
    half = 2**-0.5
    turn = rotation_matrix(np.array([0, 0, half, half], np.float32))
    assert turn @ [1, 0, 0] == pytest.approx([0, 1, 0], abs=1e-6)


def test_each_ball_has_its_own_eighty_triangles():
    centers = np.array([[0, 0, 0], [1, 2, 3]], np.float32)
    mesh = balls_mesh(centers, 0.1)
    assert mesh.triangles.shape == (160, 3)
    for ball, center in enumerate(centers):
        corners = mesh.vertices[mesh.triangles[80 * ball : 80 * ball + 80]]
        assert np.linalg.norm(corners - center, axis=-1) == pytest.approx(0.1, abs=1e-6)


def test_a_skin_is_shaded_as_if_it_were_smooth():
    ball = shape_mesh(shape("sphere", (0.5,), position=(1.0, 2.0, 3.0)))
    mesh = surface_mesh(
        SceneSurface(
            name="jelly", vertices=ball.vertices, triangles=ball.triangles.astype(np.int32), color=(1, 0, 0)
        )
    )
    assert np.array_equal(mesh.triangles, ball.triangles)
    assert np.einsum("ij,ij->i", mesh.normals, ball.normals).min() > 0.999
    assert np.linalg.norm(mesh.normals, axis=1) == pytest.approx(1.0, abs=1e-5)


def test_a_line_is_a_tube_around_it():
    rng = np.random.default_rng(0)
    starts, ends = rng.normal(size=(2, 5, 3)).astype(np.float32)
    ends[0] = starts[0] + (0.0, 0.0, 2.0)
    lines = SceneLines(
        name="strings", starts=starts, ends=ends, colors=np.zeros((5, 3), np.float32), radius=0.1
    )
    mesh = lines_mesh(lines, sides=8)
    each = len(mesh.triangles) // 5
    for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
        own = mesh.triangles[each * index : each * (index + 1)]
        corners, normals = mesh.vertices[own], mesh.normals[own]
        axis = (end - start) / np.linalg.norm(end - start)
        along = (corners - start) @ axis
        away = corners - start - along[..., None] * axis
        assert np.linalg.norm(away, axis=-1) == pytest.approx(0.1, abs=1e-5)
        assert (along.min(), along.max()) == pytest.approx((0.0, np.linalg.norm(end - start)), abs=1e-5)
        np.testing.assert_allclose(normals, away / 0.1, atol=1e-4)
        flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        assert np.einsum("ij,ikj->ik", flat, normals).min() > 0.0  # seen counter-clockwise from outside


def test_a_line_without_length_is_drawn_as_nothing():
    at = np.array([[0.1, 0.2, 0.3], [0.0, 0.0, 0.0]], np.float32)
    ends = np.array([[0.1, 0.2, 0.3], [0.0, 0.0, 1.0]], np.float32)
    mesh = lines_mesh(SceneLines(name="strings", starts=at, ends=ends, colors=np.zeros((2, 3)), radius=0.01))
    first = len(mesh.vertices) // 2
    np.testing.assert_allclose(mesh.vertices[:first], np.repeat(at[:1], first, axis=0), atol=1e-7)
    assert np.isfinite(mesh.vertices).all()
    assert np.isfinite(mesh.normals).all()


def test_joined_meshes_keep_their_own_corners():
    parts = [
        shape_mesh(shape("box", (0.1, 0.2, 0.3))),
        shape_mesh(shape("sphere", (0.2,), position=(1, 0, 0))),
    ]
    whole = joined(parts)
    volume = 8 * 0.1 * 0.2 * 0.3 + 4 / 3 * np.pi * 0.2**3
    assert enclosed_volume(whole) == pytest.approx(volume, rel=0.02)
    last = parts[1]
    np.testing.assert_array_equal(
        whole.normals[whole.triangles[-len(last.triangles) :]], last.normals[last.triangles]
    )


def test_a_plane_faces_its_local_z():
    mesh = shape_mesh(shape("plane", (), position=(0, 0, 0.3)))
    assert mesh.vertices[:, 2] == pytest.approx(0.3)
    a, b, c = (mesh.vertices[mesh.triangles[0, k]] for k in range(3))
    assert np.cross(b - a, c - a)[2] > 0


def test_an_unknown_kind_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"unknown kind 'torus'; known: .*'capsule'"):
        shape_mesh(shape("torus", (1.0,)))
