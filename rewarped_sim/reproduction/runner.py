"""Carry out jobs: train and evaluate each in processes of its own, go on where one was left, survive one that fails."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from rewarped_sim.machine import machine
from rewarped_sim.registry import ConfigError
from rewarped_sim.reproduction.orphan import end_with_parent
from rewarped_sim.reproduction.progress import JobsProgress
from rewarped_sim.reproduction.record import Record, read_record, record_path, thinned_curve
from rewarped_sim.reproduction.suites import Job
from rewarped_sim.run_folder import CHECKPOINTS, CONFIG_FILE
from rewarped_sim.train_config import SETTINGS
from rewarped_sim.trained_run import read_run_config
from sapo_learner.atomic_file import write_atomically
from sapo_learner.metrics import read_metrics

log = logging.getLogger("rewarped_sim.reproduce")

EPISODES_PER_ENV = 2
"""As in the published comparisons, but for each env, not for all together."""
POLL_S = 2.0


class JobError(RuntimeError):
    """A job cannot be done; the message says why, and where its log is."""


class Stopped(Exception):  # noqa: N818 (asked for by the caller, so not an error)
    """The job was ended at the caller's wish; it can be continued."""


@dataclass(frozen=True)
class Failure:
    """A job that failed, and why."""

    job: Job
    reason: str


def carry_out(
    jobs: Sequence[Job],
    *,
    results: Path,
    parallel: int,
    progress: JobsProgress,
    stop: threading.Event,
) -> list[Failure]:
    """Do the jobs in their order, `parallel` at a time, and return those that failed.

    results: folder of the records. Once `stop` is set, running jobs save themselves and end; no other one starts.
    """
    failures = []

    def one(job: Job) -> None:
        if stop.is_set():
            return
        progress.start(job)
        try:
            record = _Work(job, progress, stop).carry_out()
            path = record.write(results)
        except Stopped:
            progress.leave(job)
        except Exception as error:  # whatever it is, the other jobs go on
            expected = isinstance(error, JobError | OSError)
            reason = str(error) if expected else f"{type(error).__name__}: {error}"
            failures.append(Failure(job, reason))
            progress.fail(job)
            log.warning("failed: %s: %s", job.name, reason)
        else:
            progress.finish(job)
            log.info("done: %s: %s", job.name, path)

    with ThreadPoolExecutor(max_workers=parallel) as pool:
        list(pool.map(one, jobs))
    return failures


def has_record(job: Job, results: Path) -> bool:
    """Tell whether the job is done, with its present settings. Raises ConfigError for a record that cannot be read."""
    path = record_path(results, job.suite, job.name)
    return path.is_file() and is_of(read_record(path), job)


def is_of(record: Record, job: Job) -> bool:
    """Tell whether a record is of the job as it is planned now: a table must not mix it with what was planned once."""
    planned = json.loads(json.dumps(asdict(job.config)))
    return all(record.config.get(name) == planned[name] for name in SETTINGS)


def epochs_done(job: Job) -> int:
    """Return how many epochs the job's run has logged."""
    rows = read_metrics(Path(job.config.out_dir) / "metrics.csv")
    return int(rows[-1]["epoch"]) if rows else 0


class _Work:
    """One job. Beside the run's folder lie its log and, in seconds, how long it has trained so far."""

    def __init__(self, job: Job, progress: JobsProgress, stop: threading.Event) -> None:
        self._job, self._progress, self._stop = job, progress, stop
        self._folder = Path(job.config.out_dir)
        self._log = self._folder.with_name(f"{job.name}.log")
        self._clock = self._folder.with_name(f"{job.name}.seconds")
        self._last_checkpoint = self._folder / CHECKPOINTS / f"checkpoint_{job.config.epochs:06d}.pt"

    def carry_out(self) -> Record:
        """Train what is missing, evaluate, and put together what came out."""
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        if not self._is_trained():
            self._train()
        return self._record(self._evaluate())

    def _is_trained(self) -> bool:
        return self._last_checkpoint.is_file() and not self._differences()

    def _train(self) -> None:
        if not (self._folder / CONFIG_FILE).is_file():
            # its configuration makes it a run to go on with, and keeps later changes of config/train/ out of it
            self._folder.mkdir(exist_ok=True)
            self._clock.unlink(missing_ok=True)  # of a run that somebody took away
            write_atomically(self._folder / CONFIG_FILE, self._job.config.to_yaml().encode())
        elif differences := self._differences():
            raise JobError(f"{self._folder} holds another run: {differences}; choose another --out-dir")
        trained_s = self._trained_s()

        def tick(elapsed_s: float) -> None:
            write_atomically(self._clock, f"{trained_s + elapsed_s:.1f}\n".encode())
            rows = read_metrics(self._folder / "metrics.csv")
            if rows:
                self._progress.at(self._job, int(rows[-1]["epoch"]), rows[-1]["return"])

        self._call("rewarped_sim.train", ["--resume", str(self._folder)], tick)
        if not self._is_trained():
            why = self._differences() or f"it ended before epoch {self._job.config.epochs}"
            raise JobError(f"{self._folder} is not trained: {why}; see {self._log}")

    def _differences(self) -> str:
        """Say where the run in the folder is not that of the job; empty where it is."""
        try:
            found = read_run_config(self._folder)
        except ConfigError as error:
            return str(error)
        planned = self._job.config
        return ", ".join(
            f"{name} is {getattr(found, name)!r}, to be {getattr(planned, name)!r}"
            for name in SETTINGS
            if getattr(found, name) != getattr(planned, name)
        )

    def _evaluate(self) -> dict:
        job, path = self._job, self._folder / "evaluation.json"
        options = ["--run", str(self._folder), "--json", str(path), "--device", job.config.device]
        options += ["--episodes-per-env", str(EPISODES_PER_ENV), "--num-envs", str(job.eval_num_envs)]
        self._progress.evaluates(job)
        self._call("rewarped_sim.evaluate", options, lambda _: None)
        evaluation = json.loads(path.read_text())["runs"][0]
        if evaluation["epoch"] != job.config.epochs:
            raise JobError(
                f"{self._last_checkpoint} is broken, and what was evaluated is of epoch {evaluation['epoch']}; "
                "delete it, and the run goes on from there"
            )
        return evaluation

    def _record(self, evaluation: dict) -> Record:
        job, config = self._job, self._job.config
        where = {"out_dir", "resume", "resume_from"}
        return Record(
            suite=job.suite,
            task=config.task,
            algo=config.algo,
            variation=job.variation,
            seed=config.seed,
            num_envs=config.num_envs,
            epochs=config.epochs,
            full_epochs=job.full_epochs,
            env_steps=evaluation["env_steps"],
            wall_clock_s=self._trained_s(),
            policy_of_epoch=evaluation["policy_of_epoch"],
            agents=evaluation["agents"],
            curve=thinned_curve(self._folder / "metrics.csv"),
            config={name: value for name, value in asdict(config).items() if name not in where},
            machine=machine(config.device),
        )

    def _trained_s(self) -> float:
        return float(self._clock.read_text()) if self._clock.is_file() else 0.0

    def _call(self, module: str, options: Sequence[str], tick: Callable[[float], None]) -> None:
        """Run a module to its end, its output added to the log. Raises JobError, or Stopped once it was told to end."""
        started = time.monotonic()
        with self._log.open("ab") as stream:
            # in a session of its own, so that a Ctrl-C reaches it through `stop` alone, as a request to save itself
            process = subprocess.Popen(
                [sys.executable, "-m", module, *options],
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent(),
            )
            try:
                while process.poll() is None:
                    if self._stop.wait(POLL_S) and process.poll() is None:
                        process.terminate()
                        process.wait()
                    tick(time.monotonic() - started)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        if self._stop.is_set():
            raise Stopped
        if process.returncode:
            raise JobError(f"{module} ended with {process.returncode}: {self._last_line()}; see {self._log}")

    def _last_line(self) -> str:
        lines = self._log.read_text(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "no output")
