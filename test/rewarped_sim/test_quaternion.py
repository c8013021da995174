import numpy as np
import pytest
import torch

from rewarped_sim.engine.kinematics import rotation_matrix
from rewarped_sim.quaternion import conjugate, multiply, rotate


@pytest.fixture
def turns():
    q = torch.randn(2, 20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return q / q.norm(dim=-1, keepdim=True)


def matrices(quaternions):
    return np.stack([rotation_matrix(tuple(q.tolist())) for q in quaternions])


def test_products_are_products_of_matrices(turns):
    p, q = turns
    np.testing.assert_allclose(matrices(multiply(p, q)), matrices(p) @ matrices(q), atol=1e-12)


def test_vectors_turn_like_with_matrices(turns):
    q, vectors = turns[0], turns[1, :, :3]
    expected = (matrices(q) @ vectors.numpy()[:, :, None])[:, :, 0]
    np.testing.assert_allclose(rotate(q, vectors).numpy(), expected, atol=1e-12)
    one = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    np.testing.assert_allclose(rotate(q, one).numpy(), matrices(q) @ one.numpy(), atol=1e-12)


def test_conjugates_turn_back(turns):
    q = turns[0]
    np.testing.assert_allclose(matrices(conjugate(q)), matrices(q).transpose(0, 2, 1), atol=1e-12)
