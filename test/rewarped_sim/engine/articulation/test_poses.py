"""Where bodies are, on the host: as MuJoCo has them."""

import mujoco
import numpy as np
import pytest
from mjcf import compiled, to_mujoco
from systems import creature

from rewarped_sim.assets.allegro_hand import allegro_hand
from rewarped_sim.assets.ant import ant
from rewarped_sim.assets.hopper import hopper
from rewarped_sim.assets.snu_lower_body import snu_lower_body
from rewarped_sim.engine.articulation.poses import body_poses
from rewarped_sim.engine.articulation.tree import Tree

MODELS = {
    "every kind of joint": creature,
    "a root made of slides": lambda: creature(root="planar"),
    "ant": ant,
    "hopper": hopper,
    "snu_lower_body": snu_lower_body,
    "allegro_hand": allegro_hand,
}


def random_q(model, rng):
    """Every quaternion is a random rotation."""
    q = rng.normal(size=model.num_coordinates)
    for joint in model.joints:
        if joint.kind in ("free", "ball"):
            at = model.coordinate(joint.name) + (3 if joint.kind == "free" else 0)
            q[at : at + 4] /= np.linalg.norm(q[at : at + 4])
    return q


@pytest.mark.parametrize("name", MODELS)
def test_bodies_are_where_mujoco_has_them(name):
    model = MODELS[name]()
    physics = compiled(model)
    data = mujoco.MjData(physics)
    rng = np.random.default_rng(0)
    for _ in range(10):
        q = random_q(model, rng)
        data.qpos[:], _ = to_mujoco(model, q, np.zeros(model.num_dofs))
        mujoco.mj_kinematics(physics, data)
        for body, (position, quaternion) in zip(model.bodies, body_poses(Tree(model), q), strict=True):
            expected = data.body(body.name)
            np.testing.assert_allclose(position, expected.xpos, atol=1e-12)
            # Both signs are the same rotation.
            assert abs(np.roll(quaternion, 1) @ expected.xquat) == pytest.approx(1.0, abs=1e-12)
            assert np.linalg.norm(quaternion) == pytest.approx(1.0, abs=1e-12)


def test_a_quaternion_of_any_length_is_a_rotation():
    model = ant()
    q = random_q(model, np.random.default_rng(1))
    longer = q.copy()
    longer[3:7] *= 3.0
    for (p, r), (p_longer, r_longer) in zip(
        body_poses(Tree(model), q), body_poses(Tree(model), longer), strict=True
    ):
        np.testing.assert_allclose(p_longer, p, atol=1e-14)
        np.testing.assert_allclose(r_longer, r, atol=1e-14)
