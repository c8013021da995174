"""Forward and backward time of one control step of the MPM tasks, and the memory it takes.

One CPU core. The dough is first brought into contact: it falls, then the pin is pressed in and rolled. Times are
process times per environment and control step, the median of the steps in contact. Every row has a process of its own,
so that its peak memory is its own too.
"""

import multiprocessing
import resource
import statistics
import time
from typing import Any

import torch

import rewarped_sim
from bench.report import table, write

SETTLE_STEPS = 20
PRESS_STEPS = 14
MEASURED_STEPS = 8
TASKS = ("rolling_flat", "rolling_flat_small")
ENVS = (1, 4, 16)
UPSTREAM_S = {"rolling_flat": 1.23}
"""Rewarped 1.3.3 on Warp 1.3.3, one core of a like machine, forward and backward of one control step [s]."""


def measure(task: str, num_envs: int) -> dict[str, Any]:
    """One row: medians over the steps of one window in contact."""
    torch.set_num_threads(1)
    rewarped_sim.make(task, num_envs=1, horizon=1)  # compiles the kernels before anything is measured
    before = peak_memory()
    env = rewarped_sim.make(task, num_envs=num_envs, horizon=MEASURED_STEPS, num_threads=1, randomize=False)
    env.reset()
    with torch.no_grad():
        for step in range(SETTLE_STEPS + PRESS_STEPS):
            env.step(torch.tensor([[0.3, -1.0, 0.2]]).expand(num_envs, -1) * (step >= SETTLE_STEPS))
    action = torch.tensor([[0.5, -0.1, 0.2]]).repeat(num_envs, 1).requires_grad_()
    forward, backward = [], []
    for _ in range(3):
        env.detach()
        reward = torch.zeros(())
        for _ in range(MEASURED_STEPS):
            start = time.process_time()
            reward = reward + env.step(action).reward.mean()
            forward.append((time.process_time() - start) / num_envs)
        start = time.process_time()
        torch.autograd.grad(reward, action)
        backward.append((time.process_time() - start) / num_envs / MEASURED_STEPS)
    model = env._bridge.model
    forward_s, backward_s = statistics.median(forward), statistics.median(backward)
    substeps = model.num_particles * model.num_substeps
    return {
        "task": task,
        "envs": num_envs,
        "forward_s": forward_s,
        "backward_s": backward_s,
        "sum_s": forward_s + backward_s,
        "ns_per_particle_substep": 1e9 * (forward_s + backward_s) / substeps,
        "allocated_mb_per_env_step": model.bytes_per_env_slot / 1e6,
        "resident_mb_per_env_step": (peak_memory() - before) / 1e6 / num_envs / (MEASURED_STEPS + 1),
        "speedup_over_upstream": UPSTREAM_S[task] / (forward_s + backward_s) if task in UPSTREAM_S else "-",
    }


def peak_memory() -> int:
    """Largest resident size of this process so far [bytes]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Measure, print, write."""
    jobs = [(task, count) for task in TASKS for count in ENVS]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        rows = pool.starmap(measure, jobs, chunksize=1)
    print(table(rows))
    print(write("mpm_step", rows))


if __name__ == "__main__":
    main()
