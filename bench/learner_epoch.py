"""What an epoch of SAPO takes beside physics, phase by phase, with the settings that tasks are trained with.

One CPU core. Process time per epoch, the median of several. Each moment is charged to one phase: a call of the learner
from its start to its end, less the calls within; the env's part of the backward pass from the first gradient that
reaches what a step returned until one leaves for the action that it was given. The learner's share is all that is not
the env's. `--label before` keeps the rows beside those of `after`, to be compared.
"""

import argparse
import json
import multiprocessing
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

import rewarped_sim
from bench.report import RESULTS, machine, table, write
from rewarped_sim.registry import configure
from rewarped_sim.train_config import read_train_config
from sapo_learner import sapo
from sapo_learner.episodes import EpisodeStatistics
from sapo_learner.learner import Learner
from sapo_learner.normalizer import StateNormalizer
from sapo_learner.sapo import Sapo, SapoConfig

CASES = (("ant_run", 64, 12), ("hopper", 64, 12), ("rolling_flat_small", 4, 3))
"""Task, envs, measured epochs."""
PHASES = (
    (sapo, "roll_out", "policy"),
    (sapo, "next_values", "targets"),
    (sapo, "end_values", "targets"),
    (sapo, "actor_objective", "targets"),
    (sapo, "td_lambda_targets", "targets"),
    (sapo, "ascend", "actor"),
    (Sapo, "_adapt_temperature", "temperature"),
    (sapo, "fit_critics", "critics"),
    (StateNormalizer, "update", "statistics"),
    (EpisodeStatistics, "update", "statistics"),
    (Learner, "_report", "statistics"),
    (Learner, "_snapshot", "snapshot"),
)
"""What is called, and the phase that it is: the rollout beside the env, bootstraps and targets, backward pass and step
of the actor beside the env, and so on."""
ENV_PHASES = ("env_forward", "env_backward")


class Stopwatch:
    """Charges process time to one phase at a time; a phase within another interrupts it."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)
        self._phases = ["other"]
        self._since = time.process_time()

    def enter(self, phase: str) -> None:
        """Begin a phase within the present one."""
        self._charge()
        self._phases.append(phase)

    def leave(self) -> None:
        """Go back to the phase before."""
        self._charge()
        self._phases.pop()

    def switch(self, phase: str) -> None:
        """Go over to another phase in place of the present one."""
        self._charge()
        self._phases[-1] = phase

    def take(self) -> dict[str, float]:
        """Return what was charged [s], and begin anew."""
        self._charge()
        spent, self.spent = self.spent, defaultdict(float)
        return spent

    def charging(self, function: Callable[..., Any], phase: str) -> Callable[..., Any]:
        """Return the function with its calls charged to `phase`."""

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.enter(phase)
            try:
                return function(*args, **kwargs)
            finally:
                self.leave()

        return timed

    def _charge(self) -> None:
        now = time.process_time()
        self.spent[self._phases[-1]] += now - self._since
        self._since = now


def watch_env(env: Any, watch: Stopwatch) -> None:
    """Charge forward and backward passes of the env's steps to phases of their own."""
    step = watch.charging(env.step, "env_forward")

    def watched_step(action: torch.Tensor) -> Any:
        if action.requires_grad:
            action.register_hook(lambda _: watch.switch("actor"))
        result = step(action)
        for value in (result.reward, *result.obs.values(), *result.terminal_obs.values()):
            if value.requires_grad:
                value.register_hook(lambda _: watch.switch("env_backward"))
        return result

    env.step = watched_step


def measure(task: str, num_envs: int, epochs: int, label: str) -> dict[str, Any]:
    """One row: medians over epochs after the first one."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    config = read_train_config({"task": task, "algo": "sapo", "num_envs": num_envs})
    settings = configure(SapoConfig(), dict(config.algo_options), "sapo")
    env = rewarped_sim.make(
        task, num_envs=num_envs, device="cpu", horizon=settings.horizon, num_threads=1, **config.task_options
    )
    watch = Stopwatch()
    watch_env(env, watch)
    for owner, name, phase in PHASES:
        setattr(owner, name, watch.charging(getattr(owner, name), phase))
    learner = Sapo(env, settings, seed=0, planned_epochs=1000)
    learner.update()
    watch.take()
    rows = []
    for _ in range(epochs):
        learner.update()
        rows.append(watch.take())
    median = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    totals = [sum(row.values()) for row in rows]
    shares = [
        1.0 - sum(row[name] for name in ENV_PHASES) / total for row, total in zip(rows, totals, strict=True)
    ]
    names = (*ENV_PHASES, *dict.fromkeys(phase for _, _, phase in PHASES), "other")
    return {
        "label": label,
        "task": task,
        "envs": num_envs,
        "epoch_s": statistics.median(totals),
        "learner_share": statistics.median(shares),
        **{f"{name}_s": median.get(name, 0.0) for name in names},
        "commit": machine()["commit"],
    }


def main() -> None:
    """Measure, print, write; rows of another label stay."""
    parser = argparse.ArgumentParser(prog="bench.learner_epoch", description=__doc__)
    parser.add_argument("--label", default="after", help="of the rows: before or after a change")
    label = parser.parse_args().label
    jobs = [(*case, label) for case in CASES]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        rows = pool.starmap(measure, jobs, chunksize=1)
    path = RESULTS / "learner_epoch.json"
    kept = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = [row for row in kept if row["label"] != label] + rows
    print(table(rows))
    print(write("learner_epoch", rows))


if __name__ == "__main__":
    main()
