"""What SAPO gains from pieces beyond the published algorithm: each one switched on alone, on several seeds.

    python -m bench.learning_extras --task cartpole --task hopper --seeds 3

One CPU core. Runs of a few minutes with the task's own settings, and then whole episodes from starts that no run has
seen. Rows that are in bench/results/learning_extras.json are not measured again; those of pieces that have been
dropped since tell what they were dropped for, and `commit` where they are.
"""

import argparse
import json
import time
from typing import Any

import torch

import rewarped_sim
from bench.report import RESULTS, machine, table, write
from rewarped_sim.registry import configure
from rewarped_sim.train_config import read_train_config
from rewarped_sim.trained_run import EVALUATION_SEED_OFFSET, held_out_env
from sapo_learner.evaluate import evaluate
from sapo_learner.sapo import Sapo, SapoConfig

EPOCHS = {"cartpole": 120, "hopper": 150, "ant_run": 150, "rolling_flat_small": 60}
"""Planned epochs of the short runs; the learning rate falls over them."""
VARIANTS: dict[str, dict[str, Any]] = {
    "sapo": {},
    "in the order of time": {"shuffle_minibatches": False},
    "5 policy epochs": {"policy_epochs": 5},
    "2 policy epochs": {"policy_epochs": 2},
    "mixed gradients": {"mix_gradients": True},
    "detached observations": {"detach_observations": True},
    "adjoints up to 1000": {"max_adjoint_norm": 1000.0},
    "adjoints up to 200": {"max_adjoint_norm": 200.0},
}
"""Differences from the task's settings, by name."""


def measure(task: str, variant: str, seed: int) -> dict[str, Any]:
    """One row: train, then act for an episode in each env."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    options = dict(VARIANTS[variant])
    max_adjoint_norm = options.pop("max_adjoint_norm", 0.0)
    config = read_train_config({"task": task, "algo": "sapo", "seed": seed})
    settings = configure(SapoConfig(), {**config.algo_options, **options}, "sapo")
    env = rewarped_sim.make(
        task,
        num_envs=config.num_envs,
        device="cpu",
        seed=seed,
        horizon=settings.horizon,
        num_threads=1,
        **config.task_options,
    )
    # in rewards of one env: the objective is their mean over window and envs
    env.max_adjoint_norm = max_adjoint_norm / (settings.horizon * env.num_envs)
    learner = Sapo(env, settings, seed=seed, planned_epochs=EPOCHS[task])
    started = time.process_time()
    curve = [learner.update()["step_reward"] for _ in range(EPOCHS[task])]
    train_s = time.process_time() - started
    held_out = held_out_env(config, seed_offset=EVALUATION_SEED_OFFSET, device="cpu")
    sampled = evaluate(held_out, learner.policy, deterministic=False)
    greedy = evaluate(held_out, learner.policy)
    return {
        "task": task,
        "variant": variant,
        "seed": seed,
        "epochs": EPOCHS[task],
        "return": greedy.mean,
        "return_sampled": sampled.mean,
        "mean_step_reward": sum(curve) / len(curve),
        "last_step_reward": sum(curve[-10:]) / 10,
        "cuts_per_env_epoch": float(env.cut_adjoints.double().mean()) / EPOCHS[task],
        "epoch_s": train_s / EPOCHS[task],
        "commit": machine()["commit"],
    }


def main() -> None:
    """Measure what is missing, print all, write after each row."""
    parser = argparse.ArgumentParser(prog="bench.learning_extras", description=__doc__)
    parser.add_argument("--task", action="append", choices=list(EPOCHS), help="may be given again")
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
