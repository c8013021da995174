import pytest
import torch
from point_mass import PointMass
from torch import nn

from sapo_learner.apg import Apg, ApgConfig
from sapo_learner.loss_surface import filter_normalized_direction, surface
from sapo_learner.sapo import Sapo, SapoConfig
from sapo_learner.shac import Shac, ShacConfig


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_every_unit_changes_by_as_much_as_its_weights_are_long_and_biases_stay():
    layer = nn.Linear(5, 3)
    with torch.no_grad():
        layer.weight.mul_(torch.tensor([[1.0], [10.0], [0.0]]))
    weight, bias = filter_normalized_direction([*layer.parameters()], generator())
    torch.testing.assert_close(weight.norm(dim=1), layer.weight.detach().norm(dim=1))
    assert torch.equal(bias, torch.zeros(3)) and weight.abs().sum() > 0


def test_directions_of_the_same_seed_are_equal_and_two_drawn_in_a_row_are_not():
    weights = [torch.ones(4, 6)]
    source = generator(3)
    first, second = (filter_normalized_direction(weights, source)[0] for _ in range(2))
    assert torch.equal(first, filter_normalized_direction(weights, generator(3))[0])
    assert not torch.allclose(first, second)


def test_the_surface_of_a_quadratic_is_known_in_closed_form():
    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    first, second = [torch.tensor([1.0, 0.0]).double()], [torch.tensor([0.0, 2.0]).double()]
    found = surface([x], first, second, [-1.0, 0.0, 0.5], lambda: float(x[0] ** 2 + 3.0 * x[1]))
    expected = [[(1 + a) ** 2 + 3 * (2 + 2 * b) for b in (-1.0, 0.0, 0.5)] for a in (-1.0, 0.0, 0.5)]
    torch.testing.assert_close(found, torch.tensor(expected).double())
    assert x.tolist() == [1.0, 2.0]


def test_weights_come_back_to_the_bit_even_when_something_goes_wrong():
    x = torch.rand(7)
    before = x.clone()

    def fails():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        surface([x], [torch.rand(7)], [torch.rand(7)], [0.1, 0.3], fails)
    assert torch.equal(x, before)


SMALL = {"horizon": 8, "actor_hidden": (8,)}
LEARNERS = {
    "sapo": lambda env: Sapo(env, SapoConfig(**SMALL, critic_hidden=(8,)), seed=0, planned_epochs=3),
    "shac": lambda env: Shac(env, ShacConfig(**SMALL, critic_hidden=(8,)), seed=0, planned_epochs=3),
    "apg": lambda env: Apg(env, ApgConfig(**SMALL), seed=0, planned_epochs=3),
}


@pytest.mark.parametrize("algo", LEARNERS)
def test_a_look_tells_what_the_next_update_climbs_and_changes_nothing(algo):
    learner = LEARNERS[algo](PointMass(num_envs=4))
    learner.update()
    before = learner.state_dict()
    looks = [float(learner.look().detach()) for _ in range(2)]
    torch.testing.assert_close(learner.state_dict(), before, rtol=0.0, atol=0.0)
    assert looks[0] == looks[1] == pytest.approx(learner.update()["actor/objective"], rel=1e-6)


def test_the_gradient_at_the_middle_of_the_surface_is_that_of_back_propagation():
    """Central differences over the plane against the derivative of the same objective along its first direction."""
    learner = LEARNERS["shac"](PointMass(num_envs=4, dtype=torch.float64))
    learner.policy.double()
    learner.target_critic.double()
    learner._noise = lambda *leading: torch.ones(*leading, 4, 1, dtype=torch.float64)
    parameters = [*learner.policy.encoder.parameters(), *learner.policy.head.parameters()]
    first, second = (filter_normalized_direction(parameters, generator(seed)) for seed in (1, 2))
    step = 1e-5
    values = surface(parameters, first, second, [-step, 0.0, step], lambda: float(learner.look()))
    gradients = torch.autograd.grad(learner.look(), parameters, allow_unused=True)
    for direction, difference in (
        (first, values[2, 1] - values[0, 1]),
        (second, values[1, 2] - values[1, 0]),
    ):
        slope = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True) if g is not None)
        assert float(difference) / (2 * step) == pytest.approx(float(slope), rel=1e-5, abs=1e-9)
