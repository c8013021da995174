import torch
from point_mass import PointMass
from torch import Generator

from sapo_learner.policy import GaussianPolicy, make_policy


def policy_for(env: PointMass, seed: int = 0) -> GaussianPolicy:
    weights, samples = Generator().manual_seed(seed), Generator().manual_seed(7)
    return make_policy(
        env.obs_spec, env.action_dim, hidden=(16,), pool="mean", weights=weights, samples=samples
    )


def test_the_deterministic_action_is_the_tanh_of_the_heads_mean():
    env = PointMass(num_envs=5, with_cloud=True)
    policy, obs = policy_for(env), env.reset()
    policy.normalizer.update(torch.randn(3, 4, 2, generator=Generator().manual_seed(0)))
    state, cloud = policy.normalize(obs)
    mean, _ = policy.head(policy.encoder(state, cloud))
    actions = policy.act(obs, deterministic=True)
    assert torch.equal(actions, torch.tanh(mean))
    assert torch.equal(actions, policy.act(obs, deterministic=True))
    assert not actions.requires_grad


def test_samples_scatter_around_it_within_the_bounds():
    env = PointMass(num_envs=1000, start=torch.full((1000,), 0.5))
    policy, obs = policy_for(env), env.reset()
    first, second = policy.act(obs, deterministic=False), policy.act(obs, deterministic=False)
    assert first.abs().max() < 1.0
    assert not torch.equal(first, second)
    median, mode = first.median(), policy.act(obs, deterministic=True)[0, 0]
    assert abs(torch.atanh(median) - torch.atanh(mode)) < 0.15  # the median passes through tanh


def test_the_state_is_normalised_and_the_cloud_stays_raw():
    env = PointMass(num_envs=5, with_cloud=True)
    policy, obs = policy_for(env), env.reset()
    policy.normalizer.update(5.0 + torch.randn(3, 4, 2, generator=Generator().manual_seed(0)))
    state, cloud = policy.normalize(obs)
    assert torch.equal(cloud, obs["points"])
    assert (state - torch.cat([obs["x"], obs["v"]], dim=1)).abs().min() > 1.0


def test_sampling_leaves_the_global_generator_alone():
    env = PointMass()
    before = torch.random.get_rng_state()
    policy_for(env).act(env.reset(), deterministic=False)
    assert torch.equal(before, torch.random.get_rng_state())
