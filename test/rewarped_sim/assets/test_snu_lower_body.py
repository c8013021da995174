import mujoco
import numpy as np
import pytest
from mjcf import compiled

from rewarped_sim.assets.snu_lower_body import snu_lower_body
from rewarped_sim.engine.articulation.tree import Tree


@pytest.fixture(scope="module")
def model():
    return snu_lower_body(strength=1.0)


@pytest.fixture(scope="module")
def at_rest(model):
    compiled_model = compiled(model)
    data = mujoco.MjData(compiled_model)
    mujoco.mj_forward(compiled_model, data)
    return compiled_model, data


def test_bones_weigh_what_is_published(at_rest):
    bones, _ = at_rest
    for name, mass in {
        "pelvis": 15.0,
        "right_femur": 7.0,
        "left_tibia": 3.0,
        "left_talus": 0.6,
        "right_pinky_toe": 0.2,
    }.items():
        assert bones.body(name).mass == pytest.approx(mass)
    assert bones.body_mass.sum() == pytest.approx(37.0)


def test_densities_are_the_published_ones(model):
    densities = [body.geoms[0].density for body in model.bodies[:6]]
    assert densities == pytest.approx((3827.0, 974.0, 528.0, 1015.0, 3331.0, 3764.0), rel=2e-3)


def test_there_are_as_many_coordinates_muscles_and_waypoints_as_published(model):
    assert (model.num_coordinates, model.num_dofs) == (29, 24)
    assert len(model.muscles) == 152
    assert sum(len(muscle.points) for muscle in model.muscles) == 636
    assert len(Tree(model).muscle_segments()) == 198
    assert sum(muscle.max_force for muscle in model.muscles) == pytest.approx(55158.5, abs=0.1)
    forces = [muscle.max_force for muscle in model.muscles]
    assert (min(forces), max(forces)) == (45.0, pytest.approx(1793.0, abs=0.1))


def test_muscles_of_both_sides_take_turns(model):
    names = [muscle.name for muscle in model.muscles]
    assert names[:4] == ["L_Adductor_Brevis", "R_Adductor_Brevis", "L_Adductor_Brevis1", "R_Adductor_Brevis1"]
    assert [name[2:] for name in names[::2]] == [name[2:] for name in names[1::2]]


def test_the_published_strength_is_a_factor():
    weak, strong = snu_lower_body(), snu_lower_body(strength=1.0)
    assert [m.max_force for m in weak.muscles] == pytest.approx([0.36 * m.max_force for m in strong.muscles])


def test_it_faces_x_with_its_left_leg_at_positive_y(at_rest):
    _, data = at_rest
    assert data.body("left_femur").xpos == pytest.approx((0.0192, 0.0903, 1.0 - 0.0472))
    assert data.body("right_thumb_toe").xpos[0] > data.body("right_talus").xpos[0] + 0.1


def test_the_left_leg_mirrors_the_right_one_toes_included(at_rest):
    _, data = at_rest
    for name in ("femur", "tibia", "talus", "thumb_toe", "pinky_toe"):
        right, left = data.body(f"right_{name}").xipos, data.body(f"left_{name}").xipos
        assert right * (1.0, -1.0, 1.0) == pytest.approx(left, abs=1e-15), name
    # The big toe is the inner one.
    for side in ("left", "right"):
        assert abs(data.body(f"{side}_thumb_toe").xpos[1]) < abs(data.body(f"{side}_pinky_toe").xpos[1])


def test_the_feet_start_just_above_the_ground(at_rest):
    bones, data = at_rest
    bottoms = data.geom_xpos[:, 2] - bones.geom_size[:, 2]
    assert 0.0 < bottoms.min() < 0.04


def test_bending_the_knee_draws_the_foot_backward(at_rest):
    bones, _ = at_rest
    data = mujoco.MjData(bones)
    data.joint("left_tibia").qpos = 1.0
    mujoco.mj_forward(bones, data)
    assert data.body("left_talus").xpos[0] < data.body("left_tibia").xpos[0] - 0.3


def test_calf_muscles_push_the_foot_down_and_the_shin_muscle_lifts_it(model, at_rest):
    """Moment arms from MuJoCo's tendons: a muscle shortens where its arm is negative."""
    bones, data = at_rest
    lengths = data.ten_length.copy()
    for name, shortens in (("Soleus", True), ("Tibialis_Anterior", False)):
        at = model.coordinate("right_talus")
        q = data.qpos.copy()
        q[at : at + 4] = (np.cos(0.05), 0.0, np.sin(0.05), 0.0)  # toes down: about y, by 0.1
        moved = mujoco.MjData(bones)
        moved.qpos = q
        mujoco.mj_forward(bones, moved)
        muscle = bones.tendon(f"R_{name}").id
        assert (moved.ten_length[muscle] < lengths[muscle]) == shortens
