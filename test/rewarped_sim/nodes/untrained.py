"""Policies that nobody trained."""

import torch

from rewarped_sim import make
from sapo_learner.export import export_bundle
from sapo_learner.policy import make_policy


def untrained_bundle(task, options, mean, folder):
    """Export a policy that, around a mean action (before tanh), moves by what it sees; returns the bundle's folder."""
    env = make(task, num_envs=4, requires_grad=False, **options)
    weights, samples = (torch.Generator().manual_seed(seed) for seed in (3, 4))
    policy = make_policy(
        env.obs_spec, env.action_dim, hidden=(32, 32), pool="mean", weights=weights, samples=samples
    )
    with torch.no_grad():
        policy.head.mean.weight *= 3.0
        policy.head.mean.bias.copy_(torch.tensor(mean))
    contract = env.contract(policy_name="untrained", train={"algo": "none"})
    return export_bundle(policy, contract, env.reset(), folder)
