import pytest
import torch
from counter import Counter
from point_mass import PointMass
from torch import nn

from sapo_learner.critics import target_of
from sapo_learner.shac import Shac, ShacConfig

CONFIG = ShacConfig(horizon=17, actor_hidden=(16,), critic_hidden=(16,), critic_passes=2, num_minibatches=2)
# Segments of a window of 17 steps: 5 + 5 + 5 + 2 in env 0, and 3 + 3 + 3 + 3 + 3 + 2 in env 1. Each segment's
# discounted sum telescopes to the value of its first observation, which is 10.
EXACT_OBJECTIVE = 10.0 * (4 + 6) / (2 * 17)


class KnownValue(nn.Module):
    """Knows the value of a `Counter`, but for an error."""

    def __init__(self, error: float = 0.0):
        super().__init__()
        self.error = nn.Parameter(torch.tensor(error))

    def forward(self, inputs):
        return (inputs.state[:, 0] + 10.0 + self.error)[None]


def make(env=None, config: ShacConfig = CONFIG) -> Shac:
    return Shac(env or PointMass(max_episode_steps=5), config, seed=0, planned_epochs=50)


def test_values_belong_to_the_observation_after_the_step():
    """With V(s_t), or with the observation after a reset, neither number comes out as it does."""
    shac = make(Counter(CONFIG.gamma))
    shac.critic = KnownValue()
    shac.target_critic = KnownValue()
    metrics = shac.update()
    assert metrics["critic/loss"] == pytest.approx(0.0, abs=1e-9)
    assert metrics["actor/objective"] == pytest.approx(EXACT_OBJECTIVE, rel=1e-6)


def test_actor_and_targets_take_their_values_from_the_slow_copy():
    shac = make(Counter(CONFIG.gamma))
    shac.critic = KnownValue(error=5.0)
    shac.target_critic = KnownValue()
    metrics = shac.update()
    assert metrics["critic/loss"] == pytest.approx(25.0, rel=1e-6)  # the targets are exact, the critic is not
    assert metrics["actor/objective"] == pytest.approx(EXACT_OBJECTIVE, rel=1e-6)


@pytest.mark.parametrize("keep", [0.2, 0.995])
def test_the_slow_copy_keeps_its_share_of_itself(keep):
    shac = make(config=ShacConfig(**(CONFIG.__dict__ | {"target_keep": keep})))
    before = target_of(shac.target_critic)
    shac.update()
    for new, old, online in zip(
        shac.target_critic.parameters(), before.parameters(), shac.critic.parameters(), strict=True
    ):
        torch.testing.assert_close(new, keep * old + (1.0 - keep) * online, rtol=1e-5, atol=1e-7)
        assert not torch.equal(old, online)


def test_the_actors_gradient_matches_central_differences_of_the_objective():
    config = ShacConfig(**(CONFIG.__dict__ | {"max_grad_norm": 1e9}))  # unclipped, so it can be read off

    def objective_and_gradient(shift: float) -> tuple[float, float]:
        shac = make(PointMass(num_envs=4, max_episode_steps=5), config)
        with torch.no_grad():
            shac.policy.head.mean.bias += shift
        metrics = shac.update()
        return metrics["actor/objective"], -shac.policy.head.mean.bias.grad.item()

    _, gradient = objective_and_gradient(0.0)
    difference = (objective_and_gradient(0.01)[0] - objective_and_gradient(-0.01)[0]) / 0.02
    assert gradient == pytest.approx(difference, rel=5e-3)
    assert abs(gradient) > 1e-2


def test_learning_rates_fall_linearly_to_the_last_planned_epoch():
    shac = Shac(PointMass(), CONFIG, seed=0, planned_epochs=4)
    rates = [shac.update()["actor/learning_rate"] for _ in range(6)]
    assert rates == pytest.approx([2e-3, 1.5025e-3, 1.005e-3, 5.075e-4, 1e-5, 1e-5])


def test_its_standard_deviation_depends_on_nothing_that_is_seen():
    shac = make()
    shac.update()
    obs = shac.env.detach()
    log_std = shac.policy.distribution(shac.policy.normalize(obs)).log_std
    assert torch.equal(log_std[0], log_std[1])
    assert log_std[0].item() != -1.0  # it has been learned
