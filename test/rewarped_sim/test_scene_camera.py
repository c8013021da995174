"""What a camera sees of a scene, against closed forms and against the scene itself."""

import math

import numpy as np
import pytest

import rewarped_sim
from rewarped_sim.engine.kinematics import rotation_matrix
from rewarped_sim.scene import Scene, SceneShape, SceneSurface
from rewarped_sim.scene_camera import SceneCamera
from rewarped_sim.sensor_model import SensorConfig, deproject, project

LEVEL = {"position": (0.0, 0.0, 1.0), "look_at": (1.0, 0.0, 1.0), "max_range_m": 10.0}
"""Looks along x; x right in the picture is -y, y down is -z."""
DOWN = {"position": (0.0, 0.0, 2.0), "look_at": (0.0, 0.0, 0.0)}
MARCH_M = 2e-4
"""A marched ray ends this near to a surface."""


def shape(kind, size, position, quaternion=(0.0, 0.0, 0.0, 1.0), **more):
    return SceneShape(
        name=more.pop("name", kind),
        kind=kind,
        size=size,
        position=np.array(position, np.float32),
        quaternion=np.array(quaternion, np.float32),
        **more,
    )


def scene(*shapes, particles=(), radius=0.01, surfaces=()):
    return Scene(
        frame="world",
        particles=np.array(particles, np.float32).reshape(-1, 3),
        particle_color=(1.0, 1.0, 1.0),
        particle_radius=radius,
        shapes=shapes,
        bounds_min=(0.0, 0.0, 0.0),
        bounds_max=(1.0, 1.0, 1.0),
        surfaces=surfaces,
    )


def see(what, **settings):
    config = SensorConfig(**settings)
    return SceneCamera(config).see(what), config


def rays(config):
    """Directions of the pixels' rays in the world, of depth 1: (height, width, 3)."""
    ones = np.ones((config.height, config.width), np.float32)
    return deproject(ones, config).astype(np.float64) @ config.axes


def sphere_depth(config, centre, radius):
    """Depth of a sphere at every pixel, by the quadratic formula; infinite beside it."""
    d, away = rays(config), np.subtract(centre, config.position)
    a, b = (d**2).sum(axis=-1), d @ away
    root = b**2 - a * (away @ away - radius**2)
    return np.where(root >= 0.0, (b - np.sqrt(np.maximum(root, 0.0))) / a, np.inf)


def surely(depth, near):
    """Pixels whose neighbours agree on whether there is something: rims are left out."""
    there = np.isfinite(depth)
    same = np.ones_like(there)
    for axis in (0, 1):
        for step in (-near, near):
            same &= np.roll(there, step, axis) == there
    return same


@pytest.mark.parametrize("place", [DOWN, LEVEL, {"position": (0.3, -0.8, 1.4), "look_at": (0.5, 0.4, 0.1)}])
def test_of_a_floor_each_pixel_has_the_depth_at_which_its_ray_meets_it(place):
    depth, config = see(scene(shape("plane", (), (0.0, 0.0, 0.1))), **place, fov_deg=70.0)
    with np.errstate(divide="ignore"):
        expected = (0.1 - config.position[2]) / rays(config)[..., 2]
    expected = np.where((expected > 0.0) & (expected < config.max_range_m), expected, np.inf)
    np.testing.assert_allclose(depth, expected, rtol=1e-4)
    assert np.isfinite(depth).mean() > 0.2


@pytest.mark.parametrize("as_particle", [False, True])
@pytest.mark.parametrize("centre", [(2.0, 0.0, 1.0), (1.5, 0.4, 1.3), (0.8, -0.3, 0.9)])
def test_of_a_ball_each_pixel_has_its_depth_by_the_quadratic_formula(centre, as_particle):
    ball = scene(particles=[centre], radius=0.1) if as_particle else scene(shape("sphere", (0.2,), centre))
    depth, config = see(ball, **LEVEL, fov_deg=70.0, skin=2.0, fx=130.0, fy=100.0)
    expected = sphere_depth(config, centre, 0.2)
    sure = surely(expected, 1)
    np.testing.assert_array_equal(np.isfinite(depth)[sure], np.isfinite(expected)[sure])
    steep = 20 * MARCH_M  # towards the rim a ray closes in on the ball slowly
    shown = np.isfinite(expected) & sure
    assert shown.sum() > 200
    np.testing.assert_allclose(depth[shown], expected[shown], atol=1e-5 if as_particle else steep)
    middle = np.isfinite(sphere_depth(config, centre, 0.15))
    np.testing.assert_allclose(depth[middle], expected[middle], atol=1e-5 if as_particle else 2 * MARCH_M)


@pytest.mark.parametrize(
    "kinds", [("shape", "shape"), ("shape", "particle"), ("particle", "shape"), ("particle",) * 2]
)
def test_one_ball_hides_another(kinds):
    near, far = (1.0, 0.15, 1.0), (2.0, 0.0, 1.0)
    shapes = [
        shape("sphere", (0.15,), centre, name=str(centre))
        for kind, centre in zip(kinds, (near, far), strict=True)
        if kind == "shape"
    ]
    particles = [c for kind, c in zip(kinds, (near, far), strict=True) if kind == "particle"]
    depth, config = see(scene(*shapes, particles=particles, radius=0.15), **LEVEL, skin=1.0)
    front, back = sphere_depth(config, near, 0.15), sphere_depth(config, far, 0.15)
    covered = np.isfinite(front) & np.isfinite(back) & surely(front, 1) & surely(back, 1)
    beside = ~np.isfinite(front) & np.isfinite(back) & surely(front, 1) & surely(back, 1)
    assert covered.sum() > 100 and beside.sum() > 20
    np.testing.assert_allclose(depth[covered], front[covered], atol=20 * MARCH_M)
    np.testing.assert_allclose(depth[beside], back[beside], atol=20 * MARCH_M)


@pytest.mark.parametrize(
    ("kind", "size"),
    [("capsule", (0.1, 0.2)), ("box", (0.1, 0.2, 0.15)), ("cylinder", (0.12, 0.2)), ("cone", (0.2, 0.2))],
)
def test_points_of_a_turned_shape_lie_on_it(kind, size):
    quaternion = np.array((0.5, -0.1, 0.3, 0.8)) / math.sqrt(0.99)
    centre = np.array((1.2, 0.1, 1.1))
    depth, config = see(scene(shape(kind, size, centre, quaternion)), **LEVEL)
    seen = np.isfinite(depth)
    assert seen.sum() > 500
    world = deproject(depth, config)[seen] @ config.axes + config.position
    x, y, z = ((world - centre) @ rotation_matrix(quaternion)).T
    rho = np.hypot(x, y)
    off = {
        "capsule": lambda: np.hypot(rho, z - np.clip(z, -size[-1], size[-1])) - size[0],
        "box": lambda: np.max(np.abs([x, y, z]).T - size, axis=1),
        "cylinder": lambda: np.maximum(rho - size[0], np.abs(z) - size[1]),
        "cone": lambda: np.maximum(
            (rho - size[0] * (size[1] - z) / (2 * size[1])) * math.cos(math.atan2(size[0], 2 * size[1])),
            -z - size[1],
        ),
    }[kind]()
    assert np.abs(off).max() < 2 * MARCH_M


def test_a_skin_is_seen_and_hides():
    square = np.array([[1.5, -1, 0], [1.5, 1, 0], [1.5, 1, 1.2], [1.5, -1, 1.2]], np.float32)
    skin = SceneSurface(
        name="skin", vertices=square, triangles=np.array([[0, 1, 2], [0, 2, 3]], np.int32), color=(1, 0, 0)
    )
    depth, config = see(scene(shape("sphere", (0.3,), (2.5, 0.0, 1.2)), surfaces=(skin,)), **LEVEL)
    height = 1.0 + 1.5 * rays(config)[..., 2]
    clear = np.abs(height - 1.2) > 0.01
    below = (height < 1.2) & clear
    np.testing.assert_allclose(depth[below], 1.5, rtol=1e-5)
    above = (height > 1.2) & clear
    ball = sphere_depth(config, (2.5, 0.0, 1.2), 0.3)
    sure = above & surely(ball, 1)
    np.testing.assert_array_equal(np.isfinite(depth)[sure], np.isfinite(ball)[sure])
    assert np.isfinite(ball[above]).any()


def test_a_filtered_tool_hides_the_floor_and_gives_no_points():
    both = scene(shape("sphere", (0.2,), (0.0, 0.0, 0.5), tool=True), shape("plane", (), (0.0, 0.0, 0.0)))
    seen, config = see(both, **DOWN)
    filtered, _ = see(both, **DOWN, self_filter=True)
    tool = np.isfinite(sphere_depth(config, (0.0, 0.0, 0.5), 0.2))
    sure = surely(np.where(tool, 1.0, np.inf), 1)
    assert not np.isfinite(filtered[tool & sure]).any()
    np.testing.assert_array_equal(filtered[~tool & sure], seen[~tool & sure])
    assert np.isfinite(seen).all()


def test_a_mark_of_a_goal_is_not_seen():
    goal = shape("sphere", (0.2,), (0.0, 0.0, 0.5), ghost=True)
    depth, _ = see(scene(goal, shape("plane", (), (0.0, 0.0, 0.0))), **DOWN)
    np.testing.assert_allclose(depth, 2.0, rtol=1e-6)


def test_what_lies_beside_the_picture_behind_or_out_of_range_is_not_seen():
    particles = [(-1.0, 0.0, 1.0), (1.0, 3.0, 1.0), (0.0, 0.0, 1.0), (9.0, 0.0, 1.0)]
    depth, _ = see(scene(particles=particles, radius=0.05), **LEVEL | {"max_range_m": 5.0})
    assert not np.isfinite(depth).any()


def test_pictures_are_a_function_of_scene_seed_and_number():
    what = scene(shape("plane", (), (0.0, 0.0, 0.0)), particles=[(0.0, 0.0, 0.5)], radius=0.2)
    camera, again, other = (SceneCamera(SensorConfig(**DOWN, seed=seed)) for seed in (1, 1, 2))
    first = camera.measure(what, 5)
    camera.measure(what, 6)
    np.testing.assert_array_equal(again.measure(what, 5), first)
    assert not np.array_equal(camera.measure(what, 6), first, equal_nan=True)
    assert not np.array_equal(other.measure(what, 5), first, equal_nan=True)


@pytest.mark.parametrize("num_particles", [768, 2592])
def test_the_face_of_a_block_of_particles_is_seen_where_it_is(num_particles):
    """Balls of 1.5 radii, at random: some stick out, some leave gaps, on average they look as far as the face."""
    size = np.array((0.3, 0.3, 0.125))
    radius = 0.5 * (size.prod() / num_particles) ** (1 / 3)
    heights = []
    for seed in range(8):
        particles = np.random.default_rng(seed).uniform(-0.5, 0.5, (num_particles, 3)) * size
        depth, config = see(scene(particles=particles, radius=radius), **DOWN, fov_deg=20.0)
        points = deproject(np.nan_to_num(depth, posinf=9.0), config) @ config.axes + config.position
        inside = (np.abs(points[..., :2]) < 0.1).all(axis=-1)
        heights.append(points[inside][:, 2].mean())
    assert np.mean(heights) == pytest.approx(0.5 * size[2], abs=0.4 * radius)


def test_in_rolling_flat_every_point_lies_on_dough_pin_or_table():
    env = rewarped_sim.make("rolling_flat_small", requires_grad=False)
    env.reset()
    what = env.scene(0)
    depth, config = see(what)
    seen = np.isfinite(depth)
    assert seen.all()
    world = deproject(depth, config)[seen] @ config.axes + config.position
    dough = np.linalg.norm(world[:, None] - what.particles, axis=2).min(axis=1) - 1.5 * what.particle_radius
    floor = world[:, 2] - what.shapes[-1].position[2]
    pins = []
    for pin in what.shapes[:-1]:
        x, y, z = ((world - pin.position) @ rotation_matrix(pin.quaternion)).T
        pins.append(np.hypot(np.hypot(x, y), z - np.clip(z, -pin.size[1], pin.size[1])) - pin.size[0])
    distance = np.min(np.abs([dough, floor, *pins]), axis=0)
    assert distance.max() < 2 * MARCH_M
    nearest = np.argmin(np.abs([dough, floor, *pins]), axis=0)
    assert set(nearest) == {0, 1, 2, 3}, "dough, table, pin and handle are seen"
    pixels = project(what.particles @ config.axes.T - config.axes @ config.position, config)
    columns, rows = np.rint(pixels).astype(int).T
    beyond = (what.particles @ config.axes.T - config.axes @ config.position)[:, 2]
    assert (depth[rows, columns] <= beyond).all(), "nothing shows through"
