"""Optimise open-loop sequences of actions by gradient descent through the physics, and film the best.

No policy and no critic: the sum of rewards is differentiated with respect to every action of the episode, and Adam
climbs it. Where nothing touches there is no gradient, so several candidates descend side by side, each from a slow
random motion of its own; the first one starts from doing nothing. What this reaches from one start state is a floor
for what a policy should learn, and a picture of what the gradients are worth. Writes `<out>/<task>.json`, `.png`
(return over iterations) and `.mp4` (do-nothing beside the best).

    python -m examples.optimise_trajectory --task hand_flip --steps 100 --iterations 40 --out runs/trajectories
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

import rewarped_sim
from rewarped_sim.env import DeviceError, Env
from rewarped_sim.registry import task_names
from rewarped_sim.video import Recording, write_video


def optimise(
    env: Env, actions: Tensor, *, iterations: int, learning_rate: float, max_grad_norm: float
) -> tuple[Tensor, Tensor]:
    """Climb from `actions` (steps, num_envs, action_dim), each env's sequence by itself, all from the same start.

    Returns the best sequence (steps, action_dim) and all returns (iterations + 1, num_envs).
    """
    start = same_start(env)
    actions = actions.clone().requires_grad_()
    optimiser = torch.optim.Adam([actions], lr=learning_rate)
    best, returns = actions.detach()[:, 0].clone(), []
    progress = tqdm(range(iterations + 1), desc=env.task_name, unit="iteration")
    for iteration in progress:
        env.load_state_dict(start)
        total = torch.stack([env.step(action).reward for action in actions]).sum(dim=0)
        winner = int(total.argmax())
        if not returns or total[winner] > torch.stack(returns).max():
            best = actions.detach()[:, winner].clone()
        returns.append(total.detach())
        progress.set_postfix({"best": f"{torch.stack(returns).max():.2f}"})
        if iteration < iterations:
            (gradient,) = torch.autograd.grad(total.sum(), actions)
            norm = gradient.square().sum(dim=(0, 2), keepdim=True).sqrt()
            actions.grad = -gradient * (max_grad_norm / norm.clamp_min(max_grad_norm))
            optimiser.step()
            with torch.no_grad():
                actions.clamp_(-1.0, 1.0)  # beyond its limits an action has no gradient to come back
    env.load_state_dict(start)
    return best, torch.stack(returns)


def same_start(env: Env) -> dict[str, Any]:
    """Start an episode, with the first env's start in all of them."""
    env.reset()
    state = env.state_dict()
    for name, value in state.items():
        if isinstance(value, Tensor):
            state[name] = value[:1].expand_as(value).clone()
    env.load_state_dict(state)
    return state


def slow_motions(steps: int, candidates: int, action_dim: int, size: float, seed: int) -> Tensor:
    """Constant random actions of up to `size`, (steps, candidates, action_dim); the first candidate stays still."""
    generator = torch.Generator().manual_seed(seed)
    velocity = size * (2.0 * torch.rand(1, candidates, action_dim, generator=generator) - 1.0)
    velocity[:, 0] = 0.0
    return velocity.repeat(steps, 1, 1)


def film(env: Env, start: dict[str, Any], actions: Tensor, title: str) -> Recording:
    """Record a sequence (steps, action_dim) from a start state."""
    env.load_state_dict(start)
    recording = Recording(title=title)
    total = 0.0
    recording.add(env.scene(), "return 0.0")
    with torch.no_grad():
        for action in actions:
            total += env.step(action.expand(env.num_envs, -1)).reward[0].item()
            recording.add(env.scene(), f"return {total:.1f}")
    return recording


def draw_curve(path: Path, returns: Tensor, title: str) -> None:
    """Plot the returns (iterations, candidates) of all candidates."""
    figure = Figure(figsize=(6.4, 3.8), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(returns, color="#2a6fbb", linewidth=1.0, alpha=0.35)
    axes.plot(returns.cummax(dim=0).values.amax(dim=1), color="#2a6fbb", linewidth=2.0, label="best so far")
    axes.axhline(
        returns[0, 0].item(), color="#8a8f98", linestyle="--", label=f"do-nothing: {returns[0, 0]:.1f}"
    )
    axes.set_xlabel("iterations of gradient descent")
    axes.set_ylabel("return")
    axes.set_title(title)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path)


def main() -> int:
    """Optimise, film, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", default="spring_press", choices=task_names())
    parser.add_argument("--steps", type=int, default=100, help="control steps of the sequence (100)")
    parser.add_argument("--iterations", type=int, default=40, help="gradient steps (40)")
    parser.add_argument("--candidates", type=int, default=4, help="sequences that climb side by side (4)")
    parser.add_argument("--initial", type=float, default=0.5, help="size of the random first actions (0.5)")
    parser.add_argument("--learning-rate", type=float, default=0.05, help="Adam's, in units of action (0.05)")
    parser.add_argument(
        "--max-grad-norm", type=float, default=1.0, help="gradient norm is clipped to this (1.0)"
    )
    parser.add_argument("--seed", type=int, default=0, help="draws the start (0)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda[:index] (cpu)")
    parser.add_argument("--out", type=Path, default=Path("runs/trajectories"), help="folder of the results")
    options = parser.parse_args()
    for name in ("steps", "iterations", "candidates"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be > 0, got {getattr(options, name)}")
    try:
        options.out.mkdir(parents=True, exist_ok=True)  # now: minutes of work are not to be for nothing
    except OSError as error:
        parser.error(f"--out {options.out} cannot be written: {error.strerror}")
    try:
        env = rewarped_sim.make(
            options.task,
            num_envs=options.candidates,
            device=options.device,
            seed=options.seed,
            horizon=options.steps,
        )
    except DeviceError as error:
        parser.error(str(error))
    if options.steps >= env.max_episode_steps:
        parser.error(f"--steps must be below the task's {env.max_episode_steps} steps, got {options.steps}")
    print(env.memory_report())
    torch.set_flush_denormal(True)
    started = time.monotonic()
    first = slow_motions(options.steps, options.candidates, env.action_dim, options.initial, options.seed)
    best, returns = optimise(
        env,
        first.to(env.device),
        iterations=options.iterations,
        learning_rate=options.learning_rate,
        max_grad_norm=options.max_grad_norm,
    )
    took_s = time.monotonic() - started
    start = env.state_dict()
    still = film(env, start, torch.zeros_like(best), "do-nothing")
    moved = film(env, start, best, "optimised")
    result = {
        "task": options.task,
        "steps": options.steps,
        "candidates": options.candidates,
        "seed": options.seed,
        "do_nothing": returns[0, 0].item(),
        "best_first_guess": returns[0].max().item(),
        "best": returns.max().item(),
        "seconds": round(took_s, 1),
        "returns": returns.tolist(),
        "actions": best.tolist(),
    }
    path = options.out / options.task
    path.with_suffix(".json").write_text(json.dumps(result) + "\n")
    draw_curve(path.with_suffix(".png"), returns, f"{options.task}: {options.steps} open-loop actions")
    remark = write_video(path.with_suffix(".mp4"), [still, moved])
    print(
        f"{options.task}: do-nothing {result['do_nothing']:.2f}, best first guess {result['best_first_guess']:.2f}, "
        f"optimised {result['best']:.2f}; wrote {path}.json .png .mp4"
    )
    if remark:
        print(remark)
    return 0


if __name__ == "__main__":
    sys.exit(main())
