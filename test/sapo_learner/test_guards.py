"""Gradients, rewards and targets that are not finite, or too large, in a whole update of those that use them."""

import pytest
import torch
from point_mass import PointMass

from sapo_learner.algorithms import ALGORITHMS
from sapo_learner.learner import TrainingDiverged
from sapo_learner.vec_env import StepResult

SMALL = {
    "horizon": 6,
    "actor_hidden": (16,),
    "critic_hidden": (16,),
    "critic_passes": 2,
    "num_minibatches": 2,
}
first_order = pytest.mark.parametrize("name", ["sapo", "shac", "apg"])
"""Algorithms with an actor that climbs gradients through the env."""
with_critics = pytest.mark.parametrize("name", ["sapo", "shac"])


class SpoiledReward(PointMass):
    """In env 0, in the third step: adds `added` to the reward, and multiplies the gradient that goes into it."""

    added, gradient_factor = 0.0, 1.0
    steps = 0

    def step(self, action):
        result = super().step(action)
        self.steps += 1
        if self.steps != 3:
            return result
        first = torch.arange(self.num_envs) == 0
        reward = result.reward + torch.where(first, self.added, 0.0)
        if reward.requires_grad:
            reward.register_hook(lambda bar: torch.where(first, bar * self.gradient_factor, bar))
        return StepResult(**{**result.__dict__, "reward": reward})


def make(name, *, with_cloud=False, env=None, **spoils):
    env = env or SpoiledReward(with_cloud=with_cloud)
    for attribute, value in spoils.items():
        setattr(env, attribute, value)
    algorithm = ALGORITHMS[name]
    settings = {key: value for key, value in SMALL.items() if key in algorithm.config.__dataclass_fields__}
    return algorithm.learner(env, algorithm.config(**settings), seed=0, planned_epochs=50)


def critics_of(learner):
    return learner.critics if hasattr(learner, "critics") else learner.critic


def weights(module):
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def assert_equal(first, second):
    torch.testing.assert_close(first, second, rtol=0.0, atol=0.0)


@first_order
@pytest.mark.parametrize("spoil", [float("nan"), float("inf")])
def test_a_gradient_that_breaks_in_an_encoder_alone_skips_the_whole_actor(name, spoil):
    learner = make(name, with_cloud=True)
    before = weights(learner.policy)
    broken = next(iter(learner.policy.encoder.parameters()))
    broken.register_hook(lambda bar: bar * spoil)
    assert learner.update()["actor/skipped"] == 1
    assert_equal(weights(learner.policy), before)


@first_order
def test_the_clip_covers_the_encoder(name):
    learner = make(name, with_cloud=True)
    encoder = list(learner.policy.encoder.parameters())
    for parameter in encoder:
        parameter.register_hook(lambda bar: bar * 1e6)
    assert learner.update()["actor/grad_norm"] > 1e3
    clipped = [parameter.grad for parameter in learner.policy.parameters() if parameter.grad is not None]
    norm = torch.cat([gradient.flatten() for gradient in clipped]).norm()
    assert norm.item() == pytest.approx(learner.config.max_grad_norm, rel=1e-4)
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in encoder)


@with_critics
def test_a_gradient_that_breaks_in_the_critics_encoder_skips_the_critics_and_nothing_else(name):
    learner = make(name, with_cloud=True)
    before, actor_before = weights(critics_of(learner)), weights(learner.policy)
    next(iter(critics_of(learner).encoder.parameters())).register_hook(lambda bar: bar * float("nan"))
    metrics = learner.update()
    assert (metrics["critic/skipped"], metrics["actor/skipped"]) == (4, 0)
    assert_equal(weights(critics_of(learner)), before)
    assert any(not torch.equal(value, actor_before[key]) for key, value in weights(learner.policy).items())


@first_order
@pytest.mark.parametrize(("factor", "skipped"), [(1e30, 1), (1e12, 0)])
def test_an_exploding_gradient_is_clipped_as_long_as_it_has_a_norm_and_skipped_beyond(name, factor, skipped):
    learner = make(name, gradient_factor=factor)
    before = weights(learner.policy)
    assert learner.update()["actor/skipped"] == skipped
    after = weights(learner.policy)
    assert all(value.isfinite().all() for value in after.values())
    assert all(torch.equal(after[key], before[key]) for key in before) == bool(skipped)
    assert learner.update()["actor/skipped"] == 0


@first_order
@pytest.mark.parametrize("added", [float("nan"), float("inf"), -float("inf")])
def test_a_reward_that_is_not_finite_leaves_the_actors_step_as_it_was(name, added):
    clean, broken = make(name), make(name, added=added)
    clean_metrics, metrics = clean.update(), broken.update()
    assert metrics["actor/skipped"] == 0
    assert_equal(weights(broken.policy), weights(clean.policy))
    assert metrics["actor/grad_norm"] == clean_metrics["actor/grad_norm"]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_rewards_that_are_never_finite_end_the_run_and_leave_the_policy_as_it_was(name):
    class NeverFinite(PointMass):
        def step(self, action):
            result = super().step(action)
            return StepResult(**{**result.__dict__, "reward": result.reward * float("nan")})

    learner = make(name, env=NeverFinite())
    before = weights(learner.policy)
    for _ in range(9):
        assert learner.update()["actor/skipped"] > 0
    with pytest.raises(TrainingDiverged, match="10 times in a row"):
        learner.update()
    assert_equal(weights(learner.policy), before)


@with_critics
def test_critics_that_never_have_a_finite_gradient_end_the_run_too(name):
    learner = make(name, with_cloud=True)
    next(iter(critics_of(learner).encoder.parameters())).register_hook(lambda bar: bar * float("nan"))
    for _ in range(9):
        assert learner.update()["actor/skipped"] == 0
    with pytest.raises(TrainingDiverged, match="no finite critic gradient 10 times in a row"):
        learner.update()


@with_critics
def test_targets_that_are_not_finite_are_counted_and_the_critics_learn_from_the_others(name):
    learner = make(name, added=float("nan"))
    before = weights(critics_of(learner))
    metrics = learner.update()
    assert metrics["critic/masked_targets"] == 3  # of env 0: the spoiled step and the two before it
    assert metrics["critic/skipped"] == 0
    after = weights(critics_of(learner))
    assert all(value.isfinite().all() for value in after.values())
    assert any(not torch.equal(after[key], before[key]) for key in before)
    assert learner.update()["critic/masked_targets"] == 0
