"""Which runs a comparison takes: suites of tasks and algorithms, and the training run of each of their jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rewarped_sim.registry import ConfigError, configure, find, unknown
from rewarped_sim.train_config import TrainConfig, read_train_config
from sapo_learner.algorithms import ALGORITHMS, PRESETS, split_name

BASELINES = ("ppo", "sac", "trajopt", "apg", "shac", "sapo")
TRAJOPT_ENVS = 16
TRAJOPT_PASSES = 50
"""TrajOpt goes through an episode so often, in so many envs; then its published runs end."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A comparison."""

    summary: str
    tasks: tuple[str, ...]
    algorithms: tuple[str, ...] = BASELINES
    epochs: Mapping[str, int] = field(default_factory=dict)
    """Planned epochs by task, where they are not those of config/train/<task>.yaml."""


SUITES: Mapping[str, Suite] = {
    "cpu": Suite(
        summary="what two CPU cores can train: published budgets for ant_run, shorter ones for the rest",
        tasks=("cartpole", "hopper", "ant_run", "rolling_flat_small", "soft_jumper_small"),
        epochs={"hopper": 1000},
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
        algorithms=("shac", *(name for name in PRESETS if name.startswith("sapo/")), "sapo"),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training run of a suite."""

    suite: str
    config: TrainConfig
    """As `python -m rewarped_sim.train` is told, out_dir included."""
    full_epochs: int
    """Planned epochs of the full budget: more than `config.epochs` where the budget was scaled down."""
    eval_num_envs: int
    """Envs of the evaluation: the same for all algorithms, so that they meet the same starts."""

    @property
    def name(self) -> str:
        """Names the run's folder and the file of its results."""
        return f"{self.config.task}_{self.config.algo.replace('/', '-')}_{self.config.seed}"

    @property
    def env_steps(self) -> int:
        """Control steps in all envs together, when it is done."""
        return self.config.epochs * self.config.num_envs * _horizon(self.config)


def plan(
    suite_name: str,
    *,
    tasks: Sequence[str] = (),
    algorithms: Sequence[str] = (),
    seeds: Sequence[int] = (0, 1, 2),
    budget_scale: float = 1.0,
    device: str = "auto",
    out_dir: Path,
) -> list[Job]:
    """List the jobs of a suite, first seeds first, so that something can be said early.

    tasks, algorithms: instead of the suite's own; any that there are.
    Raises ConfigError or UnknownTaskError, with the nearest match and the choices.
    """
    if suite_name not in SUITES:
        raise ConfigError(unknown("suite", suite_name, list(SUITES)))
    if not budget_scale > 0:
        raise ConfigError(f"budget_scale must be > 0, got {budget_scale}")
    suite = SUITES[suite_name]
    return [
        _job(suite_name, task, algorithm, seed, budget_scale, device, out_dir / suite_name)
        for seed in seeds
        for task in tasks or suite.tasks
        for algorithm in algorithms or suite.algorithms
    ]


def _job(
    suite: str, task: str, algorithm: str, seed: int, budget_scale: float, device: str, folder: Path
) -> Job:
    values = {"task": task, "algo": algorithm, "seed": seed, "device": device}
    config = replace(read_train_config(values), video=False)
    epochs, num_envs = SUITES[suite].epochs.get(task, config.epochs), config.num_envs
    if algorithm == "trajopt":
        windows = -(-find(task).config.max_episode_steps // _horizon(config))
        epochs, num_envs = min(epochs, TRAJOPT_PASSES * windows), min(num_envs, TRAJOPT_ENVS)
    job = Job(
        suite=suite,
        config=replace(config, epochs=max(1, round(epochs * budget_scale)), num_envs=num_envs),
        full_epochs=epochs,
        eval_num_envs=config.num_envs,
    )
    return replace(job, config=replace(job.config, out_dir=str(folder / job.name)))


def _horizon(config: TrainConfig) -> int:
    algorithm = ALGORITHMS[split_name(config.algo)[0]]
    return configure(algorithm.config(), dict(config.algo_options), config.algo).horizon
