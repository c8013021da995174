"""Poses on the host against closed forms. The tasks' scenes compare them with those that the device computes."""

import math

import numpy as np
import pytest

from rewarped_sim.engine.forward_kinematics import body_poses, shape_poses
from rewarped_sim.engine.kinematics import Joint, Shape, Tool

TURN = (0.0, math.sin(0.4), 0.0, math.cos(0.4))

ARM = Tool(
    joints=(
        Joint(name="slide", kind="prismatic", axis=(1.0, 0.0, 0.0), position=(0.1, 0.2, 0.3), quaternion=TURN),
        Joint(name="swing", kind="revolute", axis=(0.0, 0.6, 0.8), parent=0, position=(0.0, 0.0, 0.5)),
        Joint(name="twist", kind="revolute", axis=(0.0, 0.0, 1.0), parent=1, position=(0.0, 0.3, 0.0)),
    ),
    shapes=(
        Shape(name="tip", kind="capsule", size=(0.1, 0.2), body=2, position=(0.0, 0.1, 0.2), quaternion=TURN),
        Shape(name="post", kind="box", size=(0.1, 0.1, 0.1), position=(0.5, 0.5, 0.5)),
    ),
)  # fmt: skip


def test_a_planar_arm_has_its_tip_where_trigonometry_says():
    two_links = Tool(
        joints=(
            Joint(name="shoulder", kind="revolute", axis=(0.0, 0.0, 1.0)),
            Joint(name="elbow", kind="revolute", axis=(0.0, 0.0, 1.0), parent=0, position=(2.0, 0.0, 0.0)),
        ),
        shapes=(Shape(name="tip", kind="sphere", size=(0.1,), body=1, position=(1.0, 0.0, 0.0)),),
    )
    [(position, quaternion)] = shape_poses(two_links, (0.3, 0.5))
    np.testing.assert_allclose(
        position, (2 * math.cos(0.3) + math.cos(0.8), 2 * math.sin(0.3) + math.sin(0.8), 0.0), atol=1e-15
    )
    np.testing.assert_allclose(quaternion, (0.0, 0.0, math.sin(0.4), math.cos(0.4)), atol=1e-15)


def test_a_slide_in_a_turned_frame_moves_along_the_turned_axis():
    slide, _, _ = body_poses(ARM, (0.5, 0.0, 0.0))
    np.testing.assert_allclose(
        slide[0], (0.1 + 0.5 * math.cos(0.8), 0.2, 0.3 - 0.5 * math.sin(0.8)), atol=1e-15
    )
    np.testing.assert_allclose(slide[1], TURN, atol=1e-15)


def test_what_lies_on_an_axis_does_not_move_when_the_joint_turns():
    on_axis = Tool(
        joints=ARM.joints,
        shapes=(Shape(name="p", kind="sphere", size=(0.1,), body=1, position=(0.0, 0.6, 0.8)),),
    )
    still, turned = (shape_poses(on_axis, (0.2, angle, 0.0))[0][0] for angle in (0.0, 1.1))
    np.testing.assert_allclose(still, turned, atol=1e-15)


def test_a_shape_of_the_world_stays_where_it_is():
    _, (position, quaternion) = shape_poses(ARM, (0.3, -0.4, 1.2))
    np.testing.assert_array_equal(position, (0.5, 0.5, 0.5))
    np.testing.assert_array_equal(quaternion, (0.0, 0.0, 0.0, 1.0))


def test_quaternions_of_any_length_give_poses_with_one_of_length_one():
    long = Tool(
        joints=(Joint(name="j", kind="revolute", axis=(1.0, 0.0, 0.0), quaternion=(0.0, 0.0, 2.0, 2.0)),),
        shapes=(Shape(name="s", kind="sphere", size=(0.1,), body=0, quaternion=(3.0, 0.0, 0.0, 4.0)),),
    )
    [(_, quaternion)] = shape_poses(long, (0.0,))
    half = math.sqrt(0.5)
    np.testing.assert_allclose(quaternion, (0.6 * half, 0.6 * half, 0.8 * half, 0.8 * half), atol=1e-15)


def test_wrong_numbers_of_coordinates_are_refused():
    with pytest.raises(ValueError, match="expected 3 coordinates, got 2"):
        body_poses(ARM, (0.0, 0.0))
