import pytest

from rewarped_sim.reproduction.tables import describe, labels_of, normalized_scores, tasks_of


def cells(text, row):
    """The cells of the first table's row of this name."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {row} |"))
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_three_seeds_stand_with_their_interval_above_the_published_figure(make_record):
    records = [make_record(seed=seed, earned=earned) for seed, earned in enumerate([4401.0, 4402.0, 4406.0])]
    # deviations -2, -1, 3: variance 7, times 4.3027 / sqrt(3)
    assert cells(describe(records), "sapo") == ["4403.0 ± 6.6<br>published 4535.9 ± 24.5"]


def test_the_highest_mean_of_a_task_is_bold(make_record):
    earned = {
        ("ant_run", "shac"): 5.0,
        ("ant_run", "sapo"): 4.0,
        ("hopper", "shac"): -3.0,
        ("hopper", "sapo"): -2.0,
    }
    records = [make_record(task, algo, earned=value) for (task, algo), value in earned.items()]
    text = describe(records)
    assert [cell.split("<br>")[0] for cell in cells(text, "shac")] == ["**5.0 (1 seed)**", "-3.0 (1 seed)"]
    assert [cell.split("<br>")[0] for cell in cells(text, "sapo")] == ["4.0 (1 seed)", "**-2.0 (1 seed)**"]


def test_one_seed_has_no_interval_and_an_unpublished_task_no_figure_of_others(make_record):
    assert cells(describe([make_record("cartpole", earned=7.25)]), "sapo") == ["7.2 (1 seed)"]


def test_baselines_stand_below_and_count_once_however_many_algorithms_met_them(make_record):
    records = [make_record(algo=algo) for algo in ("shac", "sapo")]
    assert cells(describe(records), "*do nothing*") == ["2.0"]
    assert cells(describe(records), "*random*") == ["1.0"]


def test_algorithms_and_tasks_stand_in_the_papers_order(make_record):
    records = [make_record("cartpole", "sapo"), make_record("hopper", "ppo"), make_record("ant_run", "shac")]
    assert labels_of(records) == ["ppo", "shac", "sapo"]
    assert tasks_of(records) == ["ant_run", "hopper", "cartpole"]
    assert cells(describe(records), "ppo") == [
        "–<br>published 2048.7 ± 36.6",
        "10.0 (1 seed)<br>published 3155 ± 30",
        "–",
    ]


def test_ablations_have_a_column_with_the_gain_over_shac(make_record):
    earned = {
        "hopper": (100.0, 80.0),
        "ant": (-10.0, -5.0),
        "humanoid": (100.0, 110.0),
        "snu_humanoid": (1.0, 1.2),
    }
    records = [
        make_record(task, algo, earned=value)
        for task, values in earned.items()
        for algo, value in zip(("shac", "sapo/neither"), values, strict=True)
    ]
    # -20 %, +50 %, of which the base is negative, +10 % and +20 %
    assert cells(describe(records), "sapo/neither")[-1] == "+15.0 %<br>published +0.5 %"
    assert cells(describe(records), "shac")[-1] == ""
    elsewhere = [make_record("hand_flip", "shac"), make_record("hand_flip", "sapo/neither", earned=1e6)]
    assert cells(describe(records + elsewhere), "sapo/neither")[-1] == "+15.0 %<br>published +0.5 %"
    assert cells(describe(records[:-1]), "sapo/neither")[-1] == "<br>published +0.5 %"


def test_normalised_scores_are_0_for_doing_nothing_and_1_for_sapo_on_average(make_record):
    records = [
        make_record(algo="sapo", seed=0, earned=8.0),
        make_record(algo="sapo", seed=1, earned=16.0),
        make_record(algo="shac", seed=0, earned=2.0),
        make_record(algo="shac", seed=1, earned=7.0),
    ]
    assert normalized_scores(records, "stochastic") == {"shac": [[0.0, 0.5]], "sapo": [[0.6, 1.4]]}


def test_tasks_that_not_all_algorithms_have_run_or_sapo_does_not_solve_are_left_out_of_the_scores(
    make_record,
):
    records = [
        make_record("cartpole", "sapo"),
        make_record("cartpole", "shac", earned=4.0),
        make_record("hopper", "sapo"),  # without SHAC
        make_record("ant", "sapo", earned=1.5),  # less than doing nothing
        make_record("ant", "shac"),
    ]
    assert normalized_scores(records, "stochastic") == {"shac": [[0.25]], "sapo": [[1.0]]}
    assert normalized_scores(records[2:], "stochastic") == {}
    assert "Over the one task on which all of them have run, but for ant, where SAPO earns less" in describe(
        records
    )


def test_a_variation_beyond_the_paper_stands_last_and_takes_no_task_from_the_scores(make_record):
    everywhere = [make_record(task, algo) for task in ("hopper", "cartpole") for algo in ("shac", "sapo")]
    once = [make_record("hopper", "sapo/quick", earned=18.0)]
    assert labels_of(once + everywhere) == ["shac", "sapo", "sapo/quick"]
    assert "gain over SHAC" not in describe(everywhere + once)
    assert normalized_scores(everywhere + once, "stochastic") == normalized_scores(everywhere, "stochastic")
    assert len(normalized_scores(everywhere, "stochastic")["sapo"]) == 2
    both = [*everywhere, *once, make_record("cartpole", "sapo/quick")]
    assert normalized_scores(both, "stochastic")["sapo/quick"] == [[2.0], [1.0]]


def test_algorithms_do_not_mix_in_the_points_of_a_sweep(make_record):
    sweep = {"suite": "envs", "variation": "envs=32"}
    records = [
        make_record(algo=algo, earned=earned, **sweep) for algo, earned in (("shac", 2.0), ("sapo", 4.0))
    ]
    assert labels_of(records) == ["shac, envs=32", "envs=32"]
    assert cells(describe(records), "shac, envs=32") == ["2.0 (1 seed)"]
    assert cells(describe(records), "envs=32") == ["**4.0 (1 seed)**"]


def test_shorter_budgets_are_said_to_be_shorter_schedules(make_record):
    full = describe([make_record()])
    assert "every run had its full budget" in full
    scaled = describe([make_record(epochs=500, env_steps=1_024_000)])
    assert "ant_run sapo: 500 of 2000 epochs" in scaled
    assert "fewer env steps than published: ant_run" in scaled
    assert "not the beginning of the long one" in scaled


def test_what_the_runs_took_stands_beside_the_published_budget(make_record):
    text = describe([make_record(seed=0, wall_clock_s=500.0), make_record(seed=1, wall_clock_s=700.0)])
    assert "| sapo | 4.1 M steps, 10 min, 2 seeds |" in text
    assert "| *published* | 4.1 M steps |" in text
    assert "| sapo | 4.1 M steps, 1 seed |" in describe([make_record(wall_clock_s=0.0)])


def test_without_records_the_text_says_so():
    assert describe([]) == "No run of this suite is done yet."


@pytest.mark.parametrize("task", ["ant_run", "hopper"])
def test_trajopt_which_takes_fewer_steps_anyway_does_not_make_a_budget_short(make_record, task):
    of_trajopt = make_record(task, "trajopt", num_envs=16, env_steps=819_200)
    records = [of_trajopt, make_record(task, env_steps=10_240_000)]
    assert "every run had its full budget" in describe(records)


def test_trajopt_that_goes_through_an_episode_less_often_than_published_is_said_to(make_record):
    few = make_record("cartpole", "trajopt", num_envs=16, env_steps=16 * 240 * 31)
    assert "trajopt's passes, of 50: cartpole 31." in describe([few])
