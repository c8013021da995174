"""What SAPO gains from pieces beyond the published algorithm: each one switched on alone, on several seeds.

    python -m bench.learning_extras --task cartpole --task hopper --seeds 3

One CPU core. Runs of about a minute with the task's own settings, and then whole episodes from starts that no run has
seen. Rows that are in bench/results/learning_extras.json are not measured again. Those of pieces that have been dropped
since stay there, and their `commit` has the code: docs/decisions/0017-beyond-the-paper.md.
"""

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

import rewarped_sim
from bench.report import RESULTS, machine, table, write
from rewarped_sim.registry import configure
from rewarped_sim.train_config import read_train_config
from rewarped_sim.trained_run import EVALUATION_SEED_OFFSET, held_out_env
from sapo_learner.algorithms import PRESETS
from sapo_learner.evaluate import evaluate
from sapo_learner.sapo import Sapo, SapoConfig

TASKS = {"cartpole": (100, 32), "hopper": (50, 32)}
"""Planned epochs, over which the learning rates fall, and envs of the evaluation."""
VARIANTS: dict[str, Mapping[str, Any]] = {
    "sapo": {},
    "in the order of time": {"shuffle_minibatches": False},
    "5 policy epochs": PRESETS["sapo/reuse"],
    "level critics": PRESETS["sapo/level"],
    "level critics, 5 policy epochs": PRESETS["sapo/quick"],
    "actor rate x 5": {},
    "level critics, actor rate x 5": PRESETS["sapo/level"],
}
"""Differences from the task's settings, by name. The last two ask whether longer steps do what more steps do."""
RATE_FACTORS = {"actor rate x 5": 5.0, "level critics, actor rate x 5": 5.0}


def measure(task: str, variant: str, seed: int) -> dict[str, Any]:
    """One row: train, then act for an episode in each env."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    epochs, eval_envs = TASKS[task]
    config = read_train_config({"task": task, "algo": "sapo", "seed": seed})
    settings = configure(SapoConfig(), {**config.algo_options, **VARIANTS[variant]}, "sapo")
    rate = settings.actor_learning_rate * RATE_FACTORS.get(variant, 1.0)
    settings = replace(settings, actor_learning_rate=rate)
    env = rewarped_sim.make(
        task,
        num_envs=config.num_envs,
        device="cpu",
        seed=seed,
        horizon=settings.horizon,
        num_threads=1,
        **config.task_options,
    )
    learner = Sapo(env, settings, seed=seed, planned_epochs=epochs)
    started = time.process_time()
    curve = [learner.update()["step_reward"] for _ in range(epochs)]
    train_s = time.process_time() - started
    held_out = held_out_env(config, seed_offset=EVALUATION_SEED_OFFSET, device="cpu", num_envs=eval_envs)
    sampled = evaluate(held_out, learner.policy, deterministic=False)
    greedy = evaluate(held_out, learner.policy)
    return {
        "task": task,
        "variant": variant,
        "seed": seed,
        "epochs": epochs,
        "return": greedy.mean,
        "return_sampled": sampled.mean,
        "mean_step_reward": sum(curve) / len(curve),
        "last_step_reward": sum(curve[-10:]) / 10,
        "epoch_s": train_s / epochs,
        "commit": machine()["commit"],
    }


def main() -> None:
    """Measure what is missing, print all, write after each row."""
    parser = argparse.ArgumentParser(prog="bench.learning_extras", description=__doc__)
    parser.add_argument("--task", action="append", choices=list(TASKS), help="may be given again")
    parser.add_argument("--variant", action="append", choices=list(VARIANTS), help="may be given again")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    path = RESULTS / "learning_extras.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    measured = {(row["task"], row["variant"], row["seed"]) for row in rows}
    for task in options.task or ["cartpole", "hopper"]:
        for seed in range(options.seeds):
            for variant in options.variant or VARIANTS:
                if (task, variant, seed) not in measured:
                    rows.append(measure(task, variant, seed))
                    write("learning_extras", rows)
                    print(table(rows[-1:]), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
