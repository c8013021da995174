"""What ranks cost and gain: the same training as one process and spread over several, on the CPUs of one machine.

    python -m bench scale_out --tasks cartpole ant --ranks 1 2

Each rank has one thread. Reported are how far networks in float32 are from those of one rank after one epoch and after
five, as a share of their norm, and the median time of an epoch after them, on the wall and of the processor that a rank
is on: where other processes keep the machine busy, the second tells what the first would be.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from bench.report import table, write
from rewarped_sim import make
from rewarped_sim.registry import configure
from rewarped_sim.train_config import read_train_config
from sapo_learner.parallel import Ranks, joined
from sapo_learner.sapo import Sapo, SapoConfig

EPOCHS_OF_EQUALITY = 5


class Counting:
    """Ranks that count what they average, and how often."""

    def __init__(self, ranks: Ranks) -> None:
        self.times = self.numbers = 0
        self._ranks = ranks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ranks, name)

    def average_(self, tensors: list[torch.Tensor]) -> None:
        """See `Ranks`."""
        if self._ranks.size == 1:
            return
        self.times += 1
        self.numbers += sum(tensor.numel() for tensor in tensors)
        self._ranks.average_(tensors)


def work(task: str, num_envs: int, epochs: int, out: Path) -> None:
    """Train as one rank of those that torchrun has started; rank 0 writes what it found."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    config = read_train_config({"task": task, "num_envs": num_envs})
    with joined() as ranks:
        share = config.num_envs // ranks.size
        settings = configure(SapoConfig(), dict(config.algo_options), "sapo")
        env = make(
            task,
            num_envs=share,
            first_env=ranks.rank * share,
            horizon=settings.horizon,
            num_threads=1,
            **config.task_options,
        )
        counting: Any = Counting(ranks)
        learner = Sapo(env, settings, seed=0, planned_epochs=config.epochs, ranks=counting)
        learner.update()
        after_one = networks(learner)
        for _ in range(EPOCHS_OF_EQUALITY - 1):
            learner.update()
        after_five = networks(learner)
        counting.times = counting.numbers = 0
        wall, processor = [], []
        for _ in range(epochs):
            started, busy = time.perf_counter(), time.process_time()
            learner.update()
            wall.append(time.perf_counter() - started)
            processor.append(time.process_time() - busy)
        if ranks.is_first:
            found = {"after_one": after_one, "after_five": after_five, "wall": wall, "processor": processor}
            torch.save(found | {"times": counting.times, "numbers": counting.numbers}, out / "found.pt")


def networks(learner: Sapo) -> list[torch.Tensor]:
    """Return a copy of all weights."""
    return [
        weight.detach().clone() for part in (learner.policy, learner.critics) for weight in part.parameters()
    ]


def measure(task: str, num_envs: int, ranks: int, epochs: int) -> dict[str, Any]:
    """Start that many ranks, and return what rank 0 found."""
    with tempfile.TemporaryDirectory() as folder:
        torchrun = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={ranks}",
        ]
        words = ["--task", task, "--num-envs", str(num_envs), "--epochs", str(epochs), "--work-in", folder]
        subprocess.run(
            [*torchrun, "-m", "bench.scale_out", *words],
            env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return torch.load(Path(folder) / "found.pt")


def distance(first: list[torch.Tensor], second: list[torch.Tensor]) -> float:
    """Return how far two lists of tensors are from each other, as a share of their norm."""
    a, b = (torch.cat([weight.flatten() for weight in weights]).double() for weights in (first, second))
    return float((a - b).norm() / b.norm())


def main() -> int:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(prog="bench scale_out")
    parser.add_argument("--tasks", nargs="+", default=["cartpole", "ant"])
    parser.add_argument("--ranks", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--num-envs", nargs="+", type=int, default=[64, 256], help="of all ranks together")
    parser.add_argument("--epochs", type=int, default=10, help="over which time is taken")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("--work-in", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work_in:
        work(options.task, options.num_envs[0], options.epochs, Path(options.work_in))
        return 0
    rows = []
    for task, num_envs in itertools.product(options.tasks, options.num_envs):
        alone = None
        for ranks in options.ranks:
            found = measure(task, num_envs, ranks, options.epochs)
            alone = alone or found
            epoch_s = statistics.median(found["wall"])
            rows.append(
                {
                    "task": task,
                    "ranks": ranks,
                    "envs_per_rank": num_envs // ranks,
                    "distance_after_1": distance(found["after_one"], alone["after_one"]),
                    "distance_after_5": distance(found["after_five"], alone["after_five"]),
                    "epoch_s": epoch_s,
                    "processor_s_per_rank": statistics.median(found["processor"]),
                    "averages_per_epoch": found["times"] // options.epochs,
                    "averaged_kb_per_epoch": 4e-3 * found["numbers"] / options.epochs,
                }
            )
    print(table(rows))
    print(write("scale_out", rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
