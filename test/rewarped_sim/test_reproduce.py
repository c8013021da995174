from dataclasses import asdict

import pytest

from rewarped_sim.reproduce import main
from rewarped_sim.reproduction.record import Record
from rewarped_sim.reproduction.suites import plan

DOCUMENT = "# Results\n\n<!-- begin cpu -->\n<!-- end cpu -->\n\nThe end.\n"


@pytest.fixture
def place(tmp_path):
    """Words that keep everything under tmp_path."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "results.md").write_text(DOCUMENT)
    names = {"--out-dir": "runs", "--results": "results", "--docs": "docs"}
    return ["--device", "cpu", *(word for name in names for word in (name, str(tmp_path / names[name])))]


def write_record(folder, seed, *, algo_options=None, **values):
    """One of cartpole; of another run than is planned where `epochs` or `algo_options` are others."""
    (job,) = plan("cpu", tasks=["cartpole"], algorithms=["sapo"], seeds=[seed], out_dir=folder)
    config = asdict(job.config) | {"epochs": values.get("epochs", 250)}
    config["algo_options"] = {**config["algo_options"], **(algo_options or {})}
    agents = {name: {"mean": 5.0 + seed} for name in ("stochastic", "deterministic", "do_nothing", "random")}
    Record(
        **{
            "suite": "cpu",
            "task": "cartpole",
            "algo": "sapo",
            "seed": seed,
            "num_envs": 64,
            "epochs": 250,
            "full_epochs": 250,
            "env_steps": 512_000,
            "wall_clock_s": 60.0,
            "policy_of_epoch": 250,
            "agents": agents,
            "curve": {"env_steps": [2048.0, 512_000.0], "return": [0.0, 5.0]},
            "config": config,
            "machine": {},
        }
        | values
    ).write(folder)


CARTPOLE = ["--suite", "cpu", "--tasks", "cartpole", "--algos", "sapo"]


def test_a_dry_run_lists_budgets_and_what_is_done_and_starts_nothing(place, tmp_path, capsys):
    write_record(tmp_path / "results", seed=1)
    write_record(tmp_path / "results", seed=2, epochs=100)  # of another budget
    write_record(tmp_path / "results", seed=3, algo_options={"gamma": 0.9})  # of other settings
    assert main([*CARTPOLE, "--seeds", "0", "1", "2", "3", "--dry-run", *place]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == [f"cartpole_sapo_{seed}" for seed in range(4)]
    assert "64 envs    250 of   250 epochs    0.51 M steps  to do" in lines[0]
    assert lines[1].endswith("done") and lines[2].endswith("to do") and lines[3].endswith("to do")
    assert lines[4] == "3 of 4 jobs to do, 1.5 M env steps"
    assert "a shorter budget is a shorter schedule" in lines[5]
    assert not (tmp_path / "runs").exists()


def test_a_report_is_made_of_all_records_and_leaves_the_prose_alone(place, tmp_path):
    for seed in range(3):
        write_record(tmp_path / "results", seed)
    assert main(["--suite", "cpu", "--report-only", *place]) == 0
    text = (tmp_path / "docs" / "results.md").read_text()
    assert text.startswith("# Results\n\n<!-- begin cpu -->\n") and text.endswith(
        "<!-- end cpu -->\n\nThe end.\n"
    )
    assert "| sapo | 6.0 ± 2.5 |" in text  # 1 * 4.3027 / sqrt(3)
    assert "](results/cpu_curves.png)" in text
    assert (tmp_path / "docs" / "results" / "cpu_curves.png").stat().st_size > 1000
    assert not (tmp_path / "runs").exists()


def test_a_record_of_other_settings_is_left_out_of_the_tables(place, tmp_path, caplog):
    for seed in range(2):
        write_record(tmp_path / "results", seed)
    write_record(tmp_path / "results", seed=2, algo_options={"gamma": 0.9})
    assert main(["--suite", "cpu", "--report-only", *place]) == 0
    assert "| sapo | 5.5 (2 seeds) |" in (tmp_path / "docs" / "results.md").read_text()
    assert "left out: cartpole_sapo_2 has other settings than are planned now" in caplog.text


def test_a_scaled_budget_is_another_comparison_and_its_tables_are_printed(place, tmp_path, capsys):
    write_record(tmp_path / "results", seed=0)
    write_record(tmp_path / "results", seed=0, suite="cpu_x0.1", epochs=25)
    assert main([*CARTPOLE, "--seeds", "0", "--budget-scale", "0.1", *place]) == 0
    assert "cartpole sapo: 25 of 250 epochs" in capsys.readouterr().out
    assert (tmp_path / "docs" / "results.md").read_text() == DOCUMENT
    assert [path.name for path in (tmp_path / "runs" / "cpu_x0.1").iterdir()] == ["cpu_curves.png"]
    assert main(["--suite", "cpu", "--report-only", *place]) == 0
    assert "every run had its full budget" in (tmp_path / "docs" / "results.md").read_text()


def test_what_is_done_is_not_done_again(place, tmp_path):
    write_record(tmp_path / "results", seed=0)
    assert main([*CARTPOLE, "--seeds", "0", *place]) == 0
    assert not (tmp_path / "runs").exists()
    assert "6.0" not in (tmp_path / "docs" / "results.md").read_text()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--suite", "cpuu"], 2, "unknown suite 'cpuu'; did you mean 'cpu'"),
        (["--suite", "cpu", "--tasks", "cartpol"], 2, "did you mean 'cartpole'"),
        (["--suite", "cpu", "--algos", "ppoo"], 2, "did you mean 'ppo'"),
        (["--suite", "cpu", "--budget-scale", "0"], 2, "budget_scale must be > 0"),
        (["--suite", "cpu", "--jobs", "0"], 2, "--jobs must be > 0, got 0"),
        (["--suite", "dflex"], 2, "expected the line '<!-- begin dflex -->' once"),  # before any work
        (["--suite", "dflex", "--report-only"], 2, "expected the line '<!-- begin dflex -->' once"),
        (["--suite", "cpu", "--device", "cuda:99"], 3, "device 'cuda:99'"),
    ],
)
def test_the_command_line_says_what_is_wrong(place, capsys, words, code, message):
    assert main([*place, *words]) == code
    assert message in capsys.readouterr().err


def test_a_job_that_fails_is_named_at_the_end_and_in_the_exit_code(place, tmp_path, capsys):
    (tmp_path / "runs" / "cpu" / "cartpole_sapo_0").mkdir(parents=True)
    (tmp_path / "runs" / "cpu" / "cartpole_sapo_0" / "config.yaml").write_text("run: {task: hopper}\n")
    assert main([*CARTPOLE, "--seeds", "0", *place]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: cartpole_sapo_0: ") and "holds another run: task is 'hopper'" in error
