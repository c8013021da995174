import numpy as np
import pytest

from rewarped_sim.engine.kinematics import rotation_matrix
from rewarped_sim.viewpoint import LOOK_AT, POSITION, optical_axes, optical_pose

PLACES = [
    (POSITION, LOOK_AT),
    ((0.0, 0.0, 2.0), (0.0, 0.0, 0.0)),  # straight down
    ((0.0, 0.0, -1.0), (0.0, 0.0, 1.0)),  # straight up
    ((1.0, 0.0, 0.5), (0.0, 0.0, 0.5)),
    ((-1.0, 0.0, 0.5), (0.0, 0.0, 0.5)),
    ((0.0, 1.0, 0.5), (0.0, 0.0, 0.5)),
    ((1, -2, 3), (0, 0, 0)),  # as one writes whole metres
]


@pytest.mark.parametrize(("position", "look_at"), PLACES)
def test_the_pose_takes_the_optical_axis_where_the_camera_looks(position, look_at):
    pose = optical_pose(position, look_at)
    turn = rotation_matrix(pose[3:])
    way = np.subtract(look_at, position)
    reached = turn @ (0.0, 0.0, np.linalg.norm(way)) + pose[:3]
    np.testing.assert_allclose(reached, look_at, atol=1e-12)
    np.testing.assert_allclose(turn, optical_axes(position, look_at).T, atol=1e-12)
    assert np.linalg.norm(pose[3:]) == pytest.approx(1.0) and pose[6] >= 0.0


@pytest.mark.parametrize(("position", "look_at"), PLACES)
def test_a_picture_is_upright(position, look_at):
    right, down, _ = optical_axes(position, look_at)
    assert abs(right[2]) < 1e-12
    assert down[2] <= 1e-12
