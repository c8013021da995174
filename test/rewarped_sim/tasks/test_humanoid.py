"""Humanoid: what is observed and rewarded, where episodes begin and end."""

import math

import numpy as np
import pytest
import torch
from legged import make, with_torso

from rewarped_sim.tasks.humanoid import STRENGTH_NM


def torso_com():
    """x and z, of two capsules across and a head of the published sizes."""
    volumes, xs, zs = [4.0 / 3.0 * math.pi * 0.09**3], [0.0], [0.19]
    for radius, x, z in ((0.07, 0.0, 0.0), (0.06, -0.01, -0.12)):
        # As long as they are wide: half the core's length is the radius.
        volumes.append(math.pi * radius**2 * (2.0 * radius + 4.0 / 3.0 * radius))
        xs.append(x)
        zs.append(z)
    return np.dot(volumes, xs) / sum(volumes), np.dot(volumes, zs) / sum(volumes)


def test_observation_has_the_published_layout_and_shows_the_state():
    env = make("humanoid")
    tilt, spin = 0.4, (0.3, -2.0, 0.5)
    nose_down = (0.0, math.sin(tilt / 2.0), 0.0, math.cos(tilt / 2.0))
    angles, rates = torch.linspace(-0.4, 0.6, 21), torch.linspace(-3.0, 2.0, 21)
    state = with_torso(env, position=(3, 1, 1.2), quaternion=nose_down, velocity=(0.5, -0.6, 0.7), spin=spin)
    state["joint_q"][0, 7:], state["joint_qd"][0, 6:] = angles, rates
    action = torch.linspace(-1.0, 1.0, 21)[None]
    obs = env.task.observe(state, action)
    x, z = torso_com()
    lever = (x * math.cos(tilt) + z * math.sin(tilt), 0.0, z * math.cos(tilt) - x * math.sin(tilt))
    velocity = np.array((0.5, -0.6, 0.7)) + np.cross(spin, lever)
    expected = [
        *(1.2, *nose_down, *velocity, *spin, *angles, *(0.1 * rates), math.cos(tilt), math.cos(tilt), *action[0])
    ]  # fmt: skip
    assert len(expected) == 76
    seen = torch.cat([obs[term.name][0] for term in env.obs_spec])
    assert seen.tolist() == pytest.approx([float(value) for value in expected], abs=1e-5)


def test_starts_vary_the_velocity_of_the_centre_of_mass():
    env = make("humanoid", num_envs=256)
    obs = env.reset()
    velocity = torch.cat((obs["torso_velocity"], obs["torso_angular_velocity"]), dim=1)
    assert velocity.abs().amax(dim=0).tolist() == [pytest.approx(0.25, rel=0.03)] * 6
    # The origin moves otherwise where the torso turns.
    assert (env.state["joint_qd"][:, :3] - obs["torso_velocity"]).abs().max() > 0.003


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
