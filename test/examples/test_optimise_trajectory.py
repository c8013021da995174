"""Open-loop optimisation: all candidates start alike, the best is never lost, and it is better than the first guess."""

import pytest
import torch

import rewarped_sim
from examples.optimise_trajectory import film, optimise, same_start, slow_motions


def test_every_candidate_starts_from_the_same_state():
    env = rewarped_sim.make("spring_press", num_envs=3, horizon=2)
    state = same_start(env)
    for value in state.values():
        if isinstance(value, torch.Tensor):
            assert (value == value[:1]).all()


def test_the_first_candidate_stays_still_and_the_others_move_steadily():
    motions = slow_motions(5, 4, 3, 0.5, seed=1)
    assert (motions[:, 0] == 0).all()
    assert (motions == motions[:1]).all()
    assert 0 < motions.abs().max() <= 0.5


def test_every_candidate_climbs():
    steps = 20
    env = rewarped_sim.make("spring_press", num_envs=2, horizon=steps, num_threads=1)
    first = torch.zeros(steps, 2, 3)
    first[:, 1, 2] = -0.4
    best, returns = optimise(env, first, iterations=6, learning_rate=0.03, max_grad_norm=1.0)
    assert returns.shape == (7, 2)
    assert returns.max() > returns[0].max() + 0.1
    assert (returns[-1] > returns[0]).all(), "each by itself"
    recording = film(env, env.state_dict(), best, "best")
    assert len(recording.scenes) == steps + 1
    assert float(recording.captions[-1].split()[-1]) == pytest.approx(returns.max().item(), abs=0.1)
