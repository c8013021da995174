"""The loss surfaces of trained actors, side by side: what each algorithm makes of the same physics.

    python -m rewarped_sim.loss_surface --run runs/ant_run_sapo_0 --run runs/ant_run_shac_0 --out surface.png

On a plane through a run's actor weights, spanned by two random directions of the weights' own size, it shows the loss
that the actor descends: minus the objective of its algorithm over one window, from the same starts and with the same
noise at every point, and with the critics of the checkpoint. The figures lie beside the picture, as .npz and .json.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tqdm import tqdm

from rewarped_sim.env import DeviceError
from rewarped_sim.json_file import write_json
from rewarped_sim.output_path import require_writable
from rewarped_sim.registry import ConfigError
from rewarped_sim.train import BAD_INPUT, choose_device, show_log
from rewarped_sim.trained_run import TrainedRun, load_run, read_run_config
from sapo_learner.apg import Apg
from sapo_learner.loss_surface import filter_normalized_direction, surface
from sapo_learner.sapo import Sapo
from sapo_learner.shac import Shac

log = logging.getLogger("rewarped_sim.loss_surface")

FIRST_ORDER = ("sapo", "shac", "apg")
"""Algorithms whose actor climbs an objective of a window."""


def loss_surface(run: TrainedRun, coordinates: Sequence[float], *, seed: int) -> NDArray[np.float64]:
    """Return minus the actor's objective at every point of a plane through the run's last actor, (size, size).

    coordinates: along both directions, in lengths of the weights. seed: of the directions.
    Raises ConfigError where the algorithm has no such objective.
    """
    learner = run.learner
    if not isinstance(learner, (Sapo, Shac, Apg)):
        raise ConfigError(
            f"{run.folder}: {run.config.algo} has no objective of a window; those that have: {list(FIRST_ORDER)}"
        )
    generator = torch.Generator().manual_seed(seed)
    parameters = [*learner.policy.encoder.parameters(), *learner.policy.head.parameters()]
    first, second = (filter_normalized_direction(parameters, generator) for _ in range(2))
    started = time.monotonic()

    def say(rows: int) -> None:
        left_s = (time.monotonic() - started) * (len(coordinates) - rows) / rows
        log.info("%s: row %d/%d, %s left", run.folder, rows, len(coordinates), tqdm.format_interval(left_s))

    return -surface(parameters, first, second, coordinates, lambda: float(learner.look()), say).numpy()


def draw(path: Path, surfaces: dict[str, NDArray[np.float64]], coordinates: NDArray[np.float64]) -> None:
    """Draw the surfaces side by side, each with a scale of its own: algorithms mean different things by their loss."""
    figure = Figure(figsize=(5.2 * len(surfaces), 4.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    a, b = np.meshgrid(coordinates, coordinates, indexing="ij")
    for index, (title, loss) in enumerate(surfaces.items()):
        axes: Any = figure.add_subplot(1, len(surfaces), index + 1, projection="3d")
        axes.plot_surface(a, b, loss, cmap="viridis", linewidth=0.0, rstride=1, cstride=1)
        axes.set_title(title)
        axes.set_xlabel("first direction")
        axes.set_ylabel("second direction")
        axes.set_zlabel("loss")
        axes.tick_params(labelsize=7)
        axes.set_box_aspect(None, zoom=0.9)  # room for the label on the right
    figure.savefig(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw from the command line; returns 0 done, 2 bad input, 3 device missing, 1 stopped or not written."""
    options = _parser().parse_args(arguments)
    show_log()
    try:
        _draw_runs(options)
    except BAD_INPUT as error:
        return _complain(str(error), 2)
    except DeviceError as error:
        return _complain(str(error), 3)
    except OSError as error:
        return _complain(f"{error.filename or options.out}: {error.strerror or error}", 1)
    except KeyboardInterrupt:
        return _complain("stopped before the surfaces were done; nothing was written", 1)
    return 0


def _draw_runs(options: argparse.Namespace) -> None:
    if options.size < 2:
        raise ConfigError(f"--size must be > 1, got {options.size}")
    if not 0 < options.span < math.inf:
        raise ConfigError(f"--span must be > 0 and finite, got {options.span}")
    if options.num_envs is not None and options.num_envs < 1:
        raise ConfigError(f"--num-envs must be > 0, got {options.num_envs}")
    if options.out.suffix != ".png":
        raise ConfigError(f"--out must end in .png, got {options.out}")
    require_writable(options.out, "--out")
    device = choose_device(options.device)
    for folder in options.run:
        read_run_config(folder)  # all are there, before the first one takes its time
    coordinates = np.linspace(-options.span, options.span, options.size)
    surfaces, rows = {}, []
    for folder in options.run:
        run = load_run(folder, device=device, num_envs=options.num_envs)
        title = f"{run.config.task}, {run.config.algo}, seed {run.config.seed}, epoch {run.epoch}"
        title += f" ({len(surfaces) + 1})" if title in surfaces else ""
        surfaces[title] = loss_surface(run, coordinates, seed=options.seed)
        rows.append({"title": title, "run": str(folder), "checkpoint": run.checkpoint.name})
    draw(options.out, surfaces, coordinates)
    np.savez(options.out.with_suffix(".npz"), coordinates=coordinates, loss=np.stack([*surfaces.values()]))
    settings = {"runs": rows, "size": options.size, "span": options.span, "seed": options.seed}
    write_json(options.out.with_suffix(".json"), settings)
    log.info("loss surfaces: %s, and .npz and .json beside it", options.out)


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"error: {message}\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rewarped_sim.loss_surface", description="Draw the loss around trained actors."
    )
    add = parser.add_argument
    add(
        "--run", type=Path, action="append", required=True, help="folder of a run; may be given several times"
    )
    add("--size", type=int, default=21, help="points along each direction (default: 21)")
    add("--span", type=float, default=1.0, help="how far to go, in lengths of the weights (default: 1.0)")
    add("--seed", type=int, default=0, help="of the two directions (default: 0)")
    add("--num-envs", type=int, help="envs side by side (default: as many as the run trained in)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    add("--out", type=Path, required=True, help="the picture, a .png")
    return parser


if __name__ == "__main__":
    sys.exit(main())
