import pytest
import torch
from counter import Counter
from point_mass import PointMass
from torch import nn

from sapo_learner.advantage import gae
from sapo_learner.network_input import NetworkInput
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


def test_the_critic_learns_returns_in_units_of_their_spread():
    """Exact values make returns that are the values; normalised, they are what is learned."""
    ppo = Ppo(Counter(CONFIG.gamma), changed(passes=1), seed=0, planned_epochs=10)
    ppo.critic = KnownValue()
    report = ppo.update()
    values = torch.tensor([10.0 + t % 5 for t in range(17)] + [10.0 + t % 3 for t in range(17)])
    assert report["critic/target_mean"] == pytest.approx(values.mean().item(), rel=1e-6)
    assert report["critic/target_std"] == pytest.approx(values.std(correction=0).item(), rel=1e-5)
    # merged with the first statistics, one return of mean 0 and variance 1
    mean = values.sum() / 35
    variance = (1.0 + mean.square() + 34 * (values.var() + (values.mean() - mean).square())) / 35
    normalized = ((values - mean) / (variance + 1e-5).sqrt()).clamp(-5.0, 5.0)
    loss = 0.5 * (values - normalized).square().mean()  # the critic still says what it said before
    assert report["critic/loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_values_keep_their_meaning_when_the_scale_of_returns_changes():
    """A critic that has learned its normalised targets gives back, in units of the reward, what they were made of."""
    ppo = Ppo(PointMass(num_envs=4), CONFIG, seed=0, planned_epochs=10)
    returns = torch.linspace(-30.0, 10.0, 60)[:, None]
    ppo.returns.update(returns[None])
    torch.testing.assert_close(ppo.returns(returns) / ppo.returns.scale + ppo.returns.shift, returns)

    class Learned(nn.Module):
        def forward(self, features):
            return ppo.returns(features[:, :1] * 2.0).T

    ppo.critic = Learned()
    obs = NetworkInput(torch.linspace(-2.0, 2.0, 12).view(3, 2, 2), None)
    torch.testing.assert_close(ppo._value(obs), 2.0 * obs.state[..., 0])


def test_the_first_pass_of_an_epoch_meets_the_policy_that_acted():
    """So its divergence is zero, its probability ratio one, and the normalised advantages have a mean of zero."""
    ppo = Ppo(PointMass(num_envs=4), changed(passes=1), seed=0, planned_epochs=10)
    for _ in range(3):
        report = ppo.update()
        assert report["actor/divergence"] == pytest.approx(0.0, abs=1e-6)
        assert report["actor/objective"] == pytest.approx(0.0, abs=1e-5)
    later = Ppo(PointMass(num_envs=4), changed(passes=5), seed=0, planned_epochs=10)
    assert later.update()["actor/divergence"] > 1e-4


def test_an_observation_after_a_failure_may_be_anything():
    class FailsBadly(PointMass):
        def step(self, action):
            result = super().step(action)
            failed = result.terminated[:, None]
            result.terminal_obs["x"] = torch.where(failed, float("nan"), result.terminal_obs["x"])
            return result

    env = FailsBadly(start=torch.tensor([1.9, -1.9]), max_episode_steps=1000)
    ppo = Ppo(env, CONFIG, seed=0, planned_epochs=10)
    for _ in range(3):
        report = ppo.update()
    assert report["episodes"] > 0 and report["actor/skipped"] == 0.0


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


def test_steps_that_are_skipped_are_counted_one_by_one():
    ppo = Ppo(PointMass(), changed(passes=5), seed=0, planned_epochs=10)
    calls = iter(range(100))
    ppo.policy.head.mean.bias.register_hook(lambda bar: bar * (float("nan") if next(calls) < 2 else 1.0))
    assert ppo.update()["actor/skipped"] == 2.0


def test_the_simulator_is_not_differentiated():
    class Watched(PointMass):
        def step(self, action):
            assert not action.requires_grad and not torch.is_grad_enabled()
            return super().step(action)

    Ppo(Watched(), CONFIG, seed=0, planned_epochs=10).update()


def test_a_learning_rate_out_of_its_own_bounds_is_refused():
    with pytest.raises(ValueError, match="learning_rate must be between min_learning_rate"):
        changed(learning_rate=0.1)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("gae_lambda", -0.1, "gae_lambda must be between 0 and 1, got -0.1"),
        ("target_kl", 0.0, "target_kl must be > 0, got 0.0"),
        ("clip_ratio", 0.0, "clip_ratio must be > 0, got 0.0"),
        ("passes", 0, "passes must be > 0, got 0"),
        ("value_coefficient", -1.0, "value_coefficient must be >= 0, got -1.0"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(name, value, message):
    with pytest.raises(ValueError, match=message):
        changed(**{name: value})


def test_more_minibatches_than_samples_are_refused():
    with pytest.raises(ValueError, match=r"num_minibatches must be <= horizon \* num_envs = 34, got 35"):
        Ppo(PointMass(), changed(num_minibatches=35), seed=0, planned_epochs=10)
