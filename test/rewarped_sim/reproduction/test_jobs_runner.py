import dataclasses
import io
import threading
from pathlib import Path

import pytest

from rewarped_sim.reproduction import runner
from rewarped_sim.reproduction.progress import JobsProgress
from rewarped_sim.reproduction.record import read_records, record_path
from rewarped_sim.reproduction.runner import carry_out, epochs_done, has_record
from rewarped_sim.reproduction.suites import plan

OPTIONS = {"horizon": 8, "critic_passes": 1, "actor_hidden": [8], "critic_hidden": [8]}


def tiny_job(tmp_path, *, epochs=2, seed=0, **changes):
    """A cart-pole job of a second, through the real command line."""
    (job,) = plan("cpu", tasks=["cartpole"], algorithms=["sapo"], seeds=[seed], out_dir=tmp_path / "runs")
    values = {"epochs": epochs, "num_envs": 2, "checkpoint_every": 2, "eval_episodes": 2, "device": "cpu"}
    options = {
        "task_options": {"max_episode_steps": 8},
        "algo_options": {**job.config.algo_options, **OPTIONS},
    }
    config = dataclasses.replace(job.config, **(values | options | changes))
    return dataclasses.replace(job, config=config, full_epochs=epochs, eval_num_envs=2)


def do(jobs, tmp_path, stop=None):
    progress = JobsProgress(jobs, parallel=1, stream=io.StringIO())
    return carry_out(
        jobs, results=tmp_path / "results", parallel=1, progress=progress, stop=stop or threading.Event()
    )


@pytest.fixture
def processes(monkeypatch):
    """The processes that were started, the last one last."""
    started = []
    popen = runner.subprocess.Popen

    def remembering(*arguments, **values):
        started.append(popen(*arguments, **values))
        return started[-1]

    monkeypatch.setattr(runner, "POLL_S", 0.05)
    monkeypatch.setattr(runner.subprocess, "Popen", remembering)
    return started


def in_the_middle(jobs, action, tmp_path, stop=None):
    """Carry out jobs, and act once the first one's run has logged three epochs."""
    over = threading.Event()

    def wait_and_act():
        while epochs_done(jobs[0]) < 3 and not over.wait(0.02):
            pass
        action()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    failures = do(jobs, tmp_path, stop)
    over.set()
    thread.join()
    return failures


def test_jobs_are_trained_evaluated_and_written_down_even_after_one_that_cannot_be_done(tmp_path, processes):
    bad = tiny_job(tmp_path, seed=1, algo_options={"horizon": 1, "num_minibatches": 64})
    job = tiny_job(tmp_path)
    assert not has_record(job, tmp_path / "results")
    (failure,) = do([bad, job], tmp_path)
    assert failure.job is bad and "rewarped_sim.train ended with " in failure.reason
    (record,) = read_records(tmp_path / "results", "cpu")
    assert (record.task, record.algo, record.seed) == ("cartpole", "sapo", 0)
    assert (record.epochs, record.env_steps) == (2, 2 * 8 * 2)
    assert set(record.agents) == {"deterministic", "stochastic", "do_nothing", "random"}
    assert all(agent["episodes"] == 2 * 2 for agent in record.agents.values())
    assert record.curve["env_steps"] == [16.0, 32.0]
    assert record.config["algo_options"]["horizon"] == 8
    assert record.wall_clock_s > 0.0 and record.machine["cores"] >= 1
    assert has_record(job, tmp_path / "results")

    # without its record, the same run is evaluated again, to the same figures, and not trained again
    record_path(tmp_path / "results", "cpu", job.name).unlink()
    assert do([job], tmp_path) == []
    assert read_records(tmp_path / "results", "cpu")[0].agents == record.agents
    modules = [process.args[2] for process in processes if "-m" in process.args]
    assert modules == ["rewarped_sim.train"] * 2 + ["rewarped_sim.evaluate"] * 2


def test_whatever_ends_a_job_the_others_go_on(tmp_path, processes, monkeypatch):
    jobs = [tiny_job(tmp_path, seed=seed) for seed in (0, 1)]
    done = []

    def broken_once(work):
        done.append(work)
        if len(done) == 1:
            raise KeyError("nobody thought of it")
        raise runner.JobError("nor of that")

    monkeypatch.setattr(runner._Work, "carry_out", broken_once)
    failures = do(jobs, tmp_path)
    assert [failure.reason for failure in failures] == ["KeyError: 'nobody thought of it'", "nor of that"]


def test_a_killed_run_fails_alone_and_goes_on_where_it_was(tmp_path, processes):
    job = tiny_job(tmp_path, epochs=60)
    (failure,) = in_the_middle([job], lambda: processes[-1].kill(), tmp_path)
    assert "rewarped_sim.train ended with -9" in failure.reason and ".log" in failure.reason
    before = epochs_done(job)
    assert 3 <= before < 60

    shorter = dataclasses.replace(job, config=dataclasses.replace(job.config, epochs=70))
    (refused,) = do([shorter], tmp_path)
    assert "holds another run: epochs is 60, to be 70" in refused.reason

    assert do([job], tmp_path) == []
    (record,) = read_records(tmp_path / "results", "cpu")
    assert record.env_steps == 60 * 16
    assert "resumed from" in Path(job.config.out_dir).with_name(f"{job.name}.log").read_text()


def test_an_earlier_policy_is_not_evaluated_in_place_of_the_last_one(tmp_path, processes):
    job = tiny_job(tmp_path, epochs=4)
    assert do([job], tmp_path) == []
    (expected,) = read_records(tmp_path / "results", "cpu")
    record_path(tmp_path / "results", "cpu", job.name).unlink()
    last = Path(job.config.out_dir) / "checkpoints" / "checkpoint_000004.pt"
    last.write_bytes(last.read_bytes()[:1000])
    (failure,) = do([job], tmp_path)
    assert "checkpoint_000004.pt is broken, and what was evaluated is of epoch 2" in failure.reason
    assert not has_record(job, tmp_path / "results")

    last.unlink()
    assert do([job], tmp_path) == []
    (record,) = read_records(tmp_path / "results", "cpu")
    assert (record.agents, record.env_steps) == (expected.agents, expected.env_steps)


def test_a_stop_saves_the_run_and_starts_no_other(tmp_path, processes):
    first, second = tiny_job(tmp_path, epochs=4000), tiny_job(tmp_path, seed=1)
    stop = threading.Event()
    assert in_the_middle([first, second], stop.set, tmp_path, stop) == []
    assert [process.returncode for process in processes] == [0]
    assert f"stopped after epoch {epochs_done(first)}; checkpoint saved" in (
        Path(first.config.out_dir).with_name(f"{first.name}.log").read_text()
    )
    assert not has_record(first, tmp_path / "results") and not Path(second.config.out_dir).exists()
