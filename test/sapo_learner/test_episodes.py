import math

import torch

from sapo_learner.episodes import EpisodeStatistics


def test_returns_and_lengths_are_those_of_the_finished_episodes_across_windows():
    statistics = EpisodeStatistics(2, window=100)
    reward = torch.tensor([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
    statistics.update(reward, torch.tensor([[False, False], [True, False], [False, False]]))
    assert statistics.summary() == {"return": 3.0, "episode_length": 2.0, "episodes": 1.0}
    statistics.update(reward, torch.tensor([[True, True], [False, False], [False, False]]))
    # env 0: 1+2, then 4+1; env 1: 10+20+40+10
    assert statistics.summary() == {
        "return": (3 + 5 + 80) / 3,
        "episode_length": (2 + 2 + 4) / 3,
        "episodes": 3.0,
    }


def test_before_the_first_episode_has_finished_there_is_no_return():
    statistics = EpisodeStatistics(2, window=100)
    statistics.update(torch.ones(5, 2), torch.zeros(5, 2, dtype=torch.bool))
    summary = statistics.summary()
    assert (
        math.isnan(summary["return"]) and math.isnan(summary["episode_length"]) and summary["episodes"] == 0.0
    )


def test_only_the_last_episodes_count():
    statistics = EpisodeStatistics(1, window=2)
    statistics.update(torch.tensor([[1.0], [2.0], [3.0]]), torch.ones(3, 1, dtype=torch.bool))
    assert statistics.summary() == {"return": 2.5, "episode_length": 1.0, "episodes": 3.0}


def test_statistics_go_on_where_they_were_saved():
    reward = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    done = torch.rand(20, 3, generator=torch.Generator().manual_seed(1)) < 0.2
    first, second = EpisodeStatistics(3, window=100), EpisodeStatistics(3, window=100)
    first.update(reward, done)
    second.load_state_dict(first.state_dict())
    for statistics in (first, second):
        statistics.update(reward, done)
    assert first.summary() == second.summary()
