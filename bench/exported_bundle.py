"""A bundle as training leaves it, without the training: an untrained policy that sees a cloud."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

TASK = "rolling_flat_small"


def exported_bundle(folder: Path, *, seed: int = 0, name: str = "untrained", **settings: Any) -> Path:
    """Export the policy that a training run with these settings of SAPO starts with, and return its folder.

    Done in a process of its own, so that torch and Warp stay out of this one.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_export, folder, seed, name, settings).result()


def _export(folder: Path, seed: int, name: str, settings: dict[str, Any]) -> Path:
    import rewarped_sim
    from sapo_learner import Sapo, SapoConfig
    from sapo_learner.export import export_bundle

    env = rewarped_sim.make(TASK, num_envs=2, device="cpu")
    policy = Sapo(env, SapoConfig(**settings), seed=seed, planned_epochs=1).policy
    contract = env.contract(policy_name=name, train={"seed": seed})
    return export_bundle(policy, contract, env.reset(), folder)
