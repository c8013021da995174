"""What a torso shows, against rotation matrices and a point that moves with it."""

import numpy as np
import pytest
import torch

from rewarped_sim.engine.kinematics import rotation_matrix
from rewarped_sim.locomotion import Torso

COM = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)


@pytest.fixture
def state():
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(12, 9, generator=generator, dtype=torch.float64)
    q[:, 3:7] /= q[:, 3:7].norm(dim=1, keepdim=True)
    return {"joint_q": q, "joint_qd": torch.randn(12, 8, generator=generator, dtype=torch.float64)}


def orientations(q):
    return np.stack([rotation_matrix(tuple(row[3:7].tolist())) for row in q])


def test_up_and_heading_are_where_its_axes_point(state):
    torso, turned = Torso.of(state, COM), orientations(state["joint_q"])
    np.testing.assert_allclose(torso.up.numpy(), turned[:, 2, 2], atol=1e-12)
    np.testing.assert_allclose(torso.heading.numpy(), turned[:, 0, 0], atol=1e-12)


def test_velocity_is_that_of_the_centre_of_mass(state):
    """The centre of mass a moment later: carried by the origin, and turned by the rotation vector dt w."""
    q, qd, dt = state["joint_q"].numpy(), state["joint_qd"].numpy(), 1e-6
    before = orientations(state["joint_q"]) @ COM.numpy()
    moved = []
    for arm, spin in zip(before, qd[:, 3:6], strict=True):
        half = 0.5 * dt * spin
        length = np.linalg.norm(half)
        turn = rotation_matrix((*(np.sin(length) * half / length), np.cos(length)))
        moved.append(turn @ arm)
    expected = qd[:, :3] + (np.array(moved) - before) / dt
    np.testing.assert_allclose(Torso.of(state, COM).velocity.numpy(), expected, atol=1e-5)
    np.testing.assert_array_equal(Torso.of(state, COM).height.numpy(), q[:, 2])
