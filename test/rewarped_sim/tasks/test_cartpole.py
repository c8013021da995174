"""Cart-pole: what is observed and rewarded, where episodes begin, and the published rollout."""

import math

import pytest
import torch

import rewarped_sim


def make(**options):
    return rewarped_sim.make("cartpole", requires_grad=False, **options)


def state_of(x, angle, velocity, rate):
    return {"joint_q": torch.tensor([[x, angle]]), "joint_qd": torch.tensor([[velocity, rate]])}


def test_observation_shows_cart_and_pole():
    env = make()
    obs = env.task.observe(state_of(0.3, 0.5, -1.0, 2.0), torch.zeros(1, 1))
    assert [value[0].tolist() for value in obs.values()] == [
        [pytest.approx(0.3)],
        [-1.0],
        [pytest.approx(math.sin(0.5)), pytest.approx(math.cos(0.5))],
        [2.0],
    ]


def test_reward_counts_the_angle_within_half_a_turn():
    env = make()
    terms = env.task.reward(state_of(2.0, 1.5 * math.pi, 3.0, -4.0), torch.ones(1, 1))
    assert {name: float(value) for name, value in terms.items()} == {
        "upright": pytest.approx(-((0.5 * math.pi) ** 2), rel=1e-5),
        "pole_rest": pytest.approx(-1.6),
        "centred": pytest.approx(-0.2),
        "cart_rest": pytest.approx(-0.9),
    }


def test_starts_vary_as_published():
    env = make(num_envs=512)
    q, qd = env.state["joint_q"], env.state["joint_qd"]
    assert (q - torch.tensor([0.0, -math.pi])).abs().amax(dim=0).tolist() == [
        pytest.approx(math.pi / 2, rel=0.02)
    ] * 2
    assert qd.abs().amax(dim=0).tolist() == [pytest.approx(0.25, rel=0.02)] * 2


def test_hanging_earns_the_published_return():
    """Do nothing from rest: -240 pi^2 = -2368.71 over an episode of 240 steps."""
    env = make(randomize=False, damping=0.0)
    env.reset()
    with torch.no_grad():
        results = [env.step(torch.zeros(1, 1)) for _ in range(240)]
    assert sum(float(result.reward) for result in results) == pytest.approx(-2368.71, rel=1e-5)
    assert [bool(result.truncated) for result in results] == [False] * 239 + [True]


def test_force_pushes_cart_and_pole_as_their_masses_say():
    """50 kg and 2.5 kg with 1000 N: hanging straight, the pole lags behind."""
    env = make(randomize=False, damping=0.0)
    env.reset()
    obs = env.step(torch.ones(1, 1)).obs
    mass, length, inertia = 2.5, 0.5, 2.5 * (1.0 + 0.05**2) / 12.0
    share = (mass * length) ** 2 / (inertia + mass * length**2)
    expected = 1000.0 / (52.5 - share) / 60.0
    assert float(obs["cart_velocity"]) == pytest.approx(expected, rel=1e-3)
    # Hanging, the hinge's axis points so that a push forward swings the pole's angle up.
    assert float(obs["pole_velocity"]) == pytest.approx(
        mass * length / (inertia + mass * length**2) * expected, rel=1e-3
    )
