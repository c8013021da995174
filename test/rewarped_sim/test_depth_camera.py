"""What a depth camera sees, against scenes solved by hand; what hides what, against rays walked in NumPy."""

import math

import numpy as np
import pytest
import torch

from rewarped_sim.cloud_chain import CloudChain
from rewarped_sim.depth_camera import CameraConfig, DepthCamera
from rewarped_sim.engine.forward_kinematics import shape_poses
from rewarped_sim.engine.kinematics import Joint, Shape, Tool, rotation_matrix
from rewarped_sim.engine.mpm.bodies import BODY_SIZE, Body
from rewarped_sim.unit_cube import CLOUD

CPU = torch.device("cpu")
RADIUS = 0.01
NOISELESS = {"depth_noise": 0.0, "lateral_noise_rad": 0.0, "dropout": 0.0}
SEES_THROUGH = {"splat": 0.0, "tolerance": 1e6}
"""Particles do not hide one another."""
FROM_ABOVE = {"position": (0.0, 0.0, 2.0), "look_at": (0.0, 0.0, 0.0)}
TURN = (math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5))


def look(points, *, tool=None, joint_q=(), bodies=(), body_state=None, key=1, radius=RADIUS, **settings):
    """What a camera makes of points (particles, 3), in one env: measured points and which of them are seen."""
    config = CameraConfig(**(NOISELESS | settings))
    camera = DepthCamera(config, particle_radius=radius, tool=tool or Tool(), bodies=bodies, device=CPU)
    points = torch.as_tensor(np.asarray(points), dtype=torch.float32)[None]
    view = camera.look(points, torch.tensor([[key, 0]]), torch.tensor([joint_q]), body_state)
    return view.points[0].numpy(), view.seen[0].numpy()


def test_of_two_particles_in_line_the_nearer_is_seen_and_the_other_only_beside_its_disc():
    camera = {
        "position": (0.0, 0.0, 1.0),
        "look_at": (0.0, 1.0, 1.0),
        "width": 800,
        "height": 600,
        "splat": 3.0,
    }
    pixel = 2.5 / CameraConfig(**camera).focal  # at the depth of the farther one
    covered = 2.0 * 3.0 * RADIUS  # the nearer one's disc, at twice its distance
    for aside in np.linspace(0.0, 0.1, 41):
        if abs(aside - covered) > pixel:
            _, seen = look([[0.0, 1.25, 1.0], [aside, 2.5, 1.0]], **camera)
            assert seen.tolist() == [True, aside > covered], aside


@pytest.mark.parametrize(("behind", "visible"), [(0.0, True), (1.4, True), (1.6, False), (50.0, False)])
def test_within_the_tolerance_behind_another_a_particle_is_seen_too(behind, visible):
    _, seen = look([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0 - behind * RADIUS]], **FROM_ABOVE, tolerance=1.5)
    assert seen.tolist() == [True, visible]


def test_of_a_slab_seen_from_above_the_top_layer_shows_as_far_as_the_picture_goes():
    x, y = np.meshgrid(np.arange(-60, 61) * 0.02, np.arange(-60, 61) * 0.02)
    top = np.stack([x.ravel(), y.ravel(), np.full(x.size, 0.5)], axis=1)
    _, seen = look(
        np.concatenate([top - (0.0, 0.0, 0.1), top]), **FROM_ABOVE, fov_deg=60.0, width=160, height=120
    )
    below, above = seen[: len(top)], seen[len(top) :]
    half_x = 1.5 * math.tan(math.radians(30.0))
    inside = (np.abs(top[:, 0]) < half_x) & (np.abs(top[:, 1]) < 0.75 * half_x)
    np.testing.assert_array_equal(above, inside)
    assert 0.2 < inside.mean() < 0.8
    covered = (np.abs(top[:, 0]) < half_x - 0.1) & (np.abs(top[:, 1]) < 0.75 * half_x - 0.1)
    assert not below[covered].any(), "hidden by the layer above"


def test_depth_is_measured_along_the_axis_and_within_the_range_only():
    depth = np.array([0.39, 0.41, 1.0, 1.49, 1.51, -1.0])
    aside = 0.3 * np.abs(depth)  # so that distances along the ray would say otherwise
    points = np.stack([aside, np.zeros(6), 2.0 - depth], axis=1)
    _, seen = look(points, **FROM_ABOVE, **SEES_THROUGH, near_m=0.4, far_m=1.5, fov_deg=60.0)
    assert seen.tolist() == [False, True, True, True, False, False]


def test_axes_are_those_of_an_optical_frame():
    right, down, forward = CameraConfig(position=(0.0, -1.0, 1.0), look_at=(0.0, 0.0, 1.0)).axes
    np.testing.assert_allclose(forward, (0.0, 1.0, 0.0), atol=1e-12)
    np.testing.assert_allclose(right, (1.0, 0.0, 0.0), atol=1e-12)
    np.testing.assert_allclose(down, (0.0, 0.0, -1.0), atol=1e-12)
    for camera in (CameraConfig(), CameraConfig(**FROM_ABOVE)):
        np.testing.assert_allclose(camera.axes @ camera.axes.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(camera.axes) == pytest.approx(1.0)


# ---- rigid shapes ----------------------------------------------------------------------------------------------------


def inside(kind, size, q):
    """Whether points q (n, 3) of the shape's frame are inside of it."""
    x, y, z = q.T
    rho = np.hypot(x, y)
    if kind == "sphere":
        return np.linalg.norm(q, axis=1) < size[0]
    if kind == "capsule":
        return np.hypot(rho, z - np.clip(z, -size[1], size[1])) < size[0]
    if kind == "box":
        return (np.abs(q) < size).all(axis=1)
    if kind == "plane":
        return z < size
    widest = size[0] * ((size[1] - z) / (2.0 * size[1]) if kind == "cone" else 1.0)
    return (rho < widest) & (np.abs(z) < size[1])


def crosses(eye, point, end, kind, size, position, quaternion):
    """Whether the way from the eye to `end` before the point crosses a shape, by walking it."""
    length = np.linalg.norm(point - eye)
    way = eye + np.linspace(0.0, 1.0 - end / length, 1500)[:, None] * (point - eye)
    return inside(kind, size, (way - position) @ rotation_matrix(quaternion)).any()


SHAPES = {
    "sphere": (0.1,),
    "capsule": (0.06, 0.15),
    "box": (0.08, 0.12, 0.05),
    "cylinder": (0.09, 0.12),
    "cone": (0.12, 0.12),
    "plane": (),
}


@pytest.mark.parametrize(
    ("carried_by", "kind"),
    [*(("joints", kind) for kind in SHAPES), *(("free body", kind) for kind in SHAPES if kind != "plane")],
)
def test_a_shape_hides_exactly_what_the_line_of_sight_crosses_it_for(kind, carried_by):
    rng = np.random.default_rng(3)
    points = rng.uniform((0.0, 0.0, 0.0), (1.0, 1.0, 0.6), (400, 3))
    local = {"position": (0.05, -0.02, 0.03), "quaternion": TURN if kind != "plane" else (0.0, 0.0, 0.0, 1.0)}
    shape = Shape(name="thing", kind=kind, size=SHAPES[kind], body=1, **local)
    joint_q = (0.1, 0.4)
    tool = Tool(
        joints=(
            Joint(name="slide", kind="prismatic", axis=(1.0, 0.0, 0.0), position=(0.35, 0.4, 0.4)),
            Joint(name="turn", kind="revolute", axis=(0.0, 1.0, 0.0), parent=0),
        ),
        shapes=(shape,),
    )
    ((position, quaternion),) = shape_poses(tool, joint_q)
    bodies, body_state = (), None
    if carried_by == "free body":
        alone = Tool(joints=tool.joints, shapes=(Shape(name="frame", kind="sphere", size=(1.0,), body=1),))
        ((body_position, body_quaternion),) = shape_poses(alone, joint_q)
        tool = Tool(joints=tool.joints)
        bodies = (Body(name="thing", mass=1.0, inertia=(1.0, 1.0, 1.0), shapes=(shape,)),)
        body_state = torch.zeros(1, 1, BODY_SIZE)
        body_state[0, 0, :7] = torch.tensor([*body_position, *body_quaternion])
    eye = np.array([0.4, -0.3, 1.3])
    camera = {"position": tuple(eye), "look_at": (0.5, 0.5, 0.2), "fov_deg": 90.0}
    _, seen = look(
        points, tool=tool, joint_q=joint_q, bodies=bodies, body_state=body_state, **camera, **SEES_THROUGH
    )
    _, alone = look(points, joint_q=(), **camera, **SEES_THROUGH)
    margin = 2e-3  # what a slightly larger and a slightly smaller shape agree on
    larger, smaller = (
        np.array([
            crosses(eye, point, RADIUS, kind, tuple(s + m for s in SHAPES[kind]) or m, position, quaternion)
            for point in points
        ])
        for m in (margin, -margin)
    )  # fmt: skip
    sure = (larger == smaller) & alone
    np.testing.assert_array_equal(seen[sure], ~larger[sure])
    assert sure.mean() > 0.9 and 0.02 < larger.mean() < 0.9, "the scene tells something"


def test_a_particle_that_touches_a_shape_on_the_cameras_side_is_seen_and_one_behind_is_not():
    tool = Tool(shapes=(Shape(name="ball", kind="sphere", size=(0.1,), position=(0.0, 0.0, 0.5)),))
    points = [[0.0, 0.0, 0.6], [0.0, 0.0, 0.4]]
    _, seen = look(points, tool=tool, **FROM_ABOVE, **SEES_THROUGH)
    assert seen.tolist() == [True, False]


# ---- noise -----------------------------------------------------------------------------------------------------------

NOISY = {"depth_noise": 0.01, "lateral_noise_rad": 0.003, "dropout": 0.25}
MANY = 40_000


@pytest.mark.parametrize("depth", [0.5, 1.0, 2.0])
def test_noise_grows_with_the_square_of_the_depth_and_across_with_the_depth(depth):
    points = np.zeros((MANY, 3))
    points[:, 2] = 2.0 - depth
    measured, seen = look(points, **FROM_ABOVE, **SEES_THROUGH, **NOISY)
    assert seen.mean() == pytest.approx(0.75, abs=0.01)
    error = measured[seen] - points[seen]
    count = seen.sum()
    expected = np.array([0.003 * depth, 0.003 * depth, 0.01 * depth**2])
    np.testing.assert_allclose(error.std(axis=0), expected, rtol=4.0 / math.sqrt(count))
    assert (np.abs(error.mean(axis=0)) < 4.0 * expected / math.sqrt(count)).all(), "no bias"
    correlation = np.corrcoef(error.T) - np.eye(3)
    assert np.abs(correlation).max() < 5.0 / math.sqrt(count)


def test_depth_noise_moves_points_along_their_line_of_sight():
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (500, 3))
    measured, seen = look(points, **FROM_ABOVE, **SEES_THROUGH, depth_noise=0.01)
    eye = np.array(FROM_ABOVE["position"])
    before, after = (points - eye)[seen], (measured - eye)[seen]
    angle = np.linalg.norm(np.cross(before, after), axis=1) / np.linalg.norm(before, axis=1) ** 2
    assert angle.max() < 1e-6
    assert np.abs(np.linalg.norm(after, axis=1) - np.linalg.norm(before, axis=1)).mean() > 1e-3


def test_noise_depends_on_key_frame_and_particle_and_on_nothing_else():
    config = CameraConfig(**FROM_ABOVE, **SEES_THROUGH)
    camera = DepthCamera(config, particle_radius=RADIUS, tool=Tool(), device=CPU)
    points = torch.zeros(5, 200, 3)
    frame = torch.tensor([[7, 0], [7, 0], [7, 1], [8, 0], [0, 7]])
    noise = camera.look(points, frame, torch.zeros(5, 0)).points
    again = camera.look(points[:1], frame[1:2], torch.zeros(1, 0)).points
    assert torch.equal(noise[0], noise[1]) and torch.equal(noise[:1], again)
    for a in range(1, 5):
        for b in range(a + 1, 5):
            assert (noise[a] == noise[b]).all(dim=1).float().mean() < 0.1, (a, b)  # both may be dropped
    assert len(noise[0].unique(dim=0)) > 150


def test_frames_of_different_draws_differ_and_advance():
    camera = DepthCamera(CameraConfig(), particle_radius=RADIUS, tool=Tool(), device=CPU)
    frame = camera.start(torch.tensor([[0.0], [0.25], [1.0 - 2.0**-24]]))
    assert frame.tolist() == [[0, 0], [2**22, 0], [2**24 - 1, 0]]
    assert camera.advance(camera.advance(frame)).tolist() == [[0, 2], [2**22, 2], [2**24 - 1, 2]]


# ---- gradient --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("voxel_m", [0.0, 0.15])
def test_the_gradient_equals_central_differences_where_the_selection_stays(voxel_m):
    def camera(**noise):
        config = CameraConfig(**(NOISELESS | noise))
        return DepthCamera(config, particle_radius=0.03, tool=Tool(), device=CPU)

    spec = {"frame": "world", "num_points": 20, "crop_min": (0.1, 0.1, 0.05), "crop_max": (0.9, 0.9, 0.9)}
    chain = CloudChain(type(CLOUD)(**spec, voxel_m=voxel_m), 120, CPU)
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(2, 120, 3, generator=generator, dtype=torch.float64)
    weights = torch.randn(2, 20, 3, generator=generator, dtype=torch.float64)
    frame, joints = torch.tensor([[3, 0], [4, 0]]), torch.zeros(2, 0)

    def loss(points, **noise):
        return (weights * chain(*camera(**noise).look(points, frame, joints)) ** 2).sum()

    (gradient,) = torch.autograd.grad(loss(points.requires_grad_()), points)
    points = points.detach()
    assert (gradient != 0).any(dim=2).sum() >= 10 and (gradient == 0).all(dim=2).any(), "only what is seen"
    for _ in range(6):
        step = torch.randn(points.shape, generator=generator, dtype=torch.float64)
        eps = 1e-7
        difference = (loss(points + eps * step) - loss(points - eps * step)) / (2.0 * eps)
        assert (gradient * step).sum().item() == pytest.approx(difference.item(), rel=1e-6)


def test_noise_is_a_constant_to_the_gradient():
    camera = DepthCamera(CameraConfig(), particle_radius=RADIUS, tool=Tool(), device=CPU)
    points = torch.rand(1, 50, 3, requires_grad=True)
    view = camera.look(points, torch.tensor([[1, 0]]), torch.zeros(1, 0))
    weights = torch.randn(1, 50, 3)
    (gradient,) = torch.autograd.grad((weights * view.points).sum(), points)
    assert torch.equal(gradient, weights)


# ---- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"position": (0.0, 0.0, 1.0), "look_at": (0.0, 0.0, 1.0)}, "position and look_at must differ"),
        ({"fov_deg": 180.0}, r"fov_deg must be in \(0, 180\), got 180"),
        ({"near_m": 2.0, "far_m": 1.0}, "near_m must be >= 0 and below far_m = 1"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1"),
        ({"height": 0}, "height must be >= 1, got 0"),
        ({"depth_noise": -0.1}, "depth_noise must be >= 0 and finite, got -0.1"),
        ({"splat": math.inf}, "splat must be >= 0 and finite, got inf"),
    ],
)
def test_a_camera_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        CameraConfig(**settings)
