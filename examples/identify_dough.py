"""Find Young's modulus and yield stress of dough from a recorded motion, by gradient descent through the physics.

A plate on springs presses dough of unknown constants and lets go; 250 points of the dough and the plate are tracked.
From a wrong guess, the same motion is simulated again and again, and the guess follows the gradient of the squared
distance to the recording, in the logarithms of both constants (Poisson's ratio and density are known). Here the
recording comes from the simulator with hidden constants, so the answer is known too. The motion must tell the two
apart: pressed slowly, soft dough that never yields looks much like stiff dough that does, and the descent may end
there. Writes `<out>/identify_dough.json` and `.png`.

    python -m examples.identify_dough --young 10000 --yield-stress 200 --first-young 5000 --first-yield-stress 400
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

import rewarped_sim
from rewarped_sim.engine.mpm.material_table import MATERIAL_FIELDS
from rewarped_sim.engine.mpm.materials import lame
from rewarped_sim.env import Env

POISSON = 0.2
NOISE_SEED = 0


def press_and_release(steps: int) -> Tensor:
    """The arm's actions, (steps, 1, 3): a short way up, down into the dough, still, and up for the last quarter."""
    actions = torch.zeros(steps, 1, 3)
    actions[: steps // 8, 0, 2] = 1.0
    actions[steps // 8 : steps // 8 + steps // 3, 0, 2] = -1.0
    actions[3 * steps // 4 :, 0, 2] = 1.0
    return actions


def with_constants(env: Env, young: Tensor, yield_stress: Tensor) -> Tensor:
    """The env's material table, (1, 1, len(MATERIAL_FIELDS)), with these constants in it; differentiable."""
    mu, lam = lame(1.0, POISSON)
    columns = dict(zip(MATERIAL_FIELDS, torch.tensor(env.model.material_table[0]).float(), strict=True))
    columns |= {"mu": mu * young, "lam": lam * young, "yield_stress": yield_stress}
    return torch.stack(list(columns.values())).view(1, 1, -1)


def motion(env: Env, materials: Tensor, actions: Tensor) -> Tensor:
    """Tracked points of the dough, and the plate, after every step: (steps, 251, 3) [m]."""
    env.reset()
    env.materials = materials
    tracked = []
    for action in actions:
        obs = env.step(action).obs
        tracked.append(torch.cat((obs["particle_q"][0], env.state["bodies"][0, :, :3])))
    return torch.stack(tracked)


def identify(
    env: Env,
    recording: Tensor,
    actions: Tensor,
    first: tuple[float, float],
    *,
    iterations: int,
    learning_rate: float,
) -> list[dict[str, float]]:
    """Young's modulus [Pa], yield stress [Pa] and root mean square distance to the recording [m] of each iteration."""
    logs = torch.tensor(first).log().requires_grad_()
    optimiser = torch.optim.Adam([logs], lr=learning_rate, betas=(0.7, 0.95))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, iterations, 0.02 * learning_rate)
    history = []
    progress = tqdm(range(iterations), desc="identify", unit="iteration")
    for _ in progress:
        young, yield_stress = logs.exp()
        distance = motion(env, with_constants(env, young, yield_stress), actions) - recording
        error = distance.square().sum(dim=2).mean()
        history.append(
            {"young": young.item(), "yield_stress": yield_stress.item(), "rms_m": error.sqrt().item()}
        )
        progress.set_postfix(
            {"E": f"{young:.0f} Pa", "yield": f"{yield_stress:.1f} Pa", "rms": f"{1e3 * error.sqrt():.3f} mm"}
        )
        (logs.grad,) = torch.autograd.grad(error, logs)
        optimiser.step()
        schedule.step()
    return history


def draw(path: Path, history: list[dict[str, float]], truth: tuple[float, float]) -> None:
    """Both constants relative to the truth, and the distance to the recording, over iterations."""
    figure = Figure(figsize=(8.4, 3.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for name, true, label in (
        ("young", truth[0], "Young's modulus"),
        ("yield_stress", truth[1], "yield stress"),
    ):
        left.plot([entry[name] / true for entry in history], label=label, linewidth=1.8)
    left.axhline(1.0, color="#8a8f98", linestyle="--", linewidth=1.0)
    left.set_yscale("log", base=2)
    left.set_ylabel("guess / truth")
    left.legend(frameon=False)
    right.plot([1e3 * entry["rms_m"] for entry in history], color="#d1762b", linewidth=1.8)
    right.set_yscale("log")
    right.set_ylabel("distance to the recording [mm]")
    for axes in (left, right):
        axes.set_xlabel("iterations of gradient descent")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def main() -> int:
    """Record, identify, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--young", type=float, default=10000.0, help="hidden Young's modulus [Pa] (10000)")
    parser.add_argument("--yield-stress", type=float, default=200.0, help="hidden yield stress [Pa] (200)")
    parser.add_argument("--first-young", type=float, default=5000.0, help="first guess [Pa] (5000)")
    parser.add_argument("--first-yield-stress", type=float, default=400.0, help="first guess [Pa] (400)")
    parser.add_argument(
        "--noise", type=float, default=0.0005, help="noise of the recording, 1 sigma [m] (0.0005)"
    )
    parser.add_argument("--steps", type=int, default=40, help="control steps of the recording (40)")
    parser.add_argument("--iterations", type=int, default=100, help="gradient steps (100)")
    parser.add_argument("--learning-rate", type=float, default=0.1, help="Adam's, in log units (0.1)")
    parser.add_argument("--out", type=Path, default=Path("runs/identify"), help="folder of the results")
    options = parser.parse_args()
    for name in ("young", "yield_stress", "first_young", "first_yield_stress", "steps", "iterations"):
        if not getattr(options, name) > 0:
            parser.error(f"--{name.replace('_', '-')} must be > 0, got {getattr(options, name)}")
    try:
        options.out.mkdir(parents=True, exist_ok=True)  # now: minutes of work are not to be for nothing
    except OSError as error:
        parser.error(f"--out {options.out} cannot be written: {error.strerror}")
    torch.set_flush_denormal(True)
    env = rewarped_sim.make(
        "spring_press", horizon=options.steps, material_gradient=True, randomize=False, num_threads=1
    )
    actions = press_and_release(options.steps)
    truth = (options.young, options.yield_stress)
    with torch.no_grad():
        hidden = with_constants(env, *torch.tensor(truth))
        recording = motion(env, hidden, actions)
    generator = torch.Generator().manual_seed(NOISE_SEED)
    recording = recording + options.noise * torch.randn(recording.shape, generator=generator)
    started = time.monotonic()
    history = identify(
        env,
        recording,
        actions,
        (options.first_young, options.first_yield_stress),
        iterations=options.iterations,
        learning_rate=options.learning_rate,
    )
    seconds = time.monotonic() - started
    found = history[-1]
    errors = {
        "young": found["young"] / truth[0] - 1.0,
        "yield_stress": found["yield_stress"] / truth[1] - 1.0,
    }
    result = {
        "truth": {"young": truth[0], "yield_stress": truth[1]},
        "found": found,
        "relative_error": errors,
        "noise_m": options.noise,
        "steps": options.steps,
        "seconds": round(seconds, 1),
        "history": history,
    }
    path = options.out / "identify_dough"
    path.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    draw(path.with_suffix(".png"), history, truth)
    print(
        f"Young's modulus {found['young']:.0f} Pa ({errors['young']:+.1%}), yield stress "
        f"{found['yield_stress']:.1f} Pa ({errors['yield_stress']:+.1%}) after {options.iterations} iterations in "
        f"{seconds:.0f} s; wrote {path}.json .png"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
