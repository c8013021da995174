"""Forward and backward time of one control step of the MPM tasks, and the memory it takes.

One CPU core. First the particles fall, then the tool is brought to work: the pin presses and rolls, the fingers close,
the box is carried away, the plate presses. Times are process times per environment and control step, the median of
the steps at work. Every row has a process of its own, so that its peak memory is its own too.
"""

import multiprocessing
import resource
import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch

import rewarped_sim
from bench.report import table, write
from rewarped_sim import registry
from rewarped_sim.env import Env

MEASURED_STEPS = 8
ENVS = (1, 4, 16)
UPSTREAM_S = {"hand_flip": 1.43, "rolling_flat": 1.23, "fluid_move": 0.874}
"""Rewarped 1.3.3 on Warp 1.3.3, one core of a like machine, forward and backward of one control step [s]."""


@dataclass(frozen=True)
class Script:
    """Actions that bring a tool to work, by joint name; joints that are not named rest."""

    settle_steps: int
    """Control steps at rest, for the particles to fall."""
    approach_steps: int
    """Control steps that bring the tool to where it works."""
    approach: dict[str, float]
    work: dict[str, float]
    """What is measured."""


_CLOSE = {
    f"{finger}{joint}": share
    for finger in ("FF", "MF", "RF", "LF")
    for joint, share in (("J2", 0.5), ("J1", 0.3), ("J0", 0.3))
}
_CARRY = {"box_x": 0.3, "box_y": -0.2, "box_z": 0.4}
SCRIPTS = {
    "hand_flip": Script(40, 60, _CLOSE, _CLOSE),
    "rolling_flat": Script(
        20,
        14,
        {"pin_x": 0.3, "pin_z": -1.0, "pin_yaw": 0.2},
        {"pin_x": 0.5, "pin_z": -0.1, "pin_yaw": 0.2},
    ),
    "fluid_move": Script(40, 10, _CARRY, _CARRY),
    "spring_press": Script(20, 8, {"arm_z": -1.0}, {"arm_z": -0.2}),
}
TASKS = tuple(
    task + size for task in SCRIPTS for size in ("", "_small") if task + size in registry.task_names()
)


def measure(task: str, num_envs: int) -> dict[str, Any]:
    """One row: medians over the steps of one window at work."""
    torch.set_num_threads(1)
    rewarped_sim.make(task, num_envs=1, horizon=1)  # compiles the kernels before anything is measured
    before = peak_memory()
    env = rewarped_sim.make(task, num_envs=num_envs, horizon=MEASURED_STEPS, num_threads=1, randomize=False)
    script = SCRIPTS[task.removesuffix("_small")]
    env.reset()
    with torch.no_grad():
        for _ in range(script.settle_steps):
            env.step(torch.zeros(num_envs, env.action_dim))
        for _ in range(script.approach_steps):
            env.step(actions(env, script.approach))
    action = actions(env, script.work).requires_grad_()
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
    model = env.model
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


def actions(env: Env, by_joint: dict[str, float]) -> torch.Tensor:
    """The same action for every env, (num_envs, joints)."""
    one = torch.tensor([by_joint.get(name, 0.0) for name in env.joint_names])
    return one.repeat(env.num_envs, 1)


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
