import mujoco
import pytest
from mjcf import compiled

from rewarped_sim.assets.hopper import JOINT_NAMES, ROOT_JOINT_NAMES, hopper


def test_masses_are_the_published_ones():
    masses = compiled(hopper()).body_mass[1:]
    assert masses == pytest.approx((3.665, 4.058, 2.781, 5.316), abs=0.0005)
    assert masses.sum() == pytest.approx(15.82, abs=0.005)


def test_at_zero_the_torso_is_at_its_height_and_the_foot_just_above_the_ground():
    model = compiled(hopper())
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    assert data.body("torso").xipos == pytest.approx((0.0, 0.0, 1.25))
    assert data.body("thigh").xipos == pytest.approx((0.0, 0.0, 0.825))
    assert data.body("leg").xipos == pytest.approx((0.0, 0.0, 0.35))
    assert data.body("foot").xipos == pytest.approx((0.06, 0.0, 0.10))
    assert data.body("foot").xipos[2] - 0.06 == pytest.approx(0.04)


def test_a_negative_knee_angle_draws_the_foot_backward():
    model = compiled(hopper())
    data = mujoco.MjData(model)
    data.joint("knee").qpos = -0.5
    mujoco.mj_forward(model, data)
    assert data.joint("knee").xanchor == pytest.approx((0.0, 0.0, 0.6))
    assert data.body("leg").xpos[0] < -0.1


def test_joints_come_in_the_published_order_and_gains():
    model = hopper()
    assert tuple(model.joint_names) == (*ROOT_JOINT_NAMES, *JOINT_NAMES)
    assert [joint.damping for joint in model.joints] == [10.0] * 3 + [12.0] * 3
    assert {joint.armature for joint in model.joints} == {1.0}
