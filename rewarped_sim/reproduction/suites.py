"""Which runs a comparison takes: suites of tasks and algorithms, and the training run of each of their jobs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rewarped_sim.registry import ConfigError, configure, find, unknown
from rewarped_sim.train_config import TrainConfig, read_train_config
from sapo_learner.algorithms import ABLATIONS, ALGORITHMS, split_name

BASELINES = ("ppo", "sac", "trajopt", "apg", "shac", "sapo")
TRAJOPT_ENVS = 16
TRAJOPT_PASSES = 50
"""TrajOpt goes through an episode so often, in so many envs; then its published runs end."""


@dataclass(frozen=True, kw_only=True)
class Variation:
    """What one point of a sweep changes."""

    algo_options: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the algorithm that replace the task's."""
    num_envs: int | None = None
    """Envs instead of the task's number; epochs are planned so that the env steps stay the same."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A comparison."""

    summary: str
    tasks: tuple[str, ...]
    algorithms: tuple[str, ...] = BASELINES
    epochs: Mapping[str, int] = field(default_factory=dict)
    """Planned epochs by task, where they are not those of config/train/<task>.yaml."""
    variations: Mapping[str, Variation] = field(default_factory=lambda: {"": Variation()})
    """Points of a sweep by name; the only one of a comparison of algorithms has none."""


SUITES: Mapping[str, Suite] = {
    "cpu": Suite(
        summary="what two CPU cores train in an afternoon: a quarter of ant_run's published steps, a tenth of hopper's",
        tasks=("cartpole", "hopper", "ant_run", "rolling_flat_small", "soft_jumper_small"),
        algorithms=(*BASELINES, "sapo/quick"),
        epochs={"hopper": 500, "ant_run": 500},
    ),
    "paper": Suite(
        summary="the Rewarped tasks at their published budgets",
        tasks=("ant_run", "hand_reorient", "rolling_flat", "soft_jumper", "hand_flip", "fluid_move"),
    ),
    "dflex": Suite(
        summary="locomotion as in DFlex at its published budget",
        tasks=("hopper", "ant", "humanoid", "snu_humanoid"),
    ),
    "ablations": Suite(
        summary="SAPO without parts of it, beside SHAC",
        tasks=("hand_flip", "hopper", "ant", "humanoid", "snu_humanoid"),
        algorithms=("shac", *ABLATIONS, "sapo"),
    ),
    "entropy": Suite(
        summary="how SAPO depends on its first temperature and on its target entropy",
        tasks=("cartpole", "soft_jumper_small"),
        algorithms=("sapo",),
        variations={
            f"temperature={temperature:g},target={target:g}": Variation(
                algo_options={"initial_temperature": temperature, "target_entropy_per_dim": target}
            )
            for temperature in (0.001, 0.01, 0.1, 1.0)
            for target in (-0.25, -0.5, -1.0)
        },
    ),
    "envs": Suite(
        summary="how SAPO depends on the number of envs, at equal env steps",
        tasks=("cartpole", "soft_jumper_small"),
        algorithms=("sapo",),
        variations={f"envs={count}": Variation(num_envs=count) for count in (16, 32, 64, 128, 256)},
    ),
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training run of a suite."""

    suite: str
    """As `suite_name` has it: a scaled budget is another comparison."""
    variation: str = ""
    """Point of a sweep, by its name in the suite."""
    config: TrainConfig
    """As `python -m rewarped_sim.train` is told, out_dir included."""
    full_epochs: int
    """Planned epochs of the full budget: more than `config.epochs` where the budget was scaled down."""
    eval_num_envs: int
    """Envs of the evaluation: the same for all algorithms, so that they meet the same starts."""

    @property
    def name(self) -> str:
        """Names the run's folder and the file of its results."""
        return job_name(self.config.task, self.config.algo, self.variation, self.config.seed)

    @property
    def env_steps(self) -> int:
        """Control steps in all envs together, when it is done."""
        return self.config.epochs * self.config.num_envs * _horizon(self.config)


def suite_name(suite: str, budget_scale: float = 1.0) -> str:
    """Return the folder of a suite's runs and results: one for each scale of the budget, `cpu` or `cpu_x0.1`."""
    return suite if budget_scale == 1.0 else f"{suite}_x{budget_scale:g}"


def job_name(task: str, algo: str, variation: str, seed: int) -> str:
    """Return `<task>_<algo>_<seed>`, with the variation, if any, before the seed."""
    parts = [task, algo.replace("/", "-"), *([variation] if variation else []), str(seed)]
    return "_".join(parts)


def plan(
    suite: str,
    *,
    tasks: Sequence[str] = (),
    algorithms: Sequence[str] = (),
    seeds: Sequence[int] = (0, 1, 2),
    budget_scale: float = 1.0,
    device: str = "auto",
    out_dir: Path,
) -> list[Job]:
    """List the jobs of a suite, first seeds first, so that something can be said early.

    tasks, algorithms: instead of the suite's own; any that there are. What is named twice is planned once.
    Raises ConfigError or UnknownTaskError, with the nearest match and the choices.
    """
    if suite not in SUITES:
        raise ConfigError(unknown("suite", suite, list(SUITES)))
    if not 0 < budget_scale < math.inf:
        raise ConfigError(f"budget_scale must be > 0 and finite, got {budget_scale}")
    chosen, name_of_all = SUITES[suite], suite_name(suite, budget_scale)
    jobs = []
    for seed in dict.fromkeys(seeds):
        for task in dict.fromkeys(tasks or chosen.tasks):
            for algo in dict.fromkeys(algorithms or chosen.algorithms):
                usual = read_train_config({"task": task, "algo": algo, "seed": seed, "device": device})
                for name, variation in chosen.variations.items():
                    config = _with_budget(usual, chosen.epochs.get(task, usual.epochs), variation)
                    folder = out_dir / name_of_all / job_name(task, algo, name, seed)
                    scaled = max(1, round(config.epochs * budget_scale))
                    jobs.append(
                        Job(
                            suite=name_of_all,
                            variation=name,
                            config=replace(config, epochs=scaled, out_dir=str(folder), video=False),
                            full_epochs=config.epochs,
                            eval_num_envs=usual.num_envs,
                        )
                    )
    return jobs


def _with_budget(usual: TrainConfig, epochs: int, variation: Variation) -> TrainConfig:
    """Return the run with its full number of epochs, and with what the variation changes."""
    num_envs = variation.num_envs or usual.num_envs
    epochs = max(1, round(epochs * usual.num_envs / num_envs))
    if usual.algo == "trajopt":
        windows = -(-find(usual.task).config.max_episode_steps // _horizon(usual))
        epochs, num_envs = min(epochs, TRAJOPT_PASSES * windows), min(num_envs, TRAJOPT_ENVS)
    options = {**usual.algo_options, **variation.algo_options}
    return replace(usual, epochs=epochs, num_envs=num_envs, algo_options=options)


def _horizon(config: TrainConfig) -> int:
    algorithm = ALGORITHMS[split_name(config.algo)[0]]
    return configure(algorithm.config(), dict(config.algo_options), config.algo).horizon
