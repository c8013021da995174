import mujoco
import numpy as np
import pytest
from mjcf import compiled

from rewarped_sim.assets.cartpole import START_JOINTS, cartpole


def test_cart_and_pole_weigh_what_is_published():
    model = compiled(cartpole())
    assert model.body("cart").mass == pytest.approx(50.0)
    assert model.body("pole").mass == pytest.approx(2.5)
    assert model.body("pole").ipos == pytest.approx((0.0, 0.0, 0.5))


def test_the_pole_is_upright_at_zero_and_hangs_at_the_start():
    model = compiled(cartpole())
    data = mujoco.MjData(model)
    for angles, height in (((0.0, 0.0), 3.0), (START_JOINTS, 2.0)):
        data.qpos = angles
        mujoco.mj_forward(model, data)
        assert data.body("pole").xipos == pytest.approx((0.0, 0.0, height))


def test_pushing_right_tips_the_pole_left():
    """With m the pole's mass, l half its length, I = 4/3 m l^2 + m t^2 / 12 about the hinge, M the total: Newton."""
    model = compiled(cartpole(damping=0.0))
    data = mujoco.MjData(model)
    data.qfrc_applied = (1000.0, 0.0)
    mujoco.mj_forward(model, data)
    inertia = 2.5 * (0.25 + (1.0 + 0.05**2) / 12.0)
    matrix = np.array([[52.5, 2.5 * 0.5], [2.5 * 0.5, inertia]])
    np.testing.assert_allclose(data.qacc, np.linalg.solve(matrix, (1000.0, 0.0)), rtol=1e-12)
    assert data.qacc[1] < 0.0
