"""The published and the smooth contact law side by side, task by task: the motion, and what its derivative is worth.

A scripted rollout brings each task into contact; its return and final heights say how far the two laws part. Then a
window of a few control steps is differentiated with respect to its actions, by the adjoint and by central differences
of three step sizes, along random directions. Where contact has kinks and jumps, a finite step sees what no derivative
does: the step at which the two still agree is the step that an optimiser may take on the word of its gradient. The
smallest step also shows float32's round-off.
"""

import multiprocessing
from typing import Any

import torch
import warp as wp
from torch import Tensor

import rewarped_sim
from bench.mpm_step import SCRIPTS, actions
from bench.report import table, write
from rewarped_sim.engine.mpm.contact import CONTACT_LAWS
from rewarped_sim.engine.mpm.kinks import count_kinks
from rewarped_sim.engine.mpm.solver import MpmSolver
from rewarped_sim.env import Env

WORK_STEPS = 20
"""Control steps at work that the scripted rollout ends with."""
WINDOW = 4
"""Control steps that are differentiated."""
DIRECTIONS = 8
DIFFERENCES = (1e-1, 1e-2, 1e-3)
"""Root mean square change of an action in [-1, 1]."""
BAND = 0.1
"""Relative width around a kink within which `count_kinks` counts a node."""


def measure(task: str, law: str) -> dict[str, Any]:
    """One row: a scripted rollout, the derivative at the start of its work, the nodes near a kink."""
    torch.set_num_threads(1)
    env = rewarped_sim.make(task, horizon=WINDOW, randomize=False, contact=law)
    script = SCRIPTS[task]
    work = actions(env, script.work)
    script_actions = [torch.zeros_like(work)] * script.settle_steps
    script_actions += [actions(env, script.approach)] * script.approach_steps
    env.reset()
    with torch.no_grad():
        total = sum(env.step(action).reward.item() for action in script_actions)
        start = env.state_dict()
        total += sum(env.step(work).reward.item() for _ in range(WORK_STEPS))
        height = env.state_dict()["x"][0, :, 2]
    errors = derivative_errors(env, start, work)
    kinks = kinks_at_work(env, start, work)
    return {
        "task": task,
        "law": law,
        "return": total,
        "mean_height_m": height.mean().item(),
        "top_height_m": height.quantile(0.99).item(),
        **{f"error_at_{eps:g}": error for eps, error in zip(DIFFERENCES, errors, strict=True)},
        "touched_share": kinks["touched"] / kinks["nodes"],
        **{f"{kink}_share": kinks[kink] / kinks["nodes"] for kink in ("cutoff", "onset", "sliding", "floor")},
    }


def derivative_errors(env: Env, start: dict[str, Any], work: Tensor) -> list[float]:
    """Relative error of differences against the adjoint over random directions, one number per step size."""
    base = work.repeat(WINDOW, 1, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(spread(env, start, base), base)
    directions = torch.randn(DIRECTIONS, *base.shape, generator=torch.Generator().manual_seed(0))
    directions = directions * (
        work != 0.0
    )  # resting joints may stand at a limit, where differences are one-sided
    expected = (directions * gradient).sum(dim=(1, 2, 3)).double()
    errors = []
    for eps in DIFFERENCES:
        with torch.no_grad():
            ahead, behind = (
                torch.stack([spread(env, start, base + sign * eps * d) for d in directions])
                for sign in (1.0, -1.0)
            )
        difference = (ahead - behind) / (2.0 * eps)
        errors.append(((difference - expected).norm() / expected.norm()).item())
    return errors


def spread(env: Env, start: dict[str, Any], window: Tensor) -> Tensor:
    """Mean squared distance of the observed particles from a point [m^2] after actions (steps, 1, joints); smooth."""
    env.load_state_dict(start)
    for action in window[:-1]:
        env.step(action)
    moved = env.step(window[-1])
    return (
        (moved.terminal_obs["particle_q"].double() - torch.tensor([0.2, 0.1, 0.0])).square().sum(dim=2).mean()
    )


def kinks_at_work(env: Env, start: dict[str, Any], work: Tensor) -> dict[str, int]:
    """`count_kinks` of the first control step at work."""
    solver = MpmSolver(env.model, num_envs=1, num_slots=1, requires_grad=False)
    fields = [start[name].flatten(start_dim=2) for name in ("x", "v", "C", "F")]
    joint_dq = env.task.control(start, work)["joint_dq"]
    inputs = [
        (solver.state, torch.cat(fields, dim=2)),
        (solver.joint_q, start["joint_q"]),
        (solver.joint_dq, joint_dq),
    ]
    if env.model.bodies:
        inputs.append((solver.bodies, start["bodies"]))
    for array, value in inputs:
        wp.to_torch(array)[0].copy_(value.reshape(array.shape[1:]))
    solver.forward(0)
    return count_kinks(solver, 0, BAND)


def main() -> None:
    """Measure, print, write."""
    jobs = [(task, law) for task in SCRIPTS for law in CONTACT_LAWS]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        rows = pool.starmap(measure, jobs, chunksize=1)
    print(table(rows))
    print(write("contact_laws", rows))


if __name__ == "__main__":
    main()
