"""Hopper: what is observed and rewarded, where episodes begin and end."""

import math

import pytest
import torch

import rewarped_sim


def make(**options):
    return rewarped_sim.make("hopper", requires_grad=False, **options)


def state_of(q, qd=(0.0,) * 6):
    return {"joint_q": torch.tensor([q]), "joint_qd": torch.tensor([qd])}


def test_observation_is_everything_but_the_way():
    env = make()
    q, qd = (9.0, 0.1, 0.2, 0.3, 0.4, 0.5), (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    obs = env.task.observe(state_of(q, qd), torch.zeros(1, 3))
    assert sum(term.size for term in env.obs_spec) == 11
    flat = torch.cat([obs[term.name][0] for term in env.obs_spec]).tolist()
    assert flat == pytest.approx([*q[1:], *qd])


@pytest.mark.parametrize(
    ("height", "earned"),
    [(0.5, 0.3), (-0.1, 0.2), (-0.30, 0.0), (-0.40, -200.0 * 0.01), (-2.0, -200.0)],
)
def test_height_is_worth_little_above_a_crouch_and_costs_much_below(height, earned):
    env = make()
    terms = env.task.reward(state_of((0.0, height, 0.0, 0.0, 0.0, 0.0)), torch.zeros(1, 3))
    assert float(terms["height"]) == pytest.approx(earned, abs=1e-5)


def test_reward_terms_are_the_published_ones():
    env = make()
    state = state_of((0.0, 0.0, math.pi / 12.0, 0.0, 0.0, 0.0), (2.5, 0.0, 0.0, 0.0, 0.0, 0.0))
    terms = env.task.reward(state, torch.tensor([[1.0, -1.0, 0.5]]))
    assert {name: float(value) for name, value in terms.items()} == {
        "speed": 2.5,
        "height": pytest.approx(0.3),
        "upright": pytest.approx(0.75),
        "effort": pytest.approx(-0.225),
    }


def test_a_fallen_torso_ends_the_episode():
    env = make(num_envs=2)
    q = torch.zeros(2, 6)
    q[:, 1] = torch.tensor([-0.451, -0.449])
    assert env.task.terminated({"joint_q": q, "joint_qd": torch.zeros(2, 6)}).tolist() == [True, False]


def test_starts_vary_as_published():
    env = make(num_envs=512)
    for values in env.state.values():
        assert values.abs().amax(dim=0).tolist() == [pytest.approx(0.05, rel=0.03)] * 6


def test_torques_move_the_leg_and_not_the_root():
    env = make()
    joint_f = env.task.control(env.state, torch.tensor([[1.0, -0.5, 0.25]]))["joint_f"]
    assert joint_f[0].tolist() == [0.0, 0.0, 0.0, 200.0, -100.0, 50.0]


def test_upright_it_stands_on_its_foot():
    """At joint position zero the torso's centre is at 1.25 m, the foot's lower side at 0.04 m."""
    env = make(randomize=False)
    scene = env.scene(0)
    torso = next(shape for shape in scene.shapes if shape.name.startswith("torso"))
    foot = next(shape for shape in scene.shapes if shape.name.startswith("foot"))
    assert torso.position.tolist() == pytest.approx([0.0, 0.0, 1.25])
    assert foot.position[2] - foot.size[0] == pytest.approx(0.04, abs=1e-6)
