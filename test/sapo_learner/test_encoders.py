import pytest
import torch

from policy_runner.contract import ObsTerm
from sapo_learner.encoders import FlatEncoder, PointEncoder, make_encoder
from sapo_learner.network_input import ObsLayout

JOINTS = ObsTerm(name="joint_q", kind="joint_position", shape=(3,))
GOAL = ObsTerm(name="goal", kind="goal_position", shape=(2,))
CLOUD = ObsTerm(name="points", kind="cloud", shape=(10, 3))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def random_batch():
    return torch.randn(4, 5, generator=generator()), torch.randn(4, 10, 3, generator=generator())


def test_a_task_without_a_cloud_keeps_its_state():
    encoder = make_encoder(ObsLayout([JOINTS, GOAL]), "mean", generator())
    state, _ = random_batch()
    assert isinstance(encoder, FlatEncoder) and encoder.size == 5
    assert torch.equal(encoder(state), state)


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_the_order_of_the_points_and_their_repetition_change_nothing(pool):
    encoder = PointEncoder(5, pool, generator())
    encoder.projection[0].bias.data.copy_(
        torch.linspace(-1.0, 1.0, 64)
    )  # without it, the norm behind would hide a sum of points
    state, cloud = random_batch()
    features = encoder(state, cloud)
    assert features.shape == (4, 192)
    shuffled = cloud[:, torch.randperm(10, generator=generator())]
    torch.testing.assert_close(encoder(state, shuffled), features, rtol=0.0, atol=1e-6)
    torch.testing.assert_close(
        encoder(state, torch.cat([cloud, cloud], dim=1)), features, rtol=0.0, atol=1e-6
    )


def test_max_pooling_ignores_a_repeated_point_and_mean_pooling_does_not():
    state, cloud = random_batch()
    with_repeat = torch.cat([cloud, cloud[:, :1]], dim=1)
    changes = {}
    for pool in ("mean", "max"):
        encoder = PointEncoder(5, pool, generator())
        changes[pool] = (encoder(state, with_repeat) - encoder(state, cloud)).abs().max().item()
    assert changes["max"] < 1e-6
    assert changes["mean"] > 1e-3


def test_the_gradient_reaches_every_point():
    state, cloud = random_batch()
    cloud.requires_grad_()
    PointEncoder(5, "mean", generator())(state, cloud).square().sum().backward()
    assert (cloud.grad.abs().sum(dim=-1) > 0.0).all()


def test_state_terms_are_packed_in_the_order_of_the_specification():
    layout = ObsLayout([GOAL, CLOUD, JOINTS])
    state, cloud = layout.pack(
        {
            "joint_q": torch.tensor([[1.0, 2.0, 3.0]]),
            "goal": torch.tensor([[8.0, 9.0]]),
            "points": torch.ones(1, 10, 3),
        }
    )
    assert state.tolist() == [[8.0, 9.0, 1.0, 2.0, 3.0]]
    assert cloud.shape == (1, 10, 3)


@pytest.mark.parametrize("spec", [[CLOUD], [JOINTS, CLOUD, ObsTerm(name="more", kind="cloud", shape=(5, 3))]])
def test_a_specification_without_state_or_with_two_clouds_is_refused(spec):
    with pytest.raises(ValueError, match="at least one state term and at most one cloud"):
        ObsLayout(spec)
