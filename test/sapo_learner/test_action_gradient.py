import math

import pytest
import torch
from point_mass import PointMass
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution, kl_divergence

from sapo_learner.action_gradient import (
    MAX_RATIO,
    MIN_RATIO,
    Taken,
    divergence,
    pathwise,
    ratio,
    without_broken_envs,
)
from sapo_learner.distributions import SquashedNormal, normalized_entropy
from sapo_learner.policy import make_policy
from sapo_learner.returns import actor_objective, discounts
from sapo_learner.rollout import roll_out


def random_policy(*shape: int, seed: int = 0) -> SquashedNormal:
    generator = torch.Generator().manual_seed(seed)
    mean, log_std = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return SquashedNormal(mean.requires_grad_(), (0.3 * log_std - 0.5).requires_grad_())


def detached(policy: SquashedNormal) -> SquashedNormal:
    return SquashedNormal(policy.mean.detach(), policy.log_std.detach())


def test_gradients_of_actions_and_the_bonus_make_up_the_gradient_through_simulator_and_policy():
    """Through resets, later actions' answers, and the entropy of what is seen later; to round-off."""
    horizon, gamma, temperature, target = 9, 0.9, 0.3, -0.5
    env = PointMass(num_envs=3, max_episode_steps=5, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    policy = make_policy(env.obs_spec, 1, hidden=(16,), weights=generator, samples=generator).double()
    noise, entropy_noise = torch.randn(2, horizon, 3, 1, generator=generator, dtype=torch.float64)
    window = roll_out(
        env,
        policy,
        action_noise=noise,
        entropy_noise=entropy_noise[:, None],
        should_stop=lambda: False,
    )
    reward = window.reward + temperature * normalized_entropy(window.entropy, target)
    ends = window.terminal.state.square().sum(dim=-1)  # a value like any other
    objective = actor_objective(reward, ends, window.done, gamma=gamma)
    parameters = list(policy.head.parameters())
    expected = torch.autograd.grad(objective, parameters, retain_graph=True)

    gradient = torch.stack(torch.autograd.grad(objective, window.actions))
    now = policy.distribution(window.inputs)
    bonus = temperature * normalized_entropy(now.entropy(entropy_noise[None]), target)
    weight = discounts(window.done, gamma, torch.float64) / window.done.numel()
    taken = Taken(detached(now), detached(now).pre_tanh(noise), gradient)
    surrogate = pathwise(now, taken).sum() + (weight * bonus).sum()
    assert window.done.any()
    torch.testing.assert_close(torch.autograd.grad(surrogate, parameters), expected, rtol=1e-10, atol=1e-13)


def test_the_gradient_of_an_action_matches_central_differences():
    env = PointMass(num_envs=2, max_episode_steps=100, dtype=torch.float64, start=torch.tensor([0.3, -0.6]))
    generator = torch.Generator().manual_seed(1)
    policy = make_policy(env.obs_spec, 1, hidden=(8,), weights=generator, samples=generator).double()
    noise = torch.randn(5, 2, 1, generator=generator, dtype=torch.float64)

    def earned(nudge: float) -> tuple:
        """Sum of rewards when action 1 of env 1 is changed after it was drawn."""
        env.reset()
        step, asked = env.step, []

        def nudged(action):
            asked.append(action)
            return step(action + nudge * torch.tensor([[0.0], [1.0]]) if len(asked) == 2 else action)

        env.step = nudged
        window = roll_out(env, policy, action_noise=noise, should_stop=lambda: False)
        env.step = step
        return window.reward.sum(), window.actions

    total, actions = earned(0.0)
    gradient = torch.autograd.grad(total, actions)[1][1, 0].item()
    difference = (earned(1e-5)[0] - earned(-1e-5)[0]).item() / 2e-5
    assert gradient == pytest.approx(difference, rel=1e-7)
    assert abs(gradient) > 1e-3


def test_an_action_taken_up_again_is_the_same_action_under_another_policy():
    old, new = random_policy(4, 3, 2), random_policy(4, 3, 2, seed=5)
    taken = detached(old).pre_tanh(torch.randn(4, 3, 2, dtype=torch.float64))
    gradient = torch.randn(4, 3, 2, dtype=torch.float64)
    again = pathwise(new, Taken(detached(old), taken, gradient))
    torch.testing.assert_close(again, (gradient * taken.tanh()).sum(dim=-1))
    by_mean, by_log_std = torch.autograd.grad(again.sum(), [new.mean, new.log_std])
    slope = gradient * (1.0 - taken.tanh().square())
    torch.testing.assert_close(by_mean, slope)
    torch.testing.assert_close(by_log_std, slope * (taken - new.mean).detach())


def test_the_ratio_is_that_of_torchs_densities_and_zero_outside_of_its_bounds():
    def density(policy: SquashedNormal) -> TransformedDistribution:
        normal = Independent(Normal(policy.mean, policy.log_std.exp()), 1)
        return TransformedDistribution(normal, [TanhTransform(cache_size=1)])

    old = detached(random_policy(50, 4, 2))
    new = SquashedNormal(old.mean + 0.3, (old.log_std - 0.2).requires_grad_())
    pre_tanh = old.mean + old.log_std.exp() * torch.randn(50, 4, 2, dtype=torch.float64).clamp(-2.0, 2.0)
    expected = (
        (density(new).log_prob(pre_tanh.tanh()) - density(old).log_prob(pre_tanh.tanh())).exp().detach()
    )
    found = ratio(new, Taken(old, pre_tanh, torch.zeros_like(pre_tanh)))
    inside = (expected > MIN_RATIO) & (expected < MAX_RATIO)
    assert not found.requires_grad
    assert 0.2 < inside.double().mean() < 0.98
    torch.testing.assert_close(found[inside], expected[inside], rtol=1e-6, atol=0.0)
    assert (found[~inside] == 0.0).all()


def test_the_divergence_is_that_of_torchs_normals():
    old, new = random_policy(6, 3), random_policy(6, 3, seed=5)
    normals = [Independent(Normal(policy.mean, policy.log_std.exp()), 1) for policy in (old, new)]
    torch.testing.assert_close(divergence(old, new), kl_divergence(*normals))
    assert divergence(old, old).abs().max() < 1e-12


STIFFNESS, BEST = 2.0, 0.5


def test_actions_of_another_policy_have_the_expected_gradient_of_the_closed_form():
    """E[r] for r(u) = -k/2 (u - u0)^2, u ~ N(m, s^2) is -k/2 [(m - u0)^2 + s^2]; taken at another m and s."""
    envs, mean, std = 400_000, -0.3, 0.4
    old = SquashedNormal(
        *torch.tensor([[-0.27], [math.log(0.43)]], dtype=torch.float64).expand(2, envs)[..., None, None]
    )
    new = SquashedNormal(
        torch.full((envs, 1, 1), mean, dtype=torch.float64, requires_grad=True),
        torch.full((envs, 1, 1), math.log(std), dtype=torch.float64, requires_grad=True),
    )
    u = old.pre_tanh(torch.randn(envs, 1, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
    taken = Taken(old, u, -STIFFNESS * (u - BEST) / (1.0 - u.tanh().square()))
    weight = ratio(new, taken)
    assert (weight > 0.0).double().mean() > 0.999  # so what the bounds leave out does not matter
    gradients = torch.autograd.grad((weight * pathwise(new, taken)).sum(), [new.mean, new.log_std])
    for gradient, expected in zip(gradients, (-STIFFNESS * (mean - BEST), -STIFFNESS * std**2), strict=True):
        error = gradient.std().item() / math.sqrt(envs)
        assert abs(gradient.mean().item() - expected) < 4.0 * error
        assert 4.0 * error < 0.02 * abs(expected)


def test_an_env_with_a_broken_gradient_teaches_nothing_and_leaves_the_others_as_they_were():
    gradient = torch.randn(5, 3, 2)
    broken = gradient.clone()
    broken[2, 1, 0] = math.nan
    kept = without_broken_envs(broken)
    assert (kept[:, 1] == 0.0).all()
    assert torch.equal(kept[:, [0, 2]], gradient[:, [0, 2]])


def test_where_every_env_is_broken_the_gradients_stay_broken():
    assert without_broken_envs(torch.full((2, 3, 1), math.nan)).isnan().all()
