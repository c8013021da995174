"""Learn from particles and learn from a depth camera: the same task, seeds and settings, only the cloud differs.

    python -m bench vision_training --runs runs/vision

Every policy is then tried on both clouds, on the same held-out starts: what it earns where it was trained, and what it
earns when the cloud is the other one. A run that is there already is gone on with.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench.report import table, write
from rewarped_sim.registry import configure
from rewarped_sim.train import show_log, train
from rewarped_sim.train_config import TrainConfig, read_train_config
from rewarped_sim.trained_run import EVALUATION_SEED_OFFSET, held_out_env, load_run
from rewarped_sim.unit_cube import CLOUD_SOURCES
from sapo_learner.evaluate import Zero, evaluate


def measure(config: TrainConfig, cloud: str, *, eval_envs: int) -> dict[str, Any]:
    """Train one policy, and try it on both clouds: one row."""
    start = time.process_time()
    result = train(config)
    train_s = time.process_time() - start
    run = load_run(result.out_dir, device=config.device)
    row = {"task": config.task, "seed": config.seed, "trained_on": cloud, "epochs": result.epoch}
    row |= {"env_steps": result.env_steps, "policy_of_epoch": run.policy_of_epoch, "train_cpu_s": train_s}
    for seen in CLOUD_SOURCES:
        tried = replace(config, task_options={**config.task_options, "cloud": seen})
        env = held_out_env(
            tried, seed_offset=EVALUATION_SEED_OFFSET, device=config.device, num_envs=eval_envs
        )
        earned = evaluate(env, run.policy)
        row |= {f"return_on_{seen}": earned.mean, f"ci95_on_{seen}": earned.ci95}
    row["do_nothing"] = evaluate(env, Zero(env.action_dim)).mean
    return row


def main() -> None:
    """Train, try, print, write after every run."""
    parser = argparse.ArgumentParser(prog="bench.vision_training", description=__doc__)
    parser.add_argument("--task", default="rolling_flat_small")
    parser.add_argument("--epochs", type=int, help="epochs of each run (default: the task's)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--eval-envs", type=int, default=16, help="held-out starts, one episode each (default: 16)"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/vision"), help="folder of the runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    show_log()
    rows: list[dict[str, Any]] = []
    for seed in options.seeds:
        for cloud in CLOUD_SOURCES:
            folder = options.runs / f"{options.task}_{cloud}_{seed}"
            values = {"task": options.task, "seed": seed, "epochs": options.epochs, "device": "cpu"}
            values |= {"video": False, "eval_episodes": 1, "out_dir": str(folder)}
            config = read_train_config(values, resume="true" if folder.exists() else "")
            config = configure(config, {"task_options": {"cloud": cloud}}, "run")
            rows.append(measure(config, cloud, eval_envs=options.eval_envs))
            print(table(rows), flush=True)
            print(write("vision_training", rows), flush=True)


if __name__ == "__main__":
    main()
