import io
from types import SimpleNamespace

from rewarped_sim.evaluation_progress import EvaluationProgress

ENV = SimpleNamespace(max_episode_steps=10)


def steps(progress, count):
    for _ in range(count):
        progress.on_step(ENV, SimpleNamespace())


def test_the_time_left_is_told_from_the_share_of_steps_done_at_most():
    progress = EvaluationProgress(2, episodes_per_env=5)  # two agents, 50 steps each at most
    progress.begin("deterministic")
    progress.on_step(ENV, None)  # a reset
    steps(progress, 25)
    assert progress.describe(30.0) == "25 %, at most 01:30 left"


def test_an_agent_whose_episodes_ended_early_counts_as_done_and_none_as_more_than_done():
    progress = EvaluationProgress(4, episodes_per_env=1)
    progress.begin("deterministic")
    steps(progress, 2)
    progress.end()
    assert progress.describe(10.0) == "25 %, at most 00:30 left"
    progress.begin("stochastic")
    steps(progress, 30)
    assert progress.describe(10.0) == "50 %, at most 00:10 left"


def test_lines_name_the_agent():
    stream = io.StringIO()
    progress = EvaluationProgress(1, episodes_per_env=1, stream=stream, line_every_s=0.0)
    progress.begin("do_nothing")
    steps(progress, 5)
    assert stream.getvalue().splitlines()[-1].startswith("evaluation, do_nothing: 50 %, at most ")
