import importlib.util
import re
from pathlib import Path

import mujoco
import numpy as np
import pytest
from mjcf import compiled

from rewarped_sim.assets.ant import JOINT_NAMES, START_JOINTS, ant, ant_run


@pytest.fixture(scope="module")
def published():
    """The ant that the newton wheel carries, in MuJoCo, with the DFlex density and without its floor."""
    package = Path(importlib.util.find_spec("newton").origin).parent
    text = (package / "examples/assets/nv_ant.xml").read_text()
    text = re.sub(r"<size .*?/>|<geom name=\"floor\".*?/>", "", text).replace(
        'density="5.0"', 'density="1000"'
    )
    return mujoco.MjModel.from_xml_string(text)


def test_tree_and_masses_are_those_of_the_published_ant(published):
    ours = compiled(ant())
    for field in (
        "body_mass",
        "body_pos",
        "body_ipos",
        "body_inertia",
        "body_parentid",
        "jnt_axis",
        "jnt_pos",
    ):
        np.testing.assert_allclose(getattr(ours, field), getattr(published, field), atol=1e-9, err_msg=field)
    assert ours.ngeom == 13


def test_limits_are_those_of_the_published_ant(published):
    limits = [(joint.lower, joint.upper) for joint in ant().joints[1:]]
    np.testing.assert_allclose(limits, published.jnt_range[1:], atol=1e-9)
    assert tuple(ant().joint_names[1:]) == JOINT_NAMES


def test_masses_are_the_published_ones():
    mass = compiled(ant()).body_mass
    assert mass[1] == pytest.approx(96.78, abs=0.005)
    assert mass.sum() == pytest.approx(182.18, abs=0.005)


def test_the_light_ant_has_the_published_masses_and_inertias():
    model = compiled(ant_run())
    assert model.body("torso").mass == pytest.approx(31.65, abs=0.005)
    assert model.body("leg_1").mass == pytest.approx(7.832, abs=0.0005)
    assert model.body("foot_1").mass == pytest.approx(13.518, abs=0.0005)
    assert model.body_mass.sum() == pytest.approx(117.05, abs=0.005)
    expected = {
        "torso": (0.596, 0.596, 1.089),
        "leg_3": (0.0736, 0.0736, 0.1186),
        "foot_2": (0.2934, 0.2934, 0.5400),
    }
    for name, diagonal in expected.items():
        assert np.diag(inertia_matrix(model, name)) == pytest.approx(diagonal, abs=1e-3)


def test_the_light_ant_has_no_damping_and_touches_itself():
    joints = ant_run().joints[1:]
    assert {joint.damping for joint in joints} == {0.0}
    assert {joint.limit_damping for joint in joints} == {10.0}
    assert {joint.armature for joint in joints} == {0.005}
    pairs = ant_run().contact_pairs
    assert len(pairs) == 9 * 8 // 2 - 8
    assert ("torso", "leg_1") not in pairs
    assert ant().contact_pairs == ()


def test_the_ant_starts_within_its_limits_and_above_the_ground():
    model = compiled(ant())
    data = mujoco.MjData(model)
    data.qpos[7:] = START_JOINTS
    for joint, angle in zip(ant().joints[1:], START_JOINTS, strict=True):
        assert joint.lower < angle < joint.upper
    mujoco.mj_forward(model, data)
    ends = [
        data.geom_xpos[geom][2] - abs(data.geom_xmat[geom][8]) * model.geom_size[geom][1] - 0.08
        for geom in range(model.ngeom)
        if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_CAPSULE
    ]
    assert min(ends) > 0.0


def inertia_matrix(model, name):
    """About the centre of mass, in the body's frame."""
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, model.body(name).iquat)
    rotation = rotation.reshape(3, 3)
    return rotation @ np.diag(model.body(name).inertia) @ rotation.T
