"""Draw the pictures of docs/mpm.md: what each material does when it is dropped, and the two contact laws.

    python docs/draw_mpm.py

The second picture takes its derivatives' errors from bench/results/contact_laws.json.
"""

import json
import math
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rewarped_sim.engine.kinematics import Shape, Tool
from rewarped_sim.engine.mpm.contact import MIN_INFLUENCE
from rewarped_sim.engine.mpm.materials import Corotated, Dough, Fluid, Material, NeoHookean, Sand
from rewarped_sim.engine.mpm.model import MpmModel, Part
from rewarped_sim.torch_bridge import make_bridge
from rewarped_sim.unit_cube import at_rest

PICTURES = Path(__file__).parent / "pictures"
RESULTS = Path(__file__).parents[1] / "bench" / "results"
CPU = torch.device("cpu")

GRID_SIZE = 48
FLOOR = 2.3 / GRID_SIZE
EDGE = 0.2
PARTICLES = 2000
DROP = 0.1
"""Height that the cubes fall from [m]."""
FRAME_S = 0.02
LAST_S = 1.0
WALL = 0.26
"""Of the basin that the cubes fall into, from its middle [m]."""
TURN = math.sqrt(0.5)
BASIN = Tool(
    shapes=tuple(
        Shape(name=name, kind="plane", size=(), position=position, quaternion=quaternion)
        for name, position, quaternion in (
            ("left", (0.5 - WALL, 0.5, 0.0), (0.0, TURN, 0.0, TURN)),
            ("right", (0.5 + WALL, 0.5, 0.0), (0.0, -TURN, 0.0, TURN)),
            ("front", (0.5, 0.5 - WALL, 0.0), (-TURN, 0.0, 0.0, TURN)),
            ("back", (0.5, 0.5 + WALL, 0.0), (TURN, 0.0, 0.0, TURN)),
        )
    )
)
MATERIALS: dict[str, tuple[Material, str]] = {
    "Dough": (Dough(young=5e4, poisson=0.3, density=1000.0, yield_stress=1500.0), "#c98a3a"),
    "Sand": (Sand(young=1e5, poisson=0.3, density=1600.0, friction_angle_deg=35.0), "#b8a04a"),
    "NeoHookean": (NeoHookean(young=2e4, poisson=0.3, density=1000.0), "#7a5fb0"),
    "Corotated": (Corotated(young=2e4, poisson=0.3, density=1000.0), "#b0568c"),
    "Fluid": (Fluid(young=1e5, poisson=0.3, density=1000.0), "#3f7fc4"),
}


def fall(material: Material) -> NDArray[np.float32]:
    """Positions of a dropped cube, a frame every `FRAME_S`: (frames, particles, 3)."""
    part = Part(material=material, num_particles=PARTICLES, particle_volume=EDGE**3 / PARTICLES)
    model = MpmModel(
        grid_size=GRID_SIZE,
        dt_s=FRAME_S / 40,
        num_substeps=40,
        parts=(part,),
        tool=BASIN,
        gravity=(0.0, 0.0, -9.81),
        floor_friction=0.5,
        tool_friction=0.0,
    )
    bridge = make_bridge(model, num_envs=1, device=CPU, horizon=0)
    centre = np.array([0.5, 0.5, FLOOR + DROP + EDGE / 2])
    cube = centre + EDGE * np.random.default_rng(0).uniform(-0.5, 0.5, (PARTICLES, 3))
    particles = at_rest(cube, CPU)[None]
    still = torch.zeros(1, 1)
    frames = [particles[0, :, :3].numpy()]
    for _ in range(round(LAST_S / FRAME_S)):
        particles = bridge.step({"particles": particles, "joint_q": still, "joint_dq": still})[
            "particles"
        ].clone()
        frames.append(particles[0, :, :3].numpy())
    return np.stack(frames)


def draw_materials(path: Path) -> None:
    """A column for each material, a row for each moment, seen from the side."""
    figure = Figure(figsize=(10.0, 2.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, len(MATERIALS), sharex=True, sharey=True)
    for (name, (material, color)), column in zip(MATERIALS.items(), grid.T, strict=True):
        frames = fall(material)
        after_fall = round((2.0 * DROP / 9.81) ** 0.5 / FRAME_S)
        height = frames[:, :, 2].mean(axis=1)
        deepest = after_fall + int(height[after_fall : after_fall + 10].argmin())
        for axes, frame, moment in zip(column, (deepest, -1), ("impact", f"{LAST_S:g} s"), strict=True):
            shown = frames[frame]
            axes.scatter(shown[:, 0], shown[:, 2] - FLOOR, s=2.0, color=color, linewidths=0)
            edge = WALL + 0.012  # particles stand a little deep in what stops their nodes
            basin = np.array([(-edge, 0.15), (-edge, 0.0), (edge, 0.0), (edge, 0.15)])
            axes.plot(basin[:, 0] + 0.5, basin[:, 1], color="#555b66", linewidth=1.0)
            outline = np.array([(-0.5, 0.0), (0.5, 0.0), (0.5, 1.0), (-0.5, 1.0), (-0.5, 0.0)]) * EDGE
            axes.plot(outline[:, 0] + 0.5, outline[:, 1], color="#8a8f98", linewidth=0.8, linestyle=":")
            axes.set(aspect="equal", xlim=(0.22, 0.78), ylim=(-0.02, 0.23), xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if column is grid.T[0]:
                axes.set_ylabel(moment)
        column[0].set_title(name, fontsize=10)
    figure.savefig(path)


def draw_contact(path: Path) -> None:
    """Influence over distance of both laws, and the errors of differences, task by task."""
    figure = Figure(figsize=(10.0, 3.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    influence, *errors = figure.subplots(1, 5, width_ratios=(1.5, 1, 1, 1, 1))
    colors = {"published": "#c05a3c", "smooth": "#2a6fbb"}

    distance = np.linspace(-0.5e-3, 4.5e-3, 2001)
    decay = np.minimum(np.exp(-MpmModel.softness * distance), 1.0)
    t = np.clip((decay - MIN_INFLUENCE) / (1.0 - MIN_INFLUENCE), 0.0, 1.0)
    laws = {"published": np.where(decay > MIN_INFLUENCE, decay, 0.0), "smooth": t * t * (3.0 - 2.0 * t)}
    for law, values in laws.items():
        influence.plot(1e3 * distance, values, color=colors[law], label=law)
    influence.set(xlabel="distance from the shape [mm]", ylabel="influence")
    influence.legend(frameon=False)

    rows = json.loads((RESULTS / "contact_laws.json").read_text())["rows"]
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    for axes, task in zip(errors, tasks, strict=True):
        for row in (row for row in rows if row["task"] == task):
            found = {
                float(key.removeprefix("error_at_")): row[key] for key in row if key.startswith("error_at_")
            }
            axes.loglog(list(found), list(found.values()), "o-", color=colors[row["law"]], markersize=4)
        axes.set(title=task, xlabel="step", ylim=(2e-4, 1.0))
        axes.title.set_fontsize(9)
    errors[0].set_ylabel("difference against adjoint")
    for axes in (influence, *errors):
        _clean(axes)
    figure.savefig(path)


def _clean(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Draw both."""
    draw_materials(PICTURES / "mpm_materials.png")
    draw_contact(PICTURES / "mpm_contact.png")
    print(f"wrote {PICTURES}/mpm_materials.png, mpm_contact.png")


if __name__ == "__main__":
    main()
