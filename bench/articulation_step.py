"""Forward and backward time of one control step of the articulated models, per world and substep.

One CPU core, physics alone. The models first come to rest under random forces, in contact; then the best of several
control steps counts. Every row has a process of its own.
"""

import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.report import table, write
from rewarped_sim.assets.allegro_hand import allegro_hand
from rewarped_sim.assets.ant import ant, ant_run
from rewarped_sim.assets.cartpole import cartpole
from rewarped_sim.assets.hopper import hopper
from rewarped_sim.assets.humanoid import humanoid
from rewarped_sim.assets.snu_lower_body import snu_lower_body
from rewarped_sim.engine.articulation.model import ArticulationModel
from rewarped_sim.engine.articulation.solver import ArticulationSolver

SETTLE_STEPS = 30
REPEATS = 12
MODELS: dict[str, tuple[Callable[[], ArticulationModel], tuple[int, ...]]] = {
    "ant": (ant, (1, 64, 1024)),
    "ant_run": (ant_run, (64,)),
    "hopper": (hopper, (64,)),
    "humanoid": (humanoid, (64,)),
    "snu_humanoid": (snu_lower_body, (64,)),
    "cartpole": (cartpole, (64,)),
    "hand_reorient": (allegro_hand, (4, 64)),
}
"""Models, and the batches that they are measured in."""
UPSTREAM_US = {("ant_run", 64): 188.0, ("hand_reorient", 4): 1.38e6 / (4 * 64)}
"""Rewarped 1.3.3, one core of a like machine, forward and backward [us per world and substep]."""


def measure(name: str, num_worlds: int) -> dict[str, Any]:
    """One row: best of several control steps."""
    model = MODELS[name][0]()
    solver = ArticulationSolver(model, num_envs=num_worlds, num_slots=1, num_threads=1)
    rng = np.random.default_rng(0)
    q = solver.joint_q.numpy()
    q[0] = model.start_q()
    solver.joint_q.assign(q)
    forces = solver.joint_f.numpy()
    free = [joint.kind == "free" for joint in model.joints for _ in range(6 if joint.kind == "free" else 1)]
    forces[0] = rng.normal(size=forces[0].shape) * (0.0 if all(free) else 1.0)
    solver.joint_f.assign(forces)
    for _ in range(SETTLE_STEPS):
        solver.forward(0)
        q, qd = solver.joint_q.numpy(), solver.joint_qd.numpy()
        q[0], qd[0] = q[-1], qd[-1]
        solver.joint_q.assign(q)
        solver.joint_qd.assign(qd)

    def backward() -> None:
        solver.joint_q_bar.fill_(1.0)
        solver.joint_qd_bar.fill_(1.0)
        solver.backward(0)

    forward_s, backward_s = best(lambda: solver.forward(0)), best(backward)
    per_world_substep = 1e6 / (num_worlds * model.num_substeps)
    both = (forward_s + backward_s) * per_world_substep
    return {
        "model": name,
        "worlds": num_worlds,
        "dofs": model.num_dofs,
        "forward_us": forward_s * per_world_substep,
        "backward_us": backward_s * per_world_substep,
        "sum_us": both,
        "control_step_s": forward_s + backward_s,
        "speedup_over_upstream": UPSTREAM_US[name, num_worlds] / both
        if (name, num_worlds) in UPSTREAM_US
        else "-",
    }


def best(step: Callable[[], None]) -> float:
    """Least process time of a call [s]."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        step()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    """Measure, print, write."""
    jobs = [(name, count) for name, (_, counts) in MODELS.items() for count in counts]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        rows = pool.starmap(measure, jobs, chunksize=1)
    print(table(rows))
    print(write("articulation_step", rows))


if __name__ == "__main__":
    main()
