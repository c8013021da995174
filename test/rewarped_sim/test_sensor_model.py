"""Intrinsics against each other and statistics of errors against what is asked for."""

import math

import numpy as np
import pytest

from rewarped_sim.sensor_model import SensorConfig, SensorError, at_jump, deproject, disturbed, project

PERFECT = {"depth_noise": 0.0, "dropout": 0.0, "edge_dropout": 0.0}
LENSES = [
    {},
    {"width": 33, "height": 21, "fov_deg": 70.0},
    {"fx": 150.0, "fy": 120.0, "cx": 40.5, "cy": 99.0},
]


def random(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("lens", LENSES)
def test_from_pixel_to_point_and_back_is_the_same_pixel(lens):
    config = SensorConfig(**lens)
    depth = random().uniform(0.3, 2.0, (config.height, config.width)).astype(np.float32)
    points = deproject(depth, config)
    rows, columns = np.indices(depth.shape)
    np.testing.assert_allclose(project(points, config), np.stack([columns, rows], axis=-1), atol=1e-3)
    np.testing.assert_array_equal(points[..., 2], depth)


@pytest.mark.parametrize("fov_deg", [30.0, 50.0, 90.0])
def test_the_field_of_view_reaches_from_edge_to_edge(fov_deg):
    config = SensorConfig(fov_deg=fov_deg, width=101)
    half = math.tan(math.radians(fov_deg / 2))
    edges = project(np.array([[-half, 0.0, 1.0], [half, 0.0, 1.0]]), config)
    np.testing.assert_allclose(edges[:, 0], [-0.5, 100.5], atol=1e-9)  # middles of pixels are whole numbers
    assert config.focal[0] == config.focal[1]


def test_x_points_right_and_y_down():
    config = SensorConfig(width=3, height=3)
    points = deproject(np.ones((3, 3), np.float32), config)
    np.testing.assert_allclose(points[1, 1], (0.0, 0.0, 1.0), atol=1e-7)
    assert points[1, 2, 0] > 0.0 > points[1, 0, 0]
    assert points[2, 1, 1] > 0.0 > points[0, 1, 1]


@pytest.mark.parametrize("depth_m", [0.5, 1.0, 2.0])
def test_noise_grows_with_the_square_of_the_depth_and_has_no_bias(depth_m):
    config = SensorConfig(**PERFECT | {"depth_noise": 0.004})
    true = np.full((200, 200), depth_m, np.float32)
    error = disturbed(true, config, random()) - true
    sigma = 0.004 * depth_m**2
    assert error.std() == pytest.approx(sigma, rel=4.0 / math.sqrt(2 * error.size))
    assert abs(error.mean()) < 4.0 * sigma / math.sqrt(error.size)
    beside = np.corrcoef(error[:, 1:].ravel(), error[:, :-1].ravel())[0, 1]
    assert abs(beside) < 5.0 / math.sqrt(error.size)


def test_points_are_missing_at_random_and_more_of_them_where_depth_jumps():
    config = SensorConfig(depth_noise=0.0, dropout=0.1, edge_dropout=0.6)
    true = np.ones((400, 400), np.float32)
    true[:, 1::4] = true[:, 2::4] = 1.5  # half of all columns before, half behind; all of them at a jump
    assert at_jump(true, config.edge_step_m).all()
    at_edges = np.isnan(disturbed(true, config, random()))
    elsewhere = np.isnan(disturbed(np.ones_like(true), config, random()))
    assert at_edges.mean() == pytest.approx(0.6, abs=0.01)
    assert elsewhere.mean() == pytest.approx(0.1, abs=0.01)


def test_a_jump_is_seen_on_both_sides_in_rows_and_columns_and_towards_nothing():
    depth = np.ones((5, 6), np.float32)
    depth[:, 3:] = 1.2
    depth[4, :] = np.inf
    expected = np.zeros((5, 6), bool)
    expected[:4, 2:4] = True
    expected[3:, :] = True
    expected[4, :] = True
    np.testing.assert_array_equal(at_jump(depth, 0.1), expected)
    slope = np.linspace(1.0, 1.5, 6, dtype=np.float32) * np.ones((5, 1), np.float32)
    assert not at_jump(slope, 0.101).any() and at_jump(slope, 0.099).all()


def test_what_is_out_of_range_or_is_nothing_gives_no_point():
    config = SensorConfig(**PERFECT, min_range_m=0.5, max_range_m=2.0)
    true = np.array([[0.49, 0.51, 1.99, 2.01, np.inf]], np.float32)
    np.testing.assert_array_equal(
        np.isfinite(disturbed(true, config, random())), [[False, True, True, False, False]]
    )


def test_the_same_random_numbers_give_the_same_picture():
    true = random(1).uniform(0.5, 2.0, (20, 30)).astype(np.float32)
    first, again, other = (disturbed(true, SensorConfig(), random(seed)) for seed in (2, 2, 3))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other, equal_nan=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, r"width: must be in \[1, inf\] and finite, got 0"),
        ({"fov_deg": 180.0}, r"fov_deg: must be in \[1.0, 179.0\]"),
        ({"dropout": 1.5}, r"dropout: must be in \[0.0, 1.0\]"),
        ({"depth_noise": math.nan}, "depth_noise: must be in"),
        ({"position": (0.0, math.inf, 0.0)}, "position: must be in"),
        ({"position": (0.0, 0.0, 1.0), "look_at": (0.0, 0.0, 1.0)}, "look_at: must differ from position"),
        ({"min_range_m": 2.0, "max_range_m": 1.0}, "max_range_m: must exceed min_range_m = 2.0, got 1.0"),
        ({"frame": ""}, "frame: must not be empty"),
    ],
)
def test_a_camera_that_cannot_be_is_refused(settings, message):
    with pytest.raises(SensorError, match=message):
        SensorConfig(**settings)
