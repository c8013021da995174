"""A training run read back from its folder: to act with its policy, and to look at its networks."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rewarped_sim.best_policy import BestPolicy
from rewarped_sim.env import Env
from rewarped_sim.make import make
from rewarped_sim.registry import ConfigError, configure
from rewarped_sim.run_folder import CHECKPOINTS, CONFIG_FILE
from rewarped_sim.train_config import TrainConfig, read_train_config
from sapo_learner.algorithms import ALGORITHMS, split_name
from sapo_learner.checkpoint import CheckpointError, CheckpointHeader, load_latest
from sapo_learner.learner import Learner

log = logging.getLogger("rewarped_sim.trained_run")

EVALUATION_SEED_OFFSET = 1_000_000
"""Evaluation starts come from a seed of their own: none of them was trained on."""
SELECTION_SEED_OFFSET = 2_000_000
"""So do the starts by which the best policy is chosen: the final comparison has seen none of them."""


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """What a run has come to, in an env of other starts than it was trained on."""

    folder: Path
    config: TrainConfig
    env: Env
    """Without gradients, in its first state."""
    learner: Learner
    """With the networks of the checkpoint; the rest is as in a new one."""
    policy: Any
    """The policy that the run ends with: the best of its trials, or the last one where it makes none."""
    policy_of_epoch: int
    checkpoint: Path
    epoch: int
    """Finished epochs; less than `config.epochs` where the run was stopped."""
    env_steps: int


def held_out_env(config: TrainConfig, *, seed_offset: int, device: str, num_envs: int | None = None) -> Env:
    """Make an env like the one that the run trains in, without gradients and with other starts.

    num_envs: the run's own number unless given. Raises as `make` does.
    """
    return make(
        config.task,
        num_envs=num_envs or config.num_envs,
        device=device,
        seed=config.seed + seed_offset,
        requires_grad=False,
        **config.task_options,
    )


def read_run_config(folder: Path) -> TrainConfig:
    """Read what a run was told. Raises ConfigError where `folder` is not that of a run."""
    if not (folder / CONFIG_FILE).is_file():
        raise ConfigError(f"run: {folder} is not the folder of a run (no {CONFIG_FILE} in it)")
    return read_train_config({}, resume=str(folder))


def load_run(folder: Path, *, device: str, num_envs: int | None = None) -> TrainedRun:
    """Read a run's newest whole checkpoint, on any device and for any number of envs.

    Raises:
        ConfigError: `folder` is not that of a run.
        CheckpointError: there is no whole checkpoint in it, or it is of another task or algorithm.
        DeviceError: the device is not there.
    """
    config = read_run_config(folder)
    algorithm = ALGORITHMS[split_name(config.algo)[0]]
    algo_config = configure(algorithm.config(), dict(config.algo_options), config.algo)
    env = held_out_env(config, seed_offset=EVALUATION_SEED_OFFSET, device=device, num_envs=num_envs)
    header = replace(CheckpointHeader.of(env, task=config.task, algo=config.algo), num_envs=None, device=None)
    restored = load_latest(folder / CHECKPOINTS, header=header)
    for line in restored.broken:
        log.warning("%s: passed over a broken checkpoint: %s", folder, line)
    untouched = env.state_dict()
    learner = algorithm.learner(env, algo_config, seed=config.seed, planned_epochs=config.epochs)
    env.load_state_dict(untouched)  # so that the first episode is the first one here, too
    try:
        learner.load_networks(restored.state)
    except ValueError as error:
        raise CheckpointError(f"{restored.path}: {error}") from error
    policy, policy_of_epoch = learner.policy, restored.epoch
    if config.select_every and "best_policy" in restored.state:
        best = BestPolicy(env)
        best.load_state_dict(restored.state["best_policy"])
        policy = best.take(policy)
        policy_of_epoch = best.epoch if best.epoch >= 0 else restored.epoch
    return TrainedRun(
        folder=folder,
        config=config,
        env=env,
        learner=learner,
        policy=policy,
        policy_of_epoch=policy_of_epoch,
        checkpoint=restored.path,
        epoch=restored.epoch,
        env_steps=restored.state["env_steps"],
    )
