import pytest
import torch
from counter import Counter
from point_mass import PointMass
from torch import nn

from sapo_learner.advantage import gae
from sapo_learner.ppo import Ppo, PpoConfig, clipped_surrogate

CONFIG = PpoConfig(horizon=17, actor_hidden=(16,), critic_hidden=(16,))


def changed(**values) -> PpoConfig:
    return PpoConfig(**(CONFIG.__dict__ | values))


class KnownValue(nn.Module):
    """Knows the value of a `Counter`, whose count is the only feature."""

    def forward(self, features):
        return features[:, 0][None] + 10.0


def test_with_exact_values_every_advantage_is_zero():
    """With the value of the observation after a reset, or none at a time limit, they are not."""
    ppo = Ppo(Counter(CONFIG.gamma), CONFIG, seed=0, planned_epochs=10)
    ppo.critic = KnownValue()
    advantages = []

    def spy(*args, **kwargs):
        advantages.append(gae(*args, **kwargs))
        return advantages[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sapo_learner.ppo.gae", spy)
        ppo.update()
    assert advantages[0].shape == (17, 2)
    assert advantages[0].abs().max() < 1e-5


def test_the_surrogate_pays_nothing_beyond_its_clip():
    ratio = torch.tensor([0.5, 1.0, 1.1, 2.0], requires_grad=True)
    for sign, paid in ((1.0, [1.0, 1.0, 1.0, 0.0]), (-1.0, [0.0, -1.0, -1.0, -1.0])):
        gain = clipped_surrogate(ratio, torch.full((4,), sign), clip_ratio=0.2)
        (gradient,) = torch.autograd.grad(gain.sum(), ratio)
        assert gradient.tolist() == paid
    torch.testing.assert_close(
        clipped_surrogate(torch.tensor([0.5, 2.0]), torch.tensor([1.0, 1.0]), clip_ratio=0.2),
        torch.tensor([0.5, 1.2]),
    )


@pytest.mark.parametrize(
    ("divergence", "factor"), [(0.02, 1 / 1.5), (0.001, 1.5), (0.008, 1.0), (0.015, 1.0), (0.0041, 1.0)]
)
def test_the_learning_rate_follows_the_divergence(divergence, factor):
    ppo = Ppo(PointMass(), CONFIG, seed=0, planned_epochs=10)
    ppo._adapt_learning_rate(divergence)
    assert ppo._optimizer.param_groups[0]["lr"] == pytest.approx(5e-4 * factor)


def test_the_learning_rate_stays_within_its_bounds():
    ppo = Ppo(PointMass(), CONFIG, seed=0, planned_epochs=10)
    for _ in range(30):
        ppo._adapt_learning_rate(0.0)
    assert ppo._optimizer.param_groups[0]["lr"] == 1e-2
    for _ in range(60):
        ppo._adapt_learning_rate(1.0)
    assert ppo._optimizer.param_groups[0]["lr"] == 1e-6


def test_the_simulator_is_not_differentiated():
    class Watched(PointMass):
        def step(self, action):
            assert not action.requires_grad and not torch.is_grad_enabled()
            return super().step(action)

    Ppo(Watched(), CONFIG, seed=0, planned_epochs=10).update()


def test_a_learning_rate_out_of_its_own_bounds_is_refused():
    with pytest.raises(ValueError, match="learning_rate must be between min_learning_rate"):
        changed(learning_rate=0.1)
