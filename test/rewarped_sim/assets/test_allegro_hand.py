import mujoco
import numpy as np
import pytest
from mjcf import compiled

from rewarped_sim.assets.allegro_hand import CUBE, JOINT_NAMES, LOWER, UPPER, allegro_hand


@pytest.fixture(scope="module")
def model():
    return allegro_hand()


@pytest.fixture(scope="module")
def at_zero(model):
    compiled_model = compiled(model)
    data = mujoco.MjData(compiled_model)
    mujoco.mj_forward(compiled_model, data)
    return compiled_model, data


def test_joints_come_thumb_first_and_the_cube_last(model):
    order = (12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3)
    assert [int(name.removeprefix("joint_")) for name in JOINT_NAMES] == list(order)
    assert tuple(model.joint_names) == (*JOINT_NAMES, CUBE)
    assert (model.num_coordinates, model.num_dofs) == (23, 22)
    assert tuple(joint.lower for joint in model.joints[:-1]) == LOWER
    assert LOWER[0] == 0.263
    assert UPPER[-1] == 1.618


def test_frames_are_where_they_were_measured(at_zero):
    _, data = at_zero
    expected = {
        "link_12": (-0.0193, 0.0475, 0.4862),
        "link_8": (0.0435, 0.0015, 0.5001),
        "link_4": (0.0, -0.0007, 0.4999),
        "link_0": (-0.0435, 0.0015, 0.5001),
        "link_7_tip": (0.0, -0.1356, 0.4872),
    }
    for name, position in expected.items():
        assert data.body(name).xpos == pytest.approx(position, abs=6e-5), name


def test_the_palm_faces_up(at_zero):
    _, data = at_zero
    normal, _, fingers = data.body("palm").xmat.reshape(3, 3).T
    assert normal[2] > 0.99
    assert normal[1] < 0.0
    assert fingers[1] < -0.99
    assert fingers[2] < 0.0


def test_a_closing_finger_rises_above_the_palm(at_zero):
    hand, _ = at_zero
    data = mujoco.MjData(hand)
    for name in ("joint_5", "joint_6", "joint_7"):
        data.joint(name).qpos = 0.8
    mujoco.mj_forward(hand, data)
    assert data.body("link_7_tip").xpos[2] > 0.53


def test_links_weigh_what_is_published(at_zero):
    hand, _ = at_zero
    masses = {
        0: 0.0119, 1: 0.065, 2: 0.0355, 3: 0.0096, 6: 0.0355, 9: 0.065, 12: 0.0176, 13: 0.0119, 14: 0.038, 15: 0.0388
    }  # fmt: skip
    for number, mass in masses.items():
        assert hand.body(f"link_{number}").mass == pytest.approx(mass)
    for number in (3, 7, 11, 15):
        assert hand.body(f"link_{number}_tip").mass == pytest.approx(0.0168)


def test_inertias_are_the_published_ones_though_no_solid_body_has_them(at_zero):
    hand, _ = at_zero
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, hand.body("link_5").iquat)
    rotation = rotation.reshape(3, 3)
    matrix = rotation @ np.diag(hand.body("link_5").inertia) @ rotation.T
    expected = [
        [7.9565e-5, 1.7199e-5, 8.7588e-6],
        [1.7199e-5, 2.4709e-5, 2.4131e-5],
        [8.7588e-6, 2.4131e-5, 7.9565e-5],
    ]
    np.testing.assert_allclose(matrix, expected, rtol=1e-9)
    moments = np.sort(hand.body("link_5").inertia)
    assert moments[0] + moments[1] < moments[2]


def test_a_fingertip_counts_once_or_as_published(at_zero):
    """Published: the last link of a finger weighs 0.0432 kg with its centre 20.8 mm out, instead of 0.0264 kg."""

    def finger_end(hand):
        masses = np.array([hand.body(name).mass[0] for name in ("link_3", "link_3_tip")])
        return masses.sum(), masses[1] / masses.sum() * hand.body("link_3_tip").pos[2]

    once, twice = at_zero[0], compiled(allegro_hand(fingertip_mass=0.0336))
    assert finger_end(once)[0] == pytest.approx(0.0264)
    assert finger_end(twice) == pytest.approx((0.0432, 0.0208), abs=5e-5)
    assert twice.body("link_15").mass + twice.body("link_15_tip").mass == pytest.approx(0.0724)


def test_the_cube_has_the_published_mass_and_inertia(at_zero):
    hand, data = at_zero
    assert hand.body(CUBE).mass == pytest.approx(0.5, abs=1e-6)
    assert hand.body(CUBE).inertia == pytest.approx([3.521e-4] * 3, rel=1e-4)
    assert data.body(CUBE).xpos == pytest.approx((0.0, -0.1, 0.6))


def test_everything_touches_the_cube_and_no_link_touches_its_neighbour(model):
    pairs = {frozenset(pair) for pair in model.contact_pairs}
    assert all(frozenset((body.name, CUBE)) in pairs for body in model.bodies[:-1])
    for neighbours in (
        ("palm", "link_4"),
        ("link_4", "link_5"),
        ("link_7", "link_7_tip"),
        ("link_6", "link_7_tip"),
    ):
        assert frozenset(neighbours) not in pairs
    assert frozenset(("link_7_tip", "link_15_tip")) in pairs
    assert len(allegro_hand(self_collision=False).contact_pairs) == len(model.bodies) - 1
