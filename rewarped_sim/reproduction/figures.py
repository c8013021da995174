"""Figures of a suite, drawn without a display: learning curves, and for sweeps what they were made for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rewarped_sim.reproduction.record import Record
from rewarped_sim.reproduction.tables import LEAST_SEEDS, labels_of, seed_means, tasks_of
from sapo_learner.statistics import mean_ci95

COLORS = {
    "sapo": "#d1362b",
    "shac": "#2a6fbb",
    "apg": "#3a9e5c",
    "ppo": "#8a5bb5",
    "sac": "#d98b1f",
    "trajopt": "#6b7078",
    "sapo/quick": "#e377c2",
}
"""The same in every figure; variations take theirs from a colour map."""
GREY = "#8a8f98"
COLUMNS = 3
GRID_POINTS = 200
SWEPT = ("initial_temperature", "target_entropy_per_dim")
"""The settings that the suite `entropy` goes through."""


def draw_figures(folder: Path, suite: str, records: Sequence[Record]) -> dict[Path, str]:
    """Write the figures of a suite's records, at least one; returns what each shows by its path."""
    folder.mkdir(parents=True, exist_ok=True)
    bands = "mean over seeds while training, with sampled actions; bands are 95 % confidence intervals"
    if suite == "entropy":
        path = folder / f"{suite}_grid.png"
        draw_grid(path, records)
        return {path: "Return over first temperature and target entropy, sampled actions, mean over seeds"}
    path = folder / f"{suite}_curves.png"
    draw_curves(path, records)
    figures = {path: f"Return over env steps: {bands}"}
    if suite == "envs":
        path = folder / f"{suite}_minutes.png"
        draw_curves(path, records, over="minutes")
        figures[path] = f"Return over wall-clock time, taken as even over each run: {bands}"
    return figures


def draw_curves(path: Path, records: Sequence[Record], *, over: str = "env_steps") -> None:
    """Draw, for each task, the return of each algorithm over env steps [million] or over wall-clock `minutes`."""
    tasks, labels = tasks_of(records), labels_of(records)
    points = [label for label in labels if label not in COLORS]
    shades = colormaps["viridis"](np.linspace(0.0, 0.9, max(len(points), 1)))
    colors = COLORS | dict(zip(points, shades, strict=False))
    figure, all_axes = _panels(len(tasks))
    for task, axes in zip(tasks, all_axes, strict=True):
        _draw_task(axes, [record for record in records if record.task == task], colors, over)
        axes.set_title(task)
    handles = [all_axes[0].plot([], [], color=colors[label], linewidth=2.0)[0] for label in labels]
    handles += all_axes[0].plot([], [], color=GREY, linestyle="--", linewidth=1.0)
    names = [*labels, "do-nothing"]
    figure.legend(
        handles, names, loc="outside lower center", ncols=min(len(names), 2 + len(tasks)), frameon=False
    )
    figure.savefig(path)


def draw_grid(path: Path, records: Sequence[Record], swept: tuple[str, str] = SWEPT) -> None:
    """Draw, for each task and algorithm, the mean return over two settings of the algorithm."""
    panels = list(
        dict.fromkeys((task, r.algo) for task in tasks_of(records) for r in records if r.task == task)
    )
    figure, all_axes = _panels(len(panels))
    for (task, algo), axes in zip(panels, all_axes, strict=True):
        cells = {
            record.label: tuple(record.config["algo_options"][name] for name in swept)
            for record in records
            if (record.task, record.algo) == (task, algo)
        }
        first, second = ([*sorted({cell[i] for cell in cells.values()})] for i in range(2))
        means = np.full((len(second), len(first)), np.nan)
        for label, (a, b) in cells.items():
            means[second.index(b), first.index(a)] = np.mean(seed_means(records, task, label, "stochastic"))
        image = axes.imshow(means, origin="lower", aspect="auto", cmap="viridis")
        middle = 0.5 * (np.nanmin(means) + np.nanmax(means))
        for (row, column), mean in np.ndenumerate(means):
            if np.isfinite(mean):
                color = "white" if mean < middle else "black"
                axes.text(column, row, f"{mean:.4g}", ha="center", va="center", color=color, fontsize=8)
        axes.set_xticks(range(len(first)), [f"{value:g}" for value in first])
        axes.set_yticks(range(len(second)), [f"{value:g}" for value in second])
        axes.set_xlabel(swept[0])
        axes.set_ylabel(swept[1])
        axes.set_title(task if algo == "sapo" else f"{task}, {algo}")
        figure.colorbar(image, ax=axes, label="return")
    figure.savefig(path)


def curves_on_one_grid(
    records: Sequence[Record], over: str = "env_steps"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Interpolate the runs' curves where all of them have one: abscissas (P,) and returns (runs, P); P may be 0.

    over: env_steps [million] or minutes. Runs in which no episode ended have no curve, and are left out; over minutes
    those too whose time was not measured.
    """
    curves = [
        (_abscissa(record, over), np.asarray(record.curve["return"], float))
        for record in records
        if record.curve["env_steps"] and (over == "env_steps" or record.wall_clock_s)
    ]
    if not curves:
        return np.zeros(0), np.zeros((0, 0))
    first, last = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    grid = np.linspace(first, last, GRID_POINTS) if last > first else np.array([last])
    return grid, np.stack([np.interp(grid, x, returns) for x, returns in curves])


def _abscissa(record: Record, over: str) -> NDArray[np.float64]:
    steps = np.asarray(record.curve["env_steps"], float)
    return steps / 1e6 if over == "env_steps" else steps * (record.wall_clock_s / 60.0 / record.env_steps)


def _draw_task(axes: Any, records: Sequence[Record], colors: Mapping[str, Any], over: str) -> None:
    curves = {
        label: curves_on_one_grid([record for record in records if record.label == label], over)
        for label in labels_of(records)
    }
    curves = {label: curve for label, curve in curves.items() if len(curve[0])}
    for label, (x, returns) in curves.items():
        axes.plot(x, returns.mean(axis=0), color=colors[label], linewidth=1.6)
    nothing = float(np.mean([record.agents["do_nothing"]["mean"] for record in records]))
    axes.axhline(nothing, color=GREY, linestyle="--", linewidth=1.0)
    axes.margins(y=0.15)
    axes.set_ylim(axes.get_ylim())  # by the means: an interval may be wider than all there is to see
    for label, (x, returns) in curves.items():
        if len(returns) >= LEAST_SEEDS:
            low, high = np.transpose([mean_ci95(column)[1:] for column in returns.T])
            axes.fill_between(x, low, high, color=colors[label], alpha=0.18, linewidth=0)
    axes.set_xlabel("env steps [million]" if over == "env_steps" else "wall-clock time [min]")
    axes.set_ylabel("episode return")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _panels(count: int) -> tuple[Figure, list[Any]]:
    """Make a figure with so many axes in rows of at most `COLUMNS`."""
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(4.6 * columns, 3.4 * rows + 0.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(rows, columns, index + 1) for index in range(count)]
