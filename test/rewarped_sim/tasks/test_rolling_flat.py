"""RollingFlat against the published definition and the reference rollouts measured on the published simulator."""

import math

import numpy as np
import pytest
import torch

import rewarped_sim
from rewarped_sim.engine.kinematics import rotation_matrix


def rest(env, steps):
    """Zero action; rewards and the last observation."""
    env.reset()
    rewards = []
    with torch.no_grad():
        for _ in range(steps):
            result = env.step(torch.zeros(env.num_envs, 3))
            rewards.append(result.reward[0].item())
    return rewards, result.terminal_obs


def test_doing_nothing_reproduces_the_reference_rollout_within_one_percent():
    env = rewarped_sim.make("rolling_flat", requires_grad=False, randomize=False)
    rewards, obs = rest(env, 300)
    height = obs["particle_q"][0, :, 2]
    assert sum(rewards) == pytest.approx(80.49, rel=0.01)
    assert rewards[0] == pytest.approx(0.2148, rel=0.01)
    assert rewards[-1] == pytest.approx(0.26978, rel=0.01)
    assert height.mean().item() == pytest.approx(0.1151, rel=0.01)
    assert height.min().item() == pytest.approx(0.0598, rel=0.01)
    assert height.max().item() == pytest.approx(0.182, rel=0.01)


def test_the_block_settles_to_the_same_mean_height_on_the_coarser_grid():
    # The floor is three nodes high, so a coarser grid lifts the dough by the difference of three cells.
    heights = {}
    for task in ("rolling_flat", "rolling_flat_small"):
        env = rewarped_sim.make(task, requires_grad=False, randomize=False)
        rest(env, 40)
        heights[task] = env.state_dict()["x"][0, :, 2].mean().item()
    assert heights["rolling_flat_small"] - heights["rolling_flat"] == pytest.approx(
        3 / 32 - 3 / 48, abs=0.006
    )


def test_reward_is_the_published_formula_of_the_observed_heights():
    env = rewarped_sim.make("rolling_flat_small", num_envs=3, requires_grad=False)
    env.reset()
    with torch.no_grad():
        result = env.step(torch.rand(3, 3) * 2 - 1)
    height = result.terminal_obs["particle_q"][..., 2].double().numpy()
    d = height.mean(1) / 0.125
    expected = (1 / (1 + d)) ** 2 * np.where(d <= 0.33, 2, 1) - height.var(1, ddof=1)
    np.testing.assert_allclose(result.reward.numpy(), expected, rtol=1e-5)


def test_every_tenth_particle_is_observed():
    env = rewarped_sim.make("rolling_flat", requires_grad=False)
    obs = env.reset()
    particles = env.state_dict()["x"]
    assert torch.equal(obs["particle_q"], particles[:, ::10][:, :250])
    torch.testing.assert_close(obs["com_q"], particles[:, ::10][:, :250].mean(1))


def test_starts_are_shifted_and_scaled_as_published():
    nominal = rewarped_sim.make("rolling_flat_small", randomize=False, requires_grad=False)
    nominal.reset()
    block = nominal.state_dict()["x"][0].double()
    env = rewarped_sim.make("rolling_flat_small", num_envs=200, requires_grad=False, num_threads=1)
    env.reset()
    started = env.state_dict()["x"].double()
    extent = (started[:, :, 0].amax(1) - started[:, :, 0].amin(1)) / (block[:, 0].max() - block[:, 0].min())
    assert 0.9 <= extent.min() < 0.92
    assert 1.08 < extent.max() <= 1.1
    # Undo the scaling, which is about the corner (0, 1, 0): what is left is the shift.
    corner = torch.tensor([0.0, 1.0, 0.0])
    shift = (corner + (started - corner) / extent[:, None, None] - block).mean(dim=1)
    assert shift[:, :2].abs().max() <= 0.1 + 1e-5
    assert shift[:, 2].min() >= -1e-5
    assert shift[:, 2].max() <= 0.05 + 1e-5
    assert (shift.std(dim=0) > torch.tensor([0.05, 0.05, 0.012])).all()


@pytest.mark.parametrize("yaw", [0.0, 0.4, -1.2])
def test_the_pin_swings_about_the_far_edge_of_the_table(yaw):
    env = rewarped_sim.make("rolling_flat_small", requires_grad=False)
    state = env.state_dict()
    state["joint_q"][:] = torch.tensor([0.4, 0.3, yaw])
    env.load_state_dict(state)
    pin = env.scene().shapes[0]
    # Published (y up): the pin's centre is (x + 0.5 sin th, y, 0.5 cos th); our (x, y, z) is its (x, 1 - z, y).
    expected = (0.4 + 0.5 * math.sin(yaw), 1.0 - 0.5 * math.cos(yaw), 0.3)
    np.testing.assert_allclose(pin.position, expected, atol=1e-6)
    axis = rotation_matrix(tuple(pin.quaternion)) @ (0.0, 0.0, 1.0)
    np.testing.assert_allclose(np.abs(axis @ (-math.sin(yaw), math.cos(yaw), 0.0)), 1.0, atol=1e-6)


def test_the_scene_shows_the_pin_where_the_dough_feels_it():
    env = rewarped_sim.make("rolling_flat_small", requires_grad=False)
    state = env.state_dict()
    state["joint_q"][:] = torch.tensor([0.45, 0.2, 0.5])
    env.load_state_dict(state)
    with torch.no_grad():
        env.step(torch.zeros(1, 3))
    *tool, floor = env.scene().shapes
    for shape, position in zip(tool, env._bridge.engine._solver._poses.pos.numpy()[:2], strict=True):
        np.testing.assert_allclose(shape.position, position, atol=1e-6)
    assert floor.kind == "plane"
    assert floor.position[2] == pytest.approx(3 / 32)


def test_pressing_the_pin_in_flattens_the_dough():
    env = rewarped_sim.make("rolling_flat_small", requires_grad=False, randomize=False)
    at_rest, _ = rest(env, 60)
    env.reset()
    with torch.no_grad():
        for _ in range(60):
            pressed = env.step(torch.tensor([[0.0, -1.0, 0.0]])).reward[0].item()
    assert pressed > at_rest[-1] * 1.05
