import json
import math
import shutil

import pytest
import torch
import yaml

from rewarped_sim.evaluate import main, over_runs
from rewarped_sim.train import train
from rewarped_sim.train_config import read_train_config
from rewarped_sim.trained_run import load_run, read_run_config

TINY = {
    "run": {
        "num_envs": 3,
        "epochs": 2,
        "eval_episodes": 6,
        "video": False,
        "device": "cpu",
        "select_every": 1,
    },
    "task": {"max_episode_steps": 12},
    "sapo": {"horizon": 8, "actor_hidden": [8], "critic_hidden": [8], "critic_passes": 1},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A cart-pole run of two epochs, and how it ended."""
    folder = tmp_path_factory.mktemp("evaluate")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    values = {"task": "cartpole", "out_dir": str(folder / "run")}
    return train(read_train_config(values, config_path=str(folder / "tiny.yaml")))


def evaluated(tmp_path, *words):
    path = tmp_path / "out" / "evaluation.json"
    assert main([*map(str, words), "--device", "cpu", "--json", str(path)]) == 0
    return json.loads(path.read_text())


def test_the_figures_are_those_of_the_comparison_at_the_end_of_the_run(run, tmp_path):
    content = evaluated(tmp_path, "--run", run.out_dir, "--episodes-per-env", 2)
    (report,) = content["runs"]
    agents = report["agents"]
    assert agents["deterministic"]["mean"] == pytest.approx(run.policy_return, rel=1e-6)
    assert agents["do_nothing"]["mean"] == pytest.approx(run.do_nothing_return, rel=1e-6)
    assert (report["task"], report["algo"], report["epoch"], report["env_steps"]) == (
        "cartpole",
        "sapo",
        2,
        48,
    )
    assert report["policy_of_epoch"] in (1, 2)
    for agent in ("deterministic", "stochastic", "do_nothing", "random"):
        returns = agents[agent]["returns"]
        assert [len(row) for row in returns] == [3, 3] and agents[agent]["episodes"] == 6
        assert agents[agent]["mean"] == pytest.approx(sum(map(sum, returns)) / 6, abs=1e-4)
        assert agents[agent]["iqm"] == pytest.approx(sum(sorted(returns[0] + returns[1])[1:5]) / 4, abs=1e-4)
        assert agents[agent]["mean_length"] == 12.0
    assert agents["stochastic"]["mean"] != agents["deterministic"]["mean"]


def test_the_chosen_policy_acts_as_the_exported_one_did(run):
    """Two ways to the same weights: the checkpoint, and what the run chose and exported."""
    trained = load_run(run.out_dir, device="cpu")
    state = torch.load(run.checkpoint, weights_only=True)["state"]
    chosen = trained.policy.state_dict()
    assert all(torch.equal(value, state["best_policy"]["weights"][name]) for name, value in chosen.items())
    assert trained.policy_of_epoch == state["best_policy"]["epoch"]
    last = trained.learner.policy.state_dict()
    assert all(torch.equal(value, state["policy"][name]) for name, value in last.items())


def test_a_broken_checkpoint_is_passed_over_and_named(run, tmp_path, caplog):
    folder = shutil.copytree(run.out_dir, tmp_path / "run")
    (folder / "checkpoints" / "checkpoint_000099.pt").write_bytes(b"half")
    with caplog.at_level("WARNING", logger="rewarped_sim"):
        assert load_run(folder, device="cpu").epoch == 2
    assert "run: passed over a broken checkpoint: checkpoint_000099.pt: truncated" in caplog.text


def test_any_number_of_envs_will_do(run, tmp_path):
    content = evaluated(tmp_path, "--run", run.out_dir, "--episodes-per-env", 1, "--num-envs", 5)
    assert content["runs"][0]["num_envs"] == 5
    assert len(content["runs"][0]["agents"]["stochastic"]["returns"][0]) == 5


def of_another(run, tmp_path, old, new):
    """A copy of the run that says something else of itself."""
    folder = shutil.copytree(run.out_dir, tmp_path / f"{new}".replace(" ", "_"))
    text = (folder / "config.yaml").read_text()
    assert text.count(old) == 1
    (folder / "config.yaml").write_text(text.replace(old, new))
    return folder


def test_several_runs_of_an_algorithm_are_summed_up_over_their_means(run, tmp_path):
    other = of_another(run, tmp_path, "seed: 0", "seed: 5")
    content = evaluated(tmp_path, "--run", run.out_dir, "--run", other, "--agent", "random")
    (summary,) = content["over_runs"]
    first, second = (report["agents"]["random"]["mean"] for report in content["runs"])
    assert (summary["runs"], summary["seeds"], set(summary["agents"])) == (2, [0, 5], {"random"})
    assert summary["agents"]["random"]["mean"] == pytest.approx(0.5 * (first + second))
    assert summary["agents"]["random"]["ci95"] == pytest.approx(12.7062 * 0.5 * abs(first - second), rel=1e-4)


def test_the_same_run_twice_is_refused_since_chance_would_seem_to_play_no_part(run, tmp_path, capsys):
    copy = shutil.copytree(run.out_dir, tmp_path / "copy")
    for other in (run.out_dir, copy):
        assert main(["--run", str(run.out_dir), "--run", str(other), "--device", "cpu"]) == 2
        assert f"--run {run.out_dir} and {other}: the same settings and seed 0" in capsys.readouterr().err


def test_a_run_that_is_not_finished_is_said_to_be(run, tmp_path, caplog):
    longer = of_another(run, tmp_path, "epochs: 2", "epochs: 9")
    with caplog.at_level("WARNING", logger="rewarped_sim"):
        content = evaluated(tmp_path, "--run", run.out_dir, "--run", longer, "--agent", "zero")
    assert f"{longer}: not finished: epoch 2 of 9" in caplog.text and f"{run.out_dir}: not" not in caplog.text
    assert [row["runs"] for row in content["over_runs"]] == [1, 1]


def test_runs_are_summed_up_by_task_algorithm_and_settings():
    def report(algo, mean, **settings):
        agents = {"stochastic": {"mean": mean}}
        return {"task": "ant", "algo": algo, "seed": 0, "settings": settings, "agents": agents}

    reports = [report("sapo", 1.0), report("shac", 9.0), report("sapo", 3.0), report("sapo", 5.0, epochs=7)]
    rows = over_runs(reports)
    assert [(row["algo"], row["runs"]) for row in rows] == [("sapo", 2), ("shac", 1), ("sapo", 1)]
    figures = rows[0]["agents"]["stochastic"]
    assert figures["mean"] == 2.0 and figures["iqm"] == 2.0
    assert figures["ci95"] == pytest.approx(12.7062, abs=1e-3)  # t of one degree of freedom, times 1
    assert math.isnan(rows[1]["agents"]["stochastic"]["ci95"])


def test_a_baseline_needs_no_run(tmp_path):
    words = ("--task", "cartpole", "--agent", "zero", "--num-envs", 2, "--episodes-per-env", 1)
    (row,) = evaluated(tmp_path, *words)["tasks"]
    assert row["task"] == "cartpole" and set(row["agents"]) == {"do_nothing"}
    assert row["agents"]["do_nothing"]["mean_length"] == 240.0


def test_a_resumed_run_keeps_its_own_settings_and_not_those_of_another_task(run):
    """The folder alone names the task: what config/train/ says of the default task must not come in."""
    config = read_run_config(run.out_dir)
    written = yaml.safe_load((run.out_dir / "config.yaml").read_text())
    assert config.algo_options == written["sapo"]
    assert config.task_options == written["task"]


def test_a_run_without_a_checkpoint_or_of_another_task_is_refused(run, tmp_path, capsys):
    empty, other = tmp_path / "empty", tmp_path / "other"
    for folder in (empty, other):
        folder.mkdir()
        shutil.copy(run.out_dir / "config.yaml", folder)
    shutil.copytree(run.out_dir / "checkpoints", other / "checkpoints")
    text = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(text.replace("task: cartpole", "task: hopper"))

    assert main(["--run", str(empty), "--device", "cpu"]) == 2
    assert "no checkpoint" in capsys.readouterr().err
    assert main(["--run", str(other), "--device", "cpu"]) == 2
    assert "task: expected 'hopper', got 'cartpole'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--run", "{tmp}"], 2, "is not the folder of a run (no config.yaml in it)"),
        ([], 2, "nothing to evaluate: give --run FOLDER"),
        (["--task", "cartpol", "--agent", "zero"], 2, "did you mean 'cartpole'"),
        (["--task", "cartpole"], 2, "--task goes with --agent"),
        (["--task", "cartpole", "--agent", "zero", "--num-envs", "0"], 2, "--num-envs must be > 0, got 0"),
        (["--run", "{tmp}", "--device", "cuda:99"], 3, "device 'cuda:99'"),
    ],
)
def test_the_command_line_says_what_is_wrong(tmp_path, capsys, words, code, message):
    assert main([word.format(tmp=tmp_path) for word in words]) == code
    assert message in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_named_before_anything_is_tried(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    nothing = ["--run", str(tmp_path), "--device", "cpu", "--json"]  # would be complained about next
    assert main([*nothing, str(tmp_path / "file" / "e.json")]) == 2
    assert "e.json cannot be written: " in capsys.readouterr().err
    assert main([*nothing, str(tmp_path)]) == 2
    assert f"--json {tmp_path}: expected a file, found a folder" in capsys.readouterr().err
    assert main([*nothing, str(tmp_path / "e.json")]) == 2
    assert "is not the folder of a run" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
