import io
import math

import pytest

from rewarped_sim.reproduction.progress import JobsProgress
from rewarped_sim.reproduction.suites import plan


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def jobs_of(tmp_path, tasks, algorithms, seeds=(0,)):
    """Cart-pole: 250 epochs of 2048 steps; hopper: 1000 of the same."""
    return plan("cpu", tasks=tasks, algorithms=algorithms, seeds=seeds, out_dir=tmp_path)


def progress_of(jobs, clock, **values):
    return JobsProgress(jobs, **({"parallel": 1, "clock": clock, "stream": io.StringIO()} | values))


def test_the_time_left_is_known_from_the_first_epochs_on(tmp_path, clock):
    jobs = jobs_of(tmp_path, ["cartpole"], ["sapo"], seeds=[0, 1])
    progress = progress_of(jobs, clock)
    assert math.isnan(progress.left_s()) and "time left not known yet" in progress.describe()
    progress.start(jobs[0])
    clock.now = 50.0
    progress.at(jobs[0], 50, 12.5)
    assert progress.left_s() == pytest.approx(200.0 + 250.0)
    assert progress.describe() == "0/2 jobs done; cartpole_sapo_0 at epoch 50/250, return 12.5; 07:30 left"


def test_a_step_of_another_task_is_not_taken_for_one_of_this_where_this_one_is_known(tmp_path, clock):
    jobs = jobs_of(tmp_path, ["cartpole", "hopper"], ["sapo"], seeds=[0, 1])
    progress = progress_of(jobs, clock)
    for job, seconds in zip(jobs[:2], (250.0, 4000.0), strict=True):  # 1 and 4 seconds an epoch
        progress.start(job)
        clock.now += seconds
        progress.at(job, job.config.epochs, math.nan)
        progress.evaluates(job)
        progress.finish(job)
    assert progress.left_s() == pytest.approx(250.0 + 4000.0)


def test_what_was_done_before_neither_counts_as_work_left_nor_as_speed(tmp_path, clock):
    jobs = jobs_of(tmp_path, ["cartpole"], ["sapo"])
    progress = progress_of(jobs, clock, epochs_done=lambda job: 240)
    progress.start(jobs[0])
    clock.now = 5.0
    progress.at(jobs[0], 245, math.nan)
    assert progress.left_s() == pytest.approx(5.0)


def test_jobs_side_by_side_share_the_time(tmp_path, clock):
    jobs = jobs_of(tmp_path, ["cartpole"], ["sapo"], seeds=[0, 1])
    progress = progress_of(jobs, clock, parallel=2)
    for job in jobs:
        progress.start(job)
    clock.now = 50.0
    for job in jobs:
        progress.at(job, 125, math.nan)
    assert progress.left_s() == pytest.approx(50.0)


def test_failures_are_counted_and_said_at_once(tmp_path, clock):
    jobs = jobs_of(tmp_path, ["cartpole"], ["sapo", "shac"])
    stream = io.StringIO()
    progress = progress_of(jobs, clock, stream=stream)
    progress.start(jobs[0])
    progress.fail(jobs[0])
    assert stream.getvalue() == "0/2 jobs done; 1 failed; time left not known yet\n"


def test_lines_come_now_and_then(tmp_path, clock):
    job, *_ = jobs = jobs_of(tmp_path, ["cartpole"], ["sapo"])
    stream = io.StringIO()
    progress = progress_of(jobs, clock, stream=stream, line_every_s=60.0)
    progress.start(job)
    for epoch in range(1, 131):
        clock.now = float(epoch)
        progress.at(job, epoch, math.nan)
    assert len(stream.getvalue().splitlines()) == 2
