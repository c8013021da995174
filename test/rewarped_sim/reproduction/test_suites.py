import math

import pytest

from rewarped_sim.registry import ConfigError, UnknownTaskError
from rewarped_sim.reproduction import published
from rewarped_sim.reproduction.suites import SUITES, plan
from sapo_learner.algorithms import NAMES


def jobs_of(tmp_path, suite="cpu", **choices):
    return {job.name: job for job in plan(suite, out_dir=tmp_path, **choices)}


@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_can_be_planned_and_every_job_has_a_folder_of_its_own(tmp_path, suite):
    jobs = jobs_of(tmp_path, suite)
    counts = (SUITES[suite].tasks, SUITES[suite].algorithms, SUITES[suite].variations)
    assert len(jobs) == 3 * math.prod(map(len, counts))
    assert len({job.config.out_dir for job in jobs.values()}) == len(jobs)
    assert all(job.config.out_dir == str(tmp_path / suite / name) for name, job in jobs.items())


@pytest.mark.parametrize("suite", ["paper", "dflex"])
def test_published_suites_take_the_published_env_steps(tmp_path, suite):
    """Within 3 %: a run ends with a whole epoch, and published steps are rounded."""
    for job in plan(suite, algorithms=["sapo", "shac", "ppo"], seeds=[0], out_dir=tmp_path):
        assert job.env_steps == pytest.approx(published.STEPS[job.config.task], rel=0.03)


def test_trajopt_goes_through_an_episode_fifty_times_in_sixteen_envs(tmp_path):
    job = jobs_of(tmp_path, "paper", tasks=["rolling_flat"], algorithms=["trajopt"])["rolling_flat_trajopt_0"]
    assert (job.config.num_envs, job.config.epochs) == (16, 50 * 10)  # 300 steps in windows of 32
    assert job.eval_num_envs == 32


def test_a_scaled_budget_plans_fewer_epochs_and_remembers_the_full_ones(tmp_path):
    job = jobs_of(tmp_path, tasks=["hopper"], algorithms=["sapo"], budget_scale=0.25)["hopper_sapo_0"]
    assert (job.config.epochs, job.full_epochs) == (125, 500)
    assert job.env_steps == 125 * 64 * 32
    assert job.suite == "cpu_x0.25" and job.config.out_dir == str(tmp_path / "cpu_x0.25" / job.name)
    tiny = jobs_of(tmp_path, tasks=["hopper"], algorithms=["sapo"], budget_scale=1e-9)["hopper_sapo_0"]
    assert tiny.config.epochs == 1


def test_what_is_named_twice_is_planned_once(tmp_path):
    twice = {"tasks": ["hopper", "hopper"], "algorithms": ["sapo", "sapo"], "seeds": [0, 0]}
    assert [job.name for job in plan("cpu", out_dir=tmp_path, **twice)] == ["hopper_sapo_0"]


def test_first_seeds_come_first(tmp_path):
    jobs = plan("cpu", tasks=["cartpole", "hopper"], algorithms=["sapo"], seeds=[5, 7], out_dir=tmp_path)
    assert [job.name for job in jobs] == [
        "cartpole_sapo_5",
        "hopper_sapo_5",
        "cartpole_sapo_7",
        "hopper_sapo_7",
    ]


def test_a_sweep_over_envs_keeps_the_env_steps_and_the_starts_of_the_evaluation(tmp_path):
    jobs = jobs_of(tmp_path, "envs", tasks=["cartpole"], seeds=[0])
    assert {name: (job.config.num_envs, job.config.epochs) for name, job in jobs.items()} == {
        "cartpole_sapo_envs=16_0": (16, 1000),
        "cartpole_sapo_envs=32_0": (32, 500),
        "cartpole_sapo_envs=64_0": (64, 250),
        "cartpole_sapo_envs=128_0": (128, 125),
        "cartpole_sapo_envs=256_0": (256, 62),
    }
    assert {job.eval_num_envs for job in jobs.values()} == {64}


def test_a_sweep_over_settings_changes_these_alone(tmp_path):
    jobs = jobs_of(tmp_path, "entropy", tasks=["soft_jumper_small"], seeds=[0])
    config = jobs["soft_jumper_small_sapo_temperature=0.1,target=-0.25_0"].config
    (usual,) = plan("cpu", tasks=["soft_jumper_small"], algorithms=["sapo"], seeds=[0], out_dir=tmp_path)
    swept = {"initial_temperature": 0.1, "target_entropy_per_dim": -0.25}
    assert config.algo_options == {**usual.config.algo_options, **swept}
    assert (config.epochs, config.num_envs) == (usual.config.epochs, usual.config.num_envs)


def test_ablations_are_the_published_variations_and_nothing_that_is_beyond_them():
    entropy = ["sapo/no_soft_value", "sapo/no_entropy", "sapo/neither"]
    choices = ["sapo/free_std", "sapo/target_critic", "sapo/elu_adam"]
    assert sorted(SUITES["ablations"].algorithms) == sorted(["sapo", "shac", *entropy, *choices])


def test_variations_of_an_algorithm_keep_their_settings(tmp_path):
    jobs = jobs_of(tmp_path, "ablations", tasks=["cartpole"], seeds=[0])
    assert jobs["cartpole_sapo-neither_0"].config.algo_options["entropy_in_actor"] is False
    assert "entropy_in_actor" not in jobs["cartpole_sapo_0"].config.algo_options


@pytest.mark.parametrize(
    ("choices", "error", "message"),
    [
        ({"tasks": ["cartpol"]}, UnknownTaskError, "did you mean 'cartpole'"),
        ({"algorithms": ["sapoo"]}, ConfigError, "did you mean 'sapo'"),
        ({"budget_scale": math.inf}, ConfigError, "budget_scale must be > 0 and finite, got inf"),
        ({"budget_scale": 0.0}, ConfigError, "budget_scale must be > 0 and finite, got 0.0"),
        ({"seeds": [-1]}, ConfigError, "seed must be between"),
    ],
)
def test_what_is_not_there_is_refused_with_the_nearest_name(tmp_path, choices, error, message):
    with pytest.raises(error, match=message):
        plan("cpu", out_dir=tmp_path, **choices)


def test_an_unknown_suite_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="unknown suite 'papper'; did you mean 'paper'"):
        plan("papper", out_dir=tmp_path)


def test_published_figures_are_of_known_algorithms_and_tasks_with_a_budget():
    assert published.RETURNS.keys() == published.STEPS.keys()
    assert {algo for row in published.RETURNS.values() for algo in row} <= set(NAMES)
