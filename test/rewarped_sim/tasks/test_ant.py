"""Ant: what is observed and rewarded, where episodes begin and end, and the published rollout."""

import pytest
import torch
from legged import HALF, make, roll_out, with_torso

ZERO = torch.zeros(1, 8)


def test_observation_has_the_published_layout():
    env = make("ant_run")
    layout = [(term.name, term.size, term.scale) for term in env.obs_spec]
    assert layout == [
        ("torso_height", 1, 1.0),
        ("torso_orientation", 4, 1.0),
        ("torso_velocity", 3, 1.0),
        ("torso_angular_velocity", 3, 1.0),
        ("joint_position", 8, 1.0),
        ("joint_velocity", 8, 0.1),
        ("up", 1, 1.0),
        ("heading", 1, 1.0),
        ("previous_action", 8, 1.0),
    ]
    assert sum(size for _, size, _ in layout) == 37


def test_observation_shows_the_state():
    env = make("ant")
    state = with_torso(env, position=(5.0, 1.0, 0.6), velocity=(1.0, 2.0, 3.0), spin=(0.4, 0.5, 0.6))
    state["joint_q"][0, 7:] = torch.arange(8) / 10.0
    state["joint_qd"][0, 6:] = torch.arange(8.0)
    obs = env.task.observe(state, torch.full((1, 8), 0.25))
    assert float(obs["torso_height"]) == pytest.approx(0.6)
    assert obs["torso_velocity"][0].tolist() == pytest.approx(
        [1.0, 2.0, 3.0]
    )  # the centre of mass is the origin
    assert obs["torso_angular_velocity"][0].tolist() == pytest.approx([0.4, 0.5, 0.6])
    assert obs["joint_position"][0].tolist() == pytest.approx([i / 10.0 for i in range(8)])
    assert obs["joint_velocity"][0].tolist() == pytest.approx([i / 10.0 for i in range(8)])
    assert obs["previous_action"][0].tolist() == [0.25] * 8
    assert (float(obs["up"]), float(obs["heading"])) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("quaternion", "up", "heading"),
    [
        ((0.0, 0.0, HALF, HALF), 1.0, 0.0),  # turned left
        ((0.0, 0.0, 1.0, 0.0), 1.0, -1.0),  # turned round
        ((HALF, 0.0, 0.0, HALF), 0.0, 1.0),  # on its side
        ((0.0, 1.0, 0.0, 0.0), -1.0, -1.0),  # on its back, head over heels
    ],
)
def test_up_and_heading_follow_the_torso(quaternion, up, heading):
    env = make("ant")
    obs = env.task.observe(with_torso(env, quaternion=quaternion), ZERO)
    assert float(obs["up"]) == pytest.approx(up, abs=1e-6)
    assert float(obs["heading"]) == pytest.approx(heading, abs=1e-6)


def test_reward_terms_are_the_published_ones():
    env = make("ant")
    state = with_torso(
        env, position=(0.0, 0.0, 0.5), velocity=(2.0, 1.0, 0.0), quaternion=(0.0, 0.0, HALF, HALF)
    )
    terms = env.task.reward(state, torch.ones(1, 8))
    assert {name: pytest.approx(float(value), abs=1e-6) for name, value in terms.items()} == {
        "speed": 2.0,
        "up": 0.1,
        "heading": 0.0,
        "height": 0.23,
    }


def test_a_low_torso_ends_the_episode():
    env = make("ant", num_envs=2)
    state = with_torso(env)
    state["joint_q"][:, 2] = torch.tensor([0.269, 0.271])
    assert env.task.terminated(state).tolist() == [True, False]


def test_starts_vary_as_published():
    env = make("ant_run", num_envs=512)
    q, qd = env.state["joint_q"], env.state["joint_qd"]
    away = q[:, :3] - torch.tensor([0.0, 0.0, 0.75])
    bent = q[:, 7:] - torch.tensor([0.0, 1.0, 0.0, -1.0, 0.0, -1.0, 0.0, 1.0])
    angle = 2.0 * torch.acos(q[:, 6].clamp(max=1.0))
    for values, bound in ((away, 0.1), (bent, 0.2), (qd, 0.25)):
        assert values.abs().max() <= bound * 1.001
        assert values.abs().amax(dim=0).min() > 0.95 * bound
        assert values.mean(dim=0).abs().max() < 0.15 * bound
    assert angle.max() <= torch.pi / 24.0 + 1e-3
    assert angle.max() > 0.9 * torch.pi / 24.0
    assert torch.allclose(q[:, 3:7].norm(dim=1), torch.ones(512))
    axis = q[:, 3:6] / q[:, 3:6].norm(dim=1, keepdim=True)
    assert axis.mean(dim=0).abs().max() < 0.15
    assert axis.abs().mean(dim=0).min() > 0.35


def test_torques_are_scaled_and_reach_the_joints_only():
    env = make("ant")
    action = torch.linspace(-1.0, 1.0, 8)[None]
    joint_f = env.task.control(env.state, action)["joint_f"]
    assert joint_f[0, :6].tolist() == [0.0] * 6
    assert torch.allclose(joint_f[0, 6:], 200.0 * action[0])


def test_ant_run_meets_the_published_rollout():
    """Do nothing from the nominal start: figures measured on the published simulator, 1139.85 over 1000 steps."""
    env = make("ant_run", randomize=False)
    roll_out(env, 1)
    assert float(env.state["joint_qd"][0, 2]) == pytest.approx(-0.1635, abs=1e-4)
    rewards, heights = roll_out(env, 999)
    # Each ankle rests on the spring of its limit, 30 degrees.
    assert env.state["joint_q"][0, 8::2].abs().tolist() == pytest.approx([0.408] * 4, rel=0.01)
    rewards, heights = roll_out(env, 1000)
    assert heights[0] == pytest.approx(0.74855, abs=1e-5)
    assert heights[9] == pytest.approx(0.6129, abs=1e-4)
    assert heights[-1] == pytest.approx(0.2990, rel=0.01)
    assert rewards[-1] == pytest.approx(1.1295, rel=1e-3)
    assert sum(rewards) == pytest.approx(1139.85, rel=1e-3)


def test_random_starts_of_ant_run_earn_what_was_measured():
    """Do nothing: on the published simulator 15 of 16 stayed up, and earned 1085 on average, 1058 to 1132."""
    env = make("ant_run", num_envs=24)
    env.reset()
    standing, total = torch.ones(24, dtype=torch.bool), torch.zeros(24)
    with torch.no_grad():
        for _ in range(1000):
            result = env.step(torch.zeros(24, 8))
            total += result.reward
            standing &= ~result.terminated
    assert standing.float().mean() > 0.8
    assert float(total[standing].mean()) == pytest.approx(1085.0, rel=0.02)


def test_weight_and_damping_tell_the_two_ants_apart():
    heavy, light = make("ant").model, make("ant_run").model
    assert {joint.damping for joint in heavy.joints[1:]} == {11.0}
    assert {joint.damping for joint in light.joints[1:]} == {0.0}
    with pytest.raises(ValueError, match="model must be 'ant' or 'ant_run', got 'bee'"):
        make("ant", model="bee")
