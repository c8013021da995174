"""Run a published comparison again: train, evaluate, and set tables and learning curves beside the papers'.

    python -m rewarped_sim.reproduce --suite cpu --tasks cartpole --seeds 0 1 2

Every job is a run of `python -m rewarped_sim.train`, in a folder of its own. Started again, what is done with the same
settings is passed over and what was stopped goes on where it was; a job that fails is named at the end, and keeps no
other one from running.
Results are written as data, bench/results/learning/<suite>/<task>_<algo>_<seed>.json, and shown in docs/results.md.
With a scaled budget they are another comparison, in folders <suite>_x<scale>, and its tables are printed.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from rewarped_sim.env import DeviceError
from rewarped_sim.registry import ConfigError, task_names
from rewarped_sim.reproduction.document import split_at_markers, write_between_markers
from rewarped_sim.reproduction.figures import draw_figures
from rewarped_sim.reproduction.progress import JobsProgress
from rewarped_sim.reproduction.record import Record, read_records
from rewarped_sim.reproduction.runner import Failure, carry_out, epochs_done, has_record, is_of
from rewarped_sim.reproduction.suites import SUITES, Job, plan, suite_name
from rewarped_sim.reproduction.tables import describe
from rewarped_sim.train import BAD_INPUT, choose_device, show_log
from sapo_learner.algorithms import NAMES

log = logging.getLogger("rewarped_sim.reproduce")


def main(arguments: Sequence[str] | None = None) -> int:
    """Reproduce from the command line; returns 0 done or stopped, 2 bad input, 3 device missing, 1 a job failed."""
    options = _parser().parse_args(arguments)
    show_log()
    try:
        return _reproduce(options)
    except BAD_INPUT as error:
        return _complain(str(error), 2)
    except DeviceError as error:
        return _complain(str(error), 3)
    except OSError as error:
        return _complain(f"{error.filename}: {error.strerror}", 1)


def _reproduce(options: argparse.Namespace) -> int:
    if options.jobs < 1:
        raise ConfigError(f"--jobs must be > 0, got {options.jobs}")
    jobs = plan(
        options.suite,
        tasks=options.tasks,
        algorithms=options.algos,
        seeds=options.seeds,
        budget_scale=options.budget_scale,
        device=choose_device(options.device),
        out_dir=options.out_dir,
    )
    todo = [job for job in jobs if not has_record(job, options.results)]
    if options.dry_run:
        sys.stdout.write(_plan_table(jobs, todo))
        return 0
    if options.budget_scale == 1.0:
        split_at_markers(options.docs / "results.md", options.suite)  # before the work rather than after it
    failures: list[Failure] = []
    stop = threading.Event()
    if todo and not options.report_only:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        log.info("%d of %d jobs to do; folders under %s", len(todo), len(jobs), options.out_dir)
        progress = JobsProgress(todo, parallel=options.jobs, epochs_done=epochs_done)
        failures = carry_out(
            todo, results=options.results, parallel=options.jobs, progress=progress, stop=stop
        )
    try:
        _report(options)
    finally:
        for failure in failures:
            sys.stderr.write(f"error: {failure.job.name}: {failure.reason}\n")
    if stop.is_set():
        log.info("stopped; the same command goes on from here")
    return 1 if failures else 0


def _report(options: argparse.Namespace) -> None:
    """Write the suite's part of docs/results.md, and its figures, from all records of what is planned now.

    A scaled budget shows nothing that belongs there: its tables are printed, its figures lie beside the runs.
    """
    name = suite_name(options.suite, options.budget_scale)
    is_scaled = name != options.suite
    records = [record for record in read_records(options.results, name) if _is_present(record, options)]
    text = describe(records)
    if records:
        folder = options.out_dir / name if is_scaled else options.docs / "results"
        for figure, shows in draw_figures(folder, options.suite, records).items():
            text += "" if is_scaled else f"\n\n![{shows}](results/{figure.name})\n\n{shows}."
            log.info("figure: %s", figure)
    if is_scaled:
        sys.stdout.write(f"{text}\n")
        return
    write_between_markers(options.docs / "results.md", options.suite, text)
    log.info("tables: %s", options.docs / "results.md")


def _is_present(record: Record, options: argparse.Namespace) -> bool:
    """Tell whether a record is of a run as it is planned now, and say so if not."""
    run = {"tasks": [record.task], "algorithms": [record.algo], "seeds": [record.seed]}
    jobs = plan(options.suite, **run, budget_scale=options.budget_scale, out_dir=options.out_dir)
    if any(job.variation == record.variation and is_of(record, job) for job in jobs):
        return True
    log.warning("left out: %s has other settings than are planned now; run it again", record.name)
    return False


def _plan_table(jobs: Sequence[Job], todo: Sequence[Job]) -> str:
    """One line a job: what it is, its budget, and how far it is."""
    lines = []
    for job in jobs:
        done = epochs_done(job)
        state = "done" if job not in todo else f"at epoch {done}" if done else "to do"
        config = job.config
        lines.append(
            f"{job.name:48} {config.num_envs:4} envs  {config.epochs:5} of {job.full_epochs:5} epochs  "
            f"{job.env_steps / 1e6:6.2f} M steps  {state}"
        )
    total = sum(job.env_steps for job in todo) / 1e6
    lines.append(f"{len(todo)} of {len(jobs)} jobs to do, {total:.1f} M env steps")
    lines.append("learning rates fall over the planned epochs: a shorter budget is a shorter schedule")
    return "\n".join(lines) + "\n"


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"error: {message}\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rewarped_sim.reproduce",
        description="Train, evaluate and tabulate a published comparison.",
    )
    add = parser.add_argument
    suites = "; ".join(f"{name}: {suite.summary}" for name, suite in SUITES.items())
    add("--suite", required=True, help=suites)
    add("--tasks", nargs="+", default=[], help=f"instead of the suite's: any of {', '.join(task_names())}")
    add("--algos", nargs="+", default=[], help=f"instead of the suite's: any of {', '.join(NAMES)}")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], help="one run each (default: 0 1 2)")
    add("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    add("--budget-scale", type=float, default=1.0, help="share of the planned epochs, as another comparison")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    add("--out-dir", type=Path, default=Path("runs/reproduce"), help="folder of the runs' folders and logs")
    add("--results", type=Path, default=Path("bench/results/learning"), help="folder of the results")
    add("--docs", type=Path, default=Path("docs"), help="folder with results.md")
    add("--dry-run", action="store_true", help="list the jobs and what is done of them, and end")
    add("--report-only", action="store_true", help="write tables and figures of what is done, and end")
    return parser


if __name__ == "__main__":
    sys.exit(main())
