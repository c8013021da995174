"""Humanoid: what is observed and rewarded, where episodes begin and end."""

import pytest
import torch
from legged import make, with_torso

from rewarped_sim.tasks.humanoid import STRENGTH_NM


def test_observation_has_the_published_size():
    env = make("humanoid")
    assert sum(term.size for term in env.obs_spec) == 76
    assert env.action_dim == 21


def test_velocity_is_that_of_the_centre_of_mass():
    """The torso's centre of mass lies off its origin, so spin moves it."""
    env = make("humanoid")
    com = torch.tensor(env.task.tree.link_mass[1].com, dtype=torch.float32)
    spin = torch.tensor([0.0, 2.0, 0.0])
    obs = env.task.observe(
        with_torso(env, spin=(0.0, 2.0, 0.0), velocity=(1.0, 0.0, 0.0)), torch.zeros(1, 21)
    )
    expected = torch.tensor([1.0, 0.0, 0.0]) + torch.linalg.cross(spin, com)
    assert com.norm() > 1e-3
    assert obs["torso_velocity"][0].tolist() == pytest.approx(expected.tolist())


@pytest.mark.parametrize(
    ("height", "earned"), [(1.35, 1.0), (0.94, 1.0), (0.89, 0.5), (0.84, 0.0), (0.79, -0.5)]
)
def test_height_is_worth_up_to_one(height, earned):
    env = make("humanoid")
    terms = env.task.reward(with_torso(env, position=(0.0, 0.0, height)), torch.zeros(1, 21))
    assert float(terms["height"]) == pytest.approx(earned, abs=1e-4)


def test_reward_terms_are_the_published_ones():
    env = make("humanoid")
    action = torch.zeros(1, 21)
    action[0, :3] = torch.tensor([1.0, -1.0, 0.5])
    terms = env.task.reward(with_torso(env, position=(0, 0, 1.0), velocity=(3.0, 0.0, 0.0)), action)
    assert {name: float(value) for name, value in terms.items()} == {
        "speed": 3.0,
        "up": pytest.approx(0.1),
        "heading": 1.0,
        "height": pytest.approx(1.0),
        "effort": pytest.approx(-0.0045),
    }


def test_torques_are_the_published_ones():
    assert [round(torque) for torque in STRENGTH_NM] == [
        70, 70, 70, 70, 70, 210, 140, 35, 35, 70, 70, 210, 140, 35, 35, 35, 35, 70, 35, 35, 70,
    ]  # fmt: skip


def test_a_low_torso_ends_the_episode():
    env = make("humanoid", num_envs=2)
    state = with_torso(env)
    state["joint_q"][:, 2] = torch.tensor([0.739, 0.741])
    assert env.task.terminated(state).tolist() == [True, False]


def test_limp_it_falls():
    env = make("humanoid", randomize=False)
    env.reset()
    with torch.no_grad():
        fallen = [bool(env.step(torch.zeros(1, 21)).terminated) for _ in range(120)]
    assert any(fallen)
    assert not any(fallen[:20])
    assert env.nonfinite.sum() == 0
