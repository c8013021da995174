"""FluidMove against the published definition and the reference rollouts measured on the published simulator."""

import math

import numpy as np
import pytest
import torch

import rewarped_sim
from rewarped_sim.tasks.fluid_move import BOX_HALF, BOX_START


def play(env, steps, action=None):
    """Rewards (steps, num_envs) and the last result; do nothing unless told."""
    rewards = []
    with torch.no_grad():
        for _ in range(steps):
            result = env.step(torch.zeros(env.num_envs, 3) if action is None else action)
            rewards.append(result.reward)
    return torch.stack(rewards), result


def test_doing_nothing_reproduces_the_reference_rollout_within_one_percent():
    env = rewarped_sim.make("fluid_move", requires_grad=False, randomize=False)
    env.reset()
    first, _ = play(env, 1)
    assert first.item() == pytest.approx(0.19996, abs=1e-5)
    assert env.joint_q[0].tolist() == pytest.approx([0.5, 0.5, 0.16])
    others, result = play(env, 299)
    assert first.item() + others.sum().item() == pytest.approx(59.99, rel=0.01)
    assert result.terminal_obs["com_q"][0, 2].item() == pytest.approx(0.1111, rel=0.01)


def test_doing_nothing_for_random_targets_earns_what_the_reference_does():
    # The box stands still and nothing is spilled, so the first reward is that of every step. Six targets were measured.
    env = rewarped_sim.make("fluid_move_small", num_envs=500, requires_grad=False, num_threads=2)
    env.reset()
    returns = 300.0 * play(env, 1)[0][0]
    measured = torch.tensor([25.9, 28.2, 26.3, 29.2, 27.5, 27.0])
    assert abs(returns.mean() - measured.mean()) < 2.0 * measured.std() / math.sqrt(6)
    assert returns.std() == pytest.approx(measured.std().item(), rel=0.6)


def test_targets_are_drawn_from_the_published_box():
    env = rewarped_sim.make("fluid_move_small", num_envs=500, requires_grad=False, num_threads=1)
    way = env.reset()["target_q"].double() - torch.tensor(BOX_START, dtype=torch.float64)
    assert (way.amin(0) >= torch.tensor([-0.2, -0.2, 0.0]) - 1e-6).all()
    assert (way.amax(0) <= torch.tensor([0.2, 0.2, 0.3]) + 1e-6).all()
    assert (way.amax(0) - way.amin(0) > torch.tensor([0.38, 0.38, 0.28])).all()
    torch.testing.assert_close(way * 1000, (way * 1000).round(), atol=1e-3, rtol=0.0)
    particles = env.state_dict()["x"]
    assert torch.equal(particles[0], particles[-1]), "only the target varies"


def test_the_target_stays_for_an_episode_and_changes_with_the_next():
    env = rewarped_sim.make("fluid_move_small", num_envs=2, requires_grad=False, max_episode_steps=3)
    target = env.reset()["target_q"]
    _, result = play(env, 3)
    assert torch.equal(result.terminal_obs["target_q"], target)
    assert (result.obs["target_q"] != target).any(dim=1).all()


def test_reward_is_nearness_to_the_target_less_what_is_outside_of_the_box():
    env = rewarped_sim.make("fluid_move_small", num_envs=4, requires_grad=False)
    env.reset()
    state = env.state_dict()
    points = state["x"][:, ::2][:, :250]  # every second of 640 is observed
    points[1, :25, 2] += 0.3  # a tenth of them thrown out
    points[2, :50, 1] -= 0.3
    state["target"][3] = torch.tensor([0.5, 0.515, 0.16])  # within 2 cm of where the box will be
    env.load_state_dict(state)
    _, result = play(env, 1)
    obs = {name: value.double().numpy() for name, value in result.terminal_obs.items()}
    d = np.linalg.norm(obs["joint_q"] - obs["target_q"], axis=1)
    near = 0.1 * (1 / (1 + d**2)) ** 2 * np.where(d <= 0.02, 2, 1)
    outside = (np.abs(obs["particle_q"] - obs["joint_q"][:, None]) > BOX_HALF).any(axis=2).mean(axis=1)
    np.testing.assert_allclose(result.info["reward/near"].numpy(), near, rtol=1e-5)
    np.testing.assert_allclose(-result.info["reward/spill"].numpy(), outside, atol=1e-6)
    np.testing.assert_allclose(result.reward.numpy(), near - outside, atol=1e-6)
    assert outside.tolist() == [0.0, 0.1, 0.2, 0.0]
    assert near[3] > 0.19


def test_the_spill_term_stays_finite_at_any_distance():
    env = rewarped_sim.make("fluid_move_small", requires_grad=False, randomize=False)
    env.reset()
    particles = torch.zeros(1, 640, 24)
    particles[0, :, 0] = torch.linspace(-5.0, 5.0, 640)
    particles[0, 320, :3] = torch.tensor(BOX_START) + torch.tensor(
        [BOX_HALF[0], 0.0, 0.0]
    )  # right on the edge
    particles.requires_grad_()
    state = {
        "particles": particles,
        "joint_q": torch.tensor([BOX_START]),
        "target": torch.tensor([BOX_START]),
    }
    spill = env.task.reward(state, torch.zeros(1, 3))["spill"]
    (gradient,) = torch.autograd.grad(spill.sum(), particles)
    assert -1.0 <= spill.item() < -0.5
    assert torch.isfinite(gradient).all()
    assert gradient[0, 320, 0] < 0.0, "moving out costs"


def test_the_box_starts_below_its_limit_and_is_lifted_whatever_the_action():
    env = rewarped_sim.make("fluid_move_small", requires_grad=False)
    env.reset()
    assert env.joint_q[0, 2].item() == pytest.approx(0.15)
    assert env.task.action.lower == (0.18, 0.22, 0.15), "a runner must find the robot within its limits"
    play(env, 1, torch.tensor([[0.0, 0.0, -1.0]]))
    assert env.joint_q[0, 2].item() == pytest.approx(0.16)


def test_the_box_moves_a_centimetre_a_step_and_stops_at_its_limits():
    env = rewarped_sim.make("fluid_move_small", requires_grad=False)
    env.reset()
    play(env, 1, torch.tensor([[1.0, -0.5, 1.0]]))
    assert env.joint_q[0].tolist() == pytest.approx([0.51, 0.495, 0.16])
    play(env, 80, torch.ones(1, 3))
    assert env.joint_q[0].tolist() == pytest.approx([0.82, 0.78, 0.84])


def test_the_box_has_the_published_cavity():
    env = rewarped_sim.make("fluid_move_small", requires_grad=False)
    env.reset()
    walls = {shape.name: shape for shape in env.scene().shapes}
    position = {name: np.subtract(walls[name].position, BOX_START) for name in walls}

    def inner(name, axis, side):
        return position[name][axis] + side * walls[name].size[axis]

    np.testing.assert_allclose(inner("right", 0, -1) - inner("left", 0, 1), 0.18, atol=1e-6)
    np.testing.assert_allclose(inner("back", 1, -1) - inner("front", 1, 1), 0.22, atol=1e-6)
    np.testing.assert_allclose(inner("bottom", 2, 1), -0.08, atol=1e-6)
    for name in ("left", "right", "back", "front"):
        np.testing.assert_allclose(inner(name, 2, 1), 0.08, atol=1e-6)
    np.testing.assert_allclose(walls["target"].position, env.state_dict()["target"][0], atol=1e-6)
    assert walls["floor"].position[2] == pytest.approx(3 / 40)


@pytest.mark.parametrize("task", ["fluid_move", "fluid_move_small"])
def test_the_box_carries_its_fluid_to_the_target(task):
    env = rewarped_sim.make(task, requires_grad=False, seed=3)
    obs = env.reset()
    spilled = 0.0
    with torch.no_grad():
        for step in range(120):
            eager = min(1.0, step / 40)
            result = env.step((5.0 * eager * (obs["target_q"] - obs["joint_q"])).clamp(-1.0, 1.0))
            obs, spilled = result.obs, spilled - result.info["reward/spill"].item()
    assert result.reward.item() == pytest.approx(0.2, abs=1e-3)
    assert spilled < 0.01
    assert obs["com_q"][0, 2] > obs["joint_q"][0, 2] - 0.08, "the fluid is above the floor of the box"
