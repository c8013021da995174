import importlib.util
import re
from pathlib import Path

import mujoco
import numpy as np
import pytest
from mjcf import compiled

from rewarped_sim.assets.humanoid import JOINT_NAMES, humanoid


@pytest.fixture(scope="module")
def published():
    """The humanoid that the newton wheel carries, in MuJoCo, without its sensors, which lack what they refer to."""
    package = Path(importlib.util.find_spec("newton").origin).parent
    text = (package / "examples/assets/nv_humanoid.xml").read_text()
    return mujoco.MjModel.from_xml_string(re.sub("<sensor>.*</sensor>", "", text, flags=re.DOTALL))


def test_tree_and_masses_are_those_of_the_published_humanoid(published):
    ours = compiled(humanoid(extra_damping=0.0))
    for field in (
        "body_mass", "body_ipos", "body_inertia", "body_parentid", "jnt_axis", "jnt_pos", "dof_armature",
        "dof_damping",
    ):  # fmt: skip
        np.testing.assert_allclose(getattr(ours, field), getattr(published, field), atol=1e-9, err_msg=field)
    np.testing.assert_allclose(ours.jnt_stiffness[1:], published.jnt_stiffness[1:])
    np.testing.assert_allclose(ours.body_pos[2:], published.body_pos[2:], atol=1e-12)
    np.testing.assert_allclose(ours.body_quat, published.body_quat, atol=1e-12)


def test_limits_are_those_of_the_published_humanoid(published):
    limits = [(joint.lower, joint.upper) for joint in humanoid().joints[1:]]
    np.testing.assert_allclose(limits, published.jnt_range[1:], atol=1e-9)


def test_masses_are_the_published_ones():
    model = compiled(humanoid())
    expected = {
        "torso": 8.907, "lower_waist": 2.262, "pelvis": 6.616, "left_thigh": 4.752, "right_shin": 2.756,
        "left_foot": 1.131, "right_upper_arm": 1.661, "left_lower_arm": 1.230,
    }  # fmt: skip
    for name, mass in expected.items():
        assert model.body(name).mass == pytest.approx(mass, abs=0.0006), name
    assert model.body_mass.sum() == pytest.approx(40.84, abs=0.005)


def test_joints_come_in_the_published_order():
    assert tuple(humanoid().joint_names) == ("root", *JOINT_NAMES)
    assert len(JOINT_NAMES) == 21


def test_left_and_right_mirror_each_other():
    """Equal angles of both sides give mirrored poses; only ankle_x turns about the same axis left and right."""
    model = compiled(humanoid())
    data = mujoco.MjData(model)
    for index, name in enumerate(
        ("hip_x", "hip_z", "hip_y", "knee", "ankle_y", "ankle_x", "shoulder1", "shoulder2", "elbow")
    ):
        data.joint(f"right_{name}").qpos = 0.1 * (index - 3)
        data.joint(f"left_{name}").qpos = data.joint(f"right_{name}").qpos * (
            -1.0 if name == "ankle_x" else 1.0
        )
    mujoco.mj_forward(model, data)
    for name in ("thigh", "shin", "foot", "upper_arm", "lower_arm"):
        right, left = data.body(f"right_{name}").xipos, data.body(f"left_{name}").xipos
        assert right * (1.0, -1.0, 1.0) == pytest.approx(left, abs=1e-12), name
