"""HandFlip against the published definition and the reference rollout measured on the published simulator."""

import numpy as np
import pytest
import torch

import rewarped_sim
from rewarped_sim.registry import ConfigError
from rewarped_sim.tasks.hand_flip import HAND

FINGERS = ("FF", "MF", "RF", "LF")

# Centres of capsules in the default pose, measured on the published hand with y up: our (x, y, z) is its (x, 1 - z, y).
MEASURED = {
    "FFJ0": (0.4776, 0.2712, 0.7848),
    "MFJ0": (0.5518, 0.2697, 0.7780),
    "RFJ0": (0.6047, 0.2785, 0.7614),
    "LFJ0": (0.6681, 0.3008, 0.7262),
    "THJ0": (0.3676, 0.3276, 0.6491),
    "WRJ1": (0.5000, 0.2750, 0.3000),
}


def closing(env, strength=1.0):
    """Bend all four fingers, the knuckles fastest."""
    action = torch.zeros(env.num_envs, 24)
    for finger in FINGERS:
        for joint, share in (("J2", 0.5), ("J1", 0.3), ("J0", 0.3)):
            action[:, env.joint_names.index(finger + joint)] = share * strength
    return action


def play(env, action, steps):
    """Rewards (steps,) of the first env and the last result."""
    rewards = []
    with torch.no_grad():
        for _ in range(steps):
            result = env.step(action)
            rewards.append(result.reward[0].item())
    return rewards, result


def pair_distance(obs):
    """Mean distance between point i and point i + 125, per env, in float64."""
    points = obs["particle_q"].double().numpy()
    return np.linalg.norm(points[:, :125] - points[:, 125:], axis=2).mean(axis=1)


def test_the_hand_has_24_driven_joints_and_19_shapes():
    assert len(HAND.joints) == 24
    assert [shape.kind for shape in HAND.shapes].count("box") == 3
    assert [shape.kind for shape in HAND.shapes].count("capsule") == 16
    assert HAND.joint_names[:7] == ("WRJ1", "WRJ0", "FFJ3", "FFJ2", "FFJ1", "FFJ0", "MFJ3")
    assert HAND.joint_names[-5:] == ("THJ4", "THJ3", "THJ2", "THJ1", "THJ0")


def test_forward_kinematics_reproduces_the_measured_positions():
    env = rewarped_sim.make("hand_flip_small", requires_grad=False)
    env.reset()
    shapes = {shape.name: shape for shape in env.scene().shapes}
    for name, (x, y, z) in MEASURED.items():
        np.testing.assert_allclose(shapes[name].position, (x, 1.0 - z, y), atol=1e-3, err_msg=name)


def test_capsules_are_scaled_and_shortened_by_half_a_radius():
    sizes = {shape.name: shape.size for shape in HAND.shapes}
    assert sizes["FFJ2"] == pytest.approx((2.5 * 0.010, 2.5 * (0.0225 - 0.005)))
    assert sizes["THJ0"] == pytest.approx((2.5 * 0.00918, 2.5 * (0.013 - 0.00459)))
    assert sizes["palm"] == pytest.approx((2.5 * 0.032, 2.5 * 0.0111, 2.5 * 0.049))


def test_the_scene_shows_the_hand_where_the_dough_feels_it():
    env = rewarped_sim.make("hand_flip_small", requires_grad=False)
    env.reset()
    play(env, closing(env), 5)
    *hand, floor = env.scene().shapes
    with torch.no_grad():
        env.step(torch.zeros(1, 24))
    for shape, position in zip(hand, env._bridge.engine._solver._poses.pos.numpy()[:19], strict=True):
        np.testing.assert_allclose(shape.position, position, atol=1e-6)
    assert floor.position[2] == pytest.approx(3 / 32)


def test_the_disc_is_two_mirrored_halves_sorted_from_the_fold_outwards():
    env = rewarped_sim.make("hand_flip", requires_grad=False, randomize=False)
    env.reset()
    disc = env.state_dict()["x"][0].double().numpy() - (0.5, 0.4, 0.38)
    far, near = disc[:1250], disc[1250:]
    np.testing.assert_allclose(far * (1, -1, 1), near, atol=1e-6)
    assert (np.diff(near[:, 1]) > -1e-7).all()
    assert near[:, 1].min() >= 0.0
    assert np.hypot(disc[:, 0], disc[:, 1]).max() <= 0.1 + 1e-6
    assert np.abs(disc[:, 2]).max() <= 0.003 + 1e-6
    # Uniform over the disc: the mean squared distance from the middle is half the squared radius.
    assert (disc[:, :2] ** 2).sum(1).mean() == pytest.approx(0.005, rel=0.05)


def test_doing_nothing_reproduces_the_reference_rollout_within_five_percent():
    env = rewarped_sim.make("hand_flip", requires_grad=False, randomize=False)
    env.reset()
    rewards, result = play(env, torch.zeros(1, 24), 300)
    assert sum(rewards) == pytest.approx(3.66, rel=0.05)
    assert rewards[0] == pytest.approx(0.0, abs=1e-6)
    assert rewards[-1] == pytest.approx(0.0138, rel=0.05)
    assert result.terminal_obs["com_q"][0, 2].item() == pytest.approx(0.25, rel=0.02)


def test_closing_the_fingers_folds_the_disc():
    for task, expected in (("hand_flip", 0.2), ("hand_flip_small", 0.1)):
        env = rewarped_sim.make(task, requires_grad=False, randomize=False)
        env.reset()
        play(env, torch.zeros(1, 24), 40)
        rewards, result = play(env, closing(env), 120)
        assert rewards[-1] > expected
        assert result.terminal_obs["com_q"][0, 2] > 0.2, "the disc slipped through the fingers"


def test_the_small_preset_holds_the_disc():
    env = rewarped_sim.make("hand_flip_small", requires_grad=False, randomize=False)
    env.reset()
    _, result = play(env, torch.zeros(1, 24), 300)
    assert result.terminal_obs["com_q"][0, 2].item() == pytest.approx(0.26, abs=0.015)


def test_reward_is_how_much_closer_the_halves_are_than_at_the_start():
    env = rewarped_sim.make("hand_flip_small", num_envs=3, requires_grad=False)
    start = pair_distance(env.reset())
    _, result = play(env, closing(env), 60)
    now = pair_distance(result.terminal_obs)
    np.testing.assert_allclose(result.reward.numpy(), (start - now) / start, rtol=1e-4, atol=1e-6)
    assert result.info.keys() >= {"reward/fold"}


def test_a_new_episode_measures_against_its_own_start():
    env = rewarped_sim.make("hand_flip_small", num_envs=2, requires_grad=False, max_episode_steps=3)
    first = env.reset()
    _, result = play(env, torch.zeros(2, 24), 3)
    assert result.truncated.all()
    second = pair_distance(result.obs)
    assert (np.abs(second - pair_distance(first)) > 1e-4).all(), "sizes differ from episode to episode"
    _, result = play(env, torch.zeros(2, 24), 1)
    np.testing.assert_allclose(result.reward.numpy(), 0.0, atol=1e-5)


def test_starts_are_shifted_and_scaled_as_published():
    nominal = rewarped_sim.make("hand_flip_small", randomize=False, requires_grad=False)
    nominal.reset()
    disc = nominal.state_dict()["x"][0].double()
    env = rewarped_sim.make("hand_flip_small", num_envs=200, requires_grad=False, num_threads=1)
    env.reset()
    started = env.state_dict()["x"].double()
    scale = (started[:, :, 0].amax(1) - started[:, :, 0].amin(1)) / (disc[:, 0].max() - disc[:, 0].min())
    assert 0.95 - 1e-5 <= scale.min() < 0.96
    assert 1.04 < scale.max() <= 1.05 + 1e-5
    corner = torch.tensor([0.0, 1.0, 0.0])
    shift = (corner + (started - corner) / scale[:, None, None] - disc).mean(dim=1)
    assert shift[:, :2].abs().max() <= 0.1 + 1e-5
    assert shift[:, 2].min() >= -1e-5
    assert shift[:, 2].max() <= 0.1 + 1e-5
    assert (shift.std(dim=0) > torch.tensor([0.05, 0.05, 0.025])).all()
    assert (env.joint_q == nominal.joint_q).all()


def test_joints_turn_by_0_0264_rad_a_step_and_stop_at_their_limits():
    env = rewarped_sim.make("hand_flip_small", requires_grad=False)
    env.reset()
    before = env.joint_q[0].clone()
    play(env, torch.full((1, 24), -1.0), 1)
    lower, upper = torch.tensor(env.task.action.lower), torch.tensor(env.task.action.upper)
    torch.testing.assert_close(env.joint_q[0], torch.maximum(before - 0.0264, lower))
    play(env, torch.full((1, 24), 1.0), 100)
    torch.testing.assert_close(env.joint_q[0], upper, atol=1e-5, rtol=0.0)


def test_particles_that_break_the_mirror_are_refused():
    with pytest.raises(ConfigError, match="multiple of 250"):
        rewarped_sim.make("hand_flip", num_particles=600)
