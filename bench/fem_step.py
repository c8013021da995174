"""Forward and backward time of one control step of the soft bodies: of the engine alone, and of the task's env.

One CPU core. The bodies fall and land first: what is measured are bodies that move on the ground. Times are process
times of the whole batch, the median over the control steps.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import rewarped_sim
from bench.report import table, write
from rewarped_sim.engine.fem.solver import FemSolver
from rewarped_sim.env import Env

TASKS = ("soft_jumper", "soft_jumper_small")
ENVS = (1, 4, 16, 32, 64)
SETTLE_STEPS = 20
MEASURED_STEPS = 16
UPSTREAM_S = {1: 0.0594, 4: 0.0918, 32: 0.55}
"""Rewarped 1.3.3 on Warp 1.3.3, one core of a like machine, forward and backward of soft_jumper's control step [s];
with 32 environments it is an extrapolation from 1 and 4."""


def measure(task: str, num_envs: int) -> dict[str, Any]:
    """One row."""
    torch.set_num_threads(1)
    env = rewarped_sim.make(task, num_envs=num_envs, horizon=MEASURED_STEPS, num_threads=1)
    engine_s = engine_times(env)
    env_s = env_times(env)
    work = env.model.num_tets * env.model.num_substeps * num_envs
    upstream = UPSTREAM_S.get(num_envs) if task == "soft_jumper" else None
    return {
        "task": task,
        "envs": num_envs,
        "engine_forward_s": engine_s[0],
        "engine_backward_s": engine_s[1],
        "ns_per_tet_substep": 1e9 * sum(engine_s) / work,
        "env_forward_s": env_s[0],
        "env_backward_s": env_s[1],
        "env_sum_s": sum(env_s),
        "speedup_over_upstream": upstream / sum(env_s) if upstream else "-",
    }


def engine_times(env: Env) -> tuple[float, float]:
    """Seconds of the solver's forward and backward control step, from where the env's bodies are after landing."""
    land(env)
    solver = FemSolver(env.model, num_envs=env.num_envs, num_slots=1, num_threads=1)
    rows = np.zeros(solver.state.shape, np.float32)
    rows[0] = env.state["vertices"].numpy()
    solver.state.assign(rows)
    solver.state_bar.assign(np.ones(solver.state_bar.shape, np.float32))
    seed = solver.state_bar.numpy().copy()

    def backward() -> None:
        solver.state_bar.assign(seed)
        solver.backward(0)

    return median(lambda: solver.forward(0)), median(backward)


def env_times(env: Env) -> tuple[float, float]:
    """Seconds of an env's step with gradient, and of its part of the way back."""
    land(env)
    action = torch.zeros(env.num_envs, env.action_dim, requires_grad=True)
    forward, backward = [], []
    for _ in range(3):
        env.detach()
        total = torch.zeros(())
        for _ in range(MEASURED_STEPS):
            start = time.process_time()
            total = total + env.step(action).reward.mean()
            forward.append(time.process_time() - start)
        start = time.process_time()
        torch.autograd.grad(total, action)
        backward.append((time.process_time() - start) / MEASURED_STEPS)
    return statistics.median(forward), statistics.median(backward)


def land(env: Env) -> None:
    """A new episode, up to when the bodies are on the ground."""
    env.reset()
    with torch.no_grad():
        for _ in range(SETTLE_STEPS):
            env.step(torch.zeros(env.num_envs, env.action_dim))


def median(run: Callable[[], None]) -> float:
    """Process time of a call, in the median [s]."""
    times = []
    for _ in range(MEASURED_STEPS):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)


def main() -> None:
    """Measure, print, write."""
    rows = [measure(task, count) for task in TASKS for count in ENVS]
    print(table(rows))
    print(write("fem_step", rows))


if __name__ == "__main__":
    main()
