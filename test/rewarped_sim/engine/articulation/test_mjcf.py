"""The translation to MuJoCo is itself checked: MuJoCo's own steps must show the accelerations that are read from it."""

import mujoco
import numpy as np
import pytest
from mjcf import acceleration_from_mujoco, compiled, dofs_to_mujoco, passive_forces, to_mujoco

from rewarped_sim.assets.snu_lower_body import snu_lower_body


def random_state(model, rng):
    """Every quaternion is a random rotation."""
    q = rng.normal(size=model.num_coordinates)
    for joint in model.joints:
        if joint.kind in ("free", "ball"):
            at = model.coordinate(joint.name) + (3 if joint.kind == "free" else 0)
            q[at : at + 4] /= np.linalg.norm(q[at : at + 4])
    return q, rng.normal(size=model.num_dofs)


def from_mujoco(model, qpos, qvel):
    q = np.array(qpos)
    for joint in model.joints:
        if joint.kind in ("free", "ball"):
            at = model.coordinate(joint.name) + (3 if joint.kind == "free" else 0)
            q[at : at + 4] = np.roll(qpos[at : at + 4], -1)
    return q, acceleration_from_mujoco(model, q, qvel)


def test_a_state_comes_back_as_it_went():
    model = snu_lower_body()
    q, qd = random_state(model, np.random.default_rng(0))
    back_q, back_qd = from_mujoco(model, *to_mujoco(model, q, qd))
    np.testing.assert_allclose(back_q, q, atol=1e-15)
    np.testing.assert_allclose(back_qd, qd, atol=1e-14)


def test_accelerations_are_the_change_of_our_velocities_while_mujoco_moves():
    model = snu_lower_body()
    oracle = compiled(model)
    oracle.opt.timestep = 1e-5
    data = mujoco.MjData(oracle)
    q, qd = random_state(model, np.random.default_rng(1))
    qpos, qvel = to_mujoco(model, q, qd)

    data.qpos, data.qvel = qpos, qvel
    mujoco.mj_forward(oracle, data)
    read = acceleration_from_mujoco(model, q, data.qacc)

    sides = []
    for sign in (1.0, -1.0):
        moved = qpos.copy()
        mujoco.mj_integratePos(oracle, moved, qvel, sign * 1e-5)
        sides.append(from_mujoco(model, moved, qvel + sign * 1e-5 * data.qacc)[1])
    np.testing.assert_allclose((sides[0] - sides[1]) / 2e-5, read, rtol=1e-5, atol=1e-5)


def test_a_balls_velocity_is_about_axes_of_the_parent():
    model = snu_lower_body()
    oracle = compiled(model)
    data = mujoco.MjData(oracle)
    q, _ = random_state(model, np.random.default_rng(2))
    qd = np.zeros(model.num_dofs)
    dof = model.dof("right_femur")
    qd[dof : dof + 3] = (0.3, -0.2, 0.5)
    data.qpos, data.qvel = to_mujoco(model, q, qd)
    mujoco.mj_forward(oracle, data)
    mujoco.mj_comVel(oracle, data)
    velocity = np.zeros(6)
    mujoco.mj_objectVelocity(
        oracle, data, mujoco.mjtObj.mjOBJ_XBODY, oracle.body("right_femur").id, velocity, 0
    )
    pelvis = data.body("pelvis").xmat.reshape(3, 3)
    np.testing.assert_allclose(velocity[:3], pelvis @ (0.3, -0.2, 0.5), atol=1e-14)


def test_power_does_not_depend_on_the_axes():
    model = snu_lower_body()
    rng = np.random.default_rng(3)
    q, qd = random_state(model, rng)
    force = rng.normal(size=model.num_dofs)
    assert dofs_to_mujoco(model, q, force) @ to_mujoco(model, q, qd)[1] == pytest.approx(force @ qd)


def test_a_violated_limit_pushes_back_and_a_ball_returns():
    model = snu_lower_body(limit_damping_per_mass=1.0)
    q = model.start_q()
    q[model.coordinate("right_tibia")] = -0.1
    q[model.coordinate("left_tibia")] = 2.4
    at = model.coordinate("left_talus")
    q[at : at + 4] = (np.sin(0.2), 0.0, 0.0, np.cos(0.2))
    qd = np.zeros(model.num_dofs)
    qd[model.dof("left_tibia")] = 2.0

    forces = passive_forces(model, q, qd)

    assert forces[model.dof("right_tibia")] == pytest.approx(200.0 * 0.1)
    assert forces[model.dof("left_tibia")] == pytest.approx(-200.0 * 0.1 - 3.0 * 2.0)
    assert forces[model.dof("left_talus")] == pytest.approx(-5.0 * np.sqrt(0.6 / 15.0) * np.sin(0.2))
    assert np.count_nonzero(forces) == 3
