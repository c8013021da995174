"""SoftJumper against the published definition and the reference rollouts measured on the published simulator."""

import numpy as np
import pytest
import torch

import rewarped_sim
from rewarped_sim.assets.soft_table import soft_table


def rest(env, steps):
    """Zero action; rewards (steps, num_envs), heights of the mean vertex likewise."""
    env.reset()
    rewards, heights = [], []
    with torch.no_grad():
        for _ in range(steps):
            result = env.step(torch.zeros(env.num_envs, 222))
            rewards.append(result.reward)
            heights.append(10.0 * result.terminal_obs["com_q"][:, 2])
    return torch.stack(rewards), torch.stack(heights)


def test_doing_nothing_reproduces_the_reference_rollout():
    env = rewarped_sim.make("soft_jumper", requires_grad=False, randomize=False)
    rewards, heights = rest(env, 300)
    assert rewards[0].item() == pytest.approx(-0.0041, abs=5e-5)
    assert rewards[9].item() == pytest.approx(-0.4089, rel=0.002)
    assert rewards[-1].item() == pytest.approx(-0.735, rel=0.01)
    # How the published body is cut into tetrahedra is not known. It decides how far the body creeps along x, which
    # alone is worth -9 to +9: the other ways to run the diagonals of the same mesh give -166 to -192.
    assert rewards.sum().item() == pytest.approx(-187.88, rel=0.02)
    settled = heights[200:]
    assert 1.06 < settled.min() < settled.max() < 1.25


def test_random_starts_return_what_the_reference_does():
    env = rewarped_sim.make("soft_jumper", num_envs=16, requires_grad=False)
    returns = rest(env, 300)[0].sum(dim=0)
    # Measured from 8 starts: mean -158.9, -191 to -83.
    assert returns.mean().item() == pytest.approx(-158.9, abs=15.0)
    assert returns.min() > -200.0 and returns.max() < -80.0


def test_half_the_substeps_on_a_smooth_ground_move_the_body_the_same_way():
    heights = {
        substeps: rest(
            rewarped_sim.make(
                "soft_jumper", requires_grad=False, randomize=False, num_substeps=substeps, contact=contact
            ),
            120,
        )[1]
        for substeps, contact in ((80, "published"), (40, "regularized"))
    }
    apart = (heights[80] - heights[40]).abs()
    assert heights[80].min() < 1.05
    assert apart.max() < 0.01


def test_reward_is_the_published_formula():
    env = rewarped_sim.make("soft_jumper", num_envs=3, requires_grad=False)
    env.reset()
    action = 2.0 * torch.rand(3, 222) - 1.0
    with torch.no_grad():
        result = env.step(action)
    obs = {name: value.double().numpy() for name, value in result.terminal_obs.items()}
    expected = 10.0 * obs["com_qd"][:, 0] + 30.0 * (obs["com_q"][:, 2] - 0.13748)
    expected -= 0.001 * (action.double().numpy() ** 2).sum(axis=1)
    np.testing.assert_allclose(result.reward.numpy(), expected, atol=1e-3)


def test_a_policy_sees_all_vertices_and_the_action_at_a_tenth_of_their_size():
    env = rewarped_sim.make("soft_jumper", num_envs=2, requires_grad=False)
    env.reset()
    action = torch.rand(2, 222) * 4.0 - 2.0
    obs = env.step(action).obs
    vertices = env.state["vertices"]
    torch.testing.assert_close(obs["particle_q"], 0.1 * vertices[..., :3])
    torch.testing.assert_close(obs["com_q"], 0.1 * vertices[..., :3].mean(dim=1))
    torch.testing.assert_close(obs["com_qd"], 0.1 * vertices[..., 3:].mean(dim=1))
    torch.testing.assert_close(obs["actions"], action.clamp(-1.0, 1.0))
    sizes = {term.name: term.size for term in env.obs_spec}
    assert sizes == {"com_q": 3, "com_qd": 3, "actions": 222, "particle_q": 612}


def test_the_small_task_shows_every_fourth_vertex():
    env = rewarped_sim.make("soft_jumper_small", requires_grad=False)
    obs = env.reset()
    torch.testing.assert_close(obs["particle_q"], 0.1 * env.state["vertices"][:, ::4, :3])
    torch.testing.assert_close(obs["com_q"], obs["particle_q"].mean(dim=1))


def test_an_action_shrinks_its_own_two_tetrahedra():
    env = rewarped_sim.make("soft_jumper_small", num_envs=2, requires_grad=False, randomize=False)
    env.reset()
    action = torch.zeros(2, 222)
    action[1, 17] = 1.0
    env.step(action)
    tets = soft_table().tets[34:36].tolist()
    corners = env.state["vertices"][..., :3][:, tets]
    volumes = torch.linalg.det(corners[:, :, 1:] - corners[:, :, :1]) / 6.0
    assert (volumes[1] < 0.99 * volumes[0]).all()


def test_starts_are_shifted_and_scaled_as_published():
    env = rewarped_sim.make("soft_jumper", num_envs=256, requires_grad=False, num_threads=1)
    env.reset()
    started = env.state["vertices"].double().numpy()
    nominal = soft_table().vertices + np.array([0.0, 0.0, 0.2])
    scale = np.ptp(started[..., 0], axis=1) / np.ptp(nominal[:, 0])
    shift = (started[..., :3] / scale[:, None, None] - nominal).mean(axis=1)
    assert 0.9 - 1e-6 <= scale.min() < 0.91 and 1.09 < scale.max() <= 1.1 + 1e-6
    for axis, (low, high) in enumerate(((-0.8, 0.8), (-0.8, 0.8), (0.0, 0.4))):
        edge = 0.04 * (high - low)
        assert low - 1e-5 <= shift[:, axis].min() < low + edge
        assert high - edge < shift[:, axis].max() <= high + 1e-5
    assert not started[..., 3:].any()


def test_an_episode_lasts_five_seconds():
    env = rewarped_sim.make("soft_jumper", requires_grad=False)
    assert env.max_episode_steps * env.control_dt_s == pytest.approx(5.0)
    env = rewarped_sim.make("soft_jumper_small", requires_grad=False, max_episode_steps=2)
    env.reset()
    ends = [env.step(torch.zeros(1, 222)) for _ in range(2)]
    assert [bool(end.truncated) for end in ends] == [False, True]
    assert not any(bool(end.terminated) for end in ends)


def test_the_scene_shows_the_skin_and_the_floor():
    env = rewarped_sim.make("soft_jumper", requires_grad=False, randomize=False)
    env.reset()
    scene = env.scene()
    (skin,) = scene.surfaces
    assert skin.vertices.shape == (204, 3) and skin.triangles.shape == (404, 3)
    assert [shape.kind for shape in scene.shapes] == ["plane"]
    assert (skin.vertices.min(axis=0) >= scene.bounds_min).all()
    assert (skin.vertices.max(axis=0) <= scene.bounds_max).all()


@pytest.mark.parametrize("storage", ["store", "recompute"])
def test_action_gradients_on_the_ground_equal_differences(storage):
    env = rewarped_sim.make(
        "soft_jumper", num_envs=2, horizon=3, randomize=False, contact="regularized", storage=storage
    )
    env.reset()
    generator = torch.Generator().manual_seed(0)
    action = 0.5 * (2.0 * torch.rand(2, 222, generator=generator) - 1.0)
    with torch.no_grad():
        for _ in range(20):  # the legs are in the ground after eleven steps
            env.step(action)
    assert (env.state["vertices"][..., 2] < 0.05).any(dim=1).all()
    start = env.state_dict()

    def total(actions):
        env.load_state_dict(start)
        return torch.stack([env.step(one).reward for one in actions.unbind()]).sum()

    actions = action.repeat(3, 1, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(total(actions), actions)
    assert (gradient.flatten(2).norm(dim=2) > 0.0).all()
    direction, eps = gradient / gradient.norm(), 0.5
    with torch.no_grad():
        difference = (total(actions + eps * direction) - total(actions - eps * direction)) / (2.0 * eps)
    assert difference.item() == pytest.approx(gradient.norm().item(), rel=0.01)


def test_a_setting_that_cannot_be_is_refused_by_name():
    from rewarped_sim.registry import ConfigError

    with pytest.raises(ConfigError, match=r"contact must be one of \['published', 'regularized'\]"):
        rewarped_sim.make("soft_jumper", contact="sticky")
    with pytest.raises(ConfigError, match=r"num_points must be in \[1, 204\], got 300"):
        rewarped_sim.make("soft_jumper", num_points=300)
    with pytest.raises(ValueError, match="a soft body's constants have no gradients"):
        rewarped_sim.make("soft_jumper", parameter_gradient=True)
