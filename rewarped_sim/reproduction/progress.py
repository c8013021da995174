"""How far all jobs together have come, for a person who comes by now and then."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from tqdm import tqdm

from rewarped_sim.reproduction.suites import Job


class JobsProgress:
    """A line now and then: jobs done and failed, where those at work stand, and the time that all of it will take.

    The time is told by what a step took so far: in runs of the same task and algorithm where there was one, else of
    the same task, else in all. It is safe to be used from several threads.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        *,
        parallel: int,
        epochs_done: Callable[[Job], int] = lambda job: 0,
        stream: TextIO | None = None,
        line_every_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """jobs: what there is to do. epochs_done: of a job before it starts. stream: standard error unless given."""
        self._total, self._parallel, self._clock = len(jobs), parallel, clock
        self._stream, self._line_every_s = stream or sys.stderr, line_every_s
        self._lock = threading.Lock()
        self._left = {job.name: (job, _steps(job, epochs_done(job))) for job in jobs}
        self._working: dict[str, _Working] = {}
        self._spent: dict[tuple[str, str], tuple[float, float]] = {}
        self._done = self._failed = 0
        self._last_line = clock()

    def start(self, job: Job) -> None:
        """A job begins."""
        with self._lock:
            self._working[job.name] = _Working(job, self._clock(), self._left[job.name][1])

    def at(self, job: Job, epoch: int, mean_return: float) -> None:
        """A job's training has come to `epoch`."""
        with self._lock:
            working = self._working[job.name]
            working.text = f"{job.name} at epoch {epoch}/{job.config.epochs}" + (
                "" if math.isnan(mean_return) else f", return {mean_return:.4g}"
            )
            working.elapsed_s = self._clock() - working.started
            self._left[job.name] = (job, _steps(job, epoch))
            self._say(now_and_then=True)

    def evaluates(self, job: Job) -> None:
        """A job's training is done."""
        with self._lock:
            self._working[job.name].text = f"{job.name} in evaluation"
            self._left[job.name] = (job, 0)

    def finish(self, job: Job) -> None:
        """A job is done."""
        with self._lock:
            self._done += 1
            self._end(job)

    def fail(self, job: Job) -> None:
        """A job has failed."""
        with self._lock:
            self._failed += 1
            self._end(job)

    def leave(self, job: Job) -> None:
        """A job is left as it is, to be continued another time."""
        with self._lock:
            self._end(job)

    def _end(self, job: Job) -> None:
        working = self._working.pop(job.name)
        steps, seconds = self._spent.get(_kind(job), (0.0, 0.0))
        made = working.steps_at_start - self._left.pop(job.name)[1]
        self._spent[_kind(job)] = steps + made, seconds + (working.elapsed_s if made else 0.0)
        self._say(now_and_then=False)

    def left_s(self) -> float:
        """Seconds that all jobs together will still take; NaN before the first step."""
        spent = dict(self._spent)
        for working in self._working.values():
            steps, seconds = spent.get(_kind(working.job), (0.0, 0.0))
            made = working.steps_at_start - self._left[working.job.name][1]
            spent[_kind(working.job)] = steps + made, seconds + (working.elapsed_s if made else 0.0)
        seconds = [left * _seconds_per_step(spent, job) for job, left in self._left.values() if left]
        return sum(seconds) / min(self._parallel, max(len(seconds), 1))

    def describe(self) -> str:
        """Say it all in one line."""
        left_s = self.left_s()
        parts = [f"{self._done}/{self._total} jobs done"]
        parts += [f"{self._failed} failed"] if self._failed else []
        parts += [working.text for working in self._working.values()]
        parts += ["time left not known yet" if math.isnan(left_s) else f"{tqdm.format_interval(left_s)} left"]
        return "; ".join(parts)

    def _say(self, *, now_and_then: bool) -> None:
        now = self._clock()
        if now_and_then and now - self._last_line < self._line_every_s:
            return
        self._last_line = now
        self._stream.write(f"{self.describe()}\n")
        self._stream.flush()


class _Working:
    """A job at work, and what it has shown of itself."""

    def __init__(self, job: Job, started: float, steps_at_start: int) -> None:
        self.job, self.started, self.steps_at_start = job, started, steps_at_start
        self.text = f"{job.name} starting"
        self.elapsed_s = 0.0


def _steps(job: Job, epoch: int) -> int:
    """Env steps that are left after `epoch` epochs."""
    return round(job.env_steps * (1 - min(epoch / job.config.epochs, 1.0)))


def _kind(job: Job) -> tuple[str, str]:
    return job.config.task, f"{job.config.algo} {job.variation}"


def _seconds_per_step(spent: dict[tuple[str, str], tuple[float, float]], job: Job) -> float:
    """What a step of the job is thought to take [s]; NaN where nothing is known at all."""
    task, _ = kind = _kind(job)
    choices = [
        [value for known, value in spent.items() if known == kind],
        [value for known, value in spent.items() if known[0] == task],
        list(spent.values()),
    ]
    for values in choices:
        steps, seconds = sum(value[0] for value in values), sum(value[1] for value in values)
        if steps > 0:
            return seconds / steps
    return math.nan
