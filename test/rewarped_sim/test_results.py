import pytest
import torch

from rewarped_sim.make import make
from rewarped_sim.results import sample_observations
from sapo_learner.evaluate import Zero


@pytest.mark.parametrize(("num_envs", "count", "steps"), [(2, 256, 128), (4, 20, 32), (512, 256, 32)])
def test_observations_are_sampled_along_the_way_however_many_envs_there_are(num_envs, count, steps):
    sampled, followed = (make("cartpole", num_envs=num_envs, device="cpu", seed=0) for _ in range(2))
    nothing = Zero(sampled.action_dim)
    found = sample_observations(sampled, nothing, count=count)
    per_step = -(-count // steps)
    assert {len(values) for values in found.values()} == {steps * per_step}

    obs = followed.reset()
    for step in range(steps):
        rows = slice(step * per_step, (step + 1) * per_step)
        envs = (step * per_step + torch.arange(per_step)) % num_envs
        for name, values in obs.items():
            torch.testing.assert_close(found[name][rows], values[envs].detach(), rtol=0.0, atol=0.0)
        obs = followed.step(nothing.act(obs, deterministic=True)).obs
