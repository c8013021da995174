"""Learning curves of a suite, drawn without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rewarped_sim.reproduction.record import Record
from rewarped_sim.reproduction.tables import algorithms_of, tasks_of
from sapo_learner.statistics import mean_ci95

COLORS = {
    "sapo": "#d1362b",
    "shac": "#2a6fbb",
    "apg": "#3a9e5c",
    "ppo": "#8a5bb5",
    "sac": "#d98b1f",
    "trajopt": "#6b7078",
}
"""The same in every figure."""
MORE_COLORS = ("#1aa3a3", "#b5478f", "#8c6d31", "#4c72b0", "#937860", "#55a868")
"""For variations."""
COLUMNS = 3
GRID_POINTS = 200


def draw_curves(path: Path, records: Sequence[Record]) -> None:
    """Draw, for each task, the return over env steps: of each algorithm the mean over seeds and its 95 % interval."""
    tasks, algorithms = tasks_of(records), algorithms_of(records)
    variations = [algo for algo in algorithms if algo not in COLORS]
    colors = COLORS | {algo: MORE_COLORS[i % len(MORE_COLORS)] for i, algo in enumerate(variations)}
    columns = min(COLUMNS, len(tasks))
    rows = -(-len(tasks) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.4 * rows + 0.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    for index, task in enumerate(tasks):
        axes = figure.add_subplot(rows, columns, index + 1)
        _draw_task(axes, [record for record in records if record.task == task], colors)
        axes.set_title(task)
    handles = [figure.axes[0].plot([], [], color=colors[algo], linewidth=2.0)[0] for algo in algorithms]
    handles += figure.axes[0].plot([], [], color="#8a8f98", linestyle="--", linewidth=1.0)
    labels = [*algorithms, "do-nothing"]
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 7), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _draw_task(axes: Any, records: Sequence[Record], colors: Mapping[str, str]) -> None:
    curves = {
        algo: curves_on_one_grid([record for record in records if record.algo == algo])
        for algo in algorithms_of(records)
    }
    curves = {algo: (steps / 1e6, returns) for algo, (steps, returns) in curves.items() if len(steps)}
    for algo, (steps, returns) in curves.items():
        axes.plot(steps, returns.mean(axis=0), color=colors[algo], linewidth=1.6)
    nothing = float(np.mean([record.agents["do_nothing"]["mean"] for record in records]))
    axes.axhline(nothing, color="#8a8f98", linestyle="--", linewidth=1.0)
    axes.margins(y=0.15)
    axes.set_ylim(
        axes.get_ylim()
    )  # by the means: the interval of two seeds may be wider than all there is to see
    for algo, (steps, returns) in curves.items():
        if len(returns) > 1:
            low, high = np.transpose([mean_ci95(column)[1:] for column in returns.T])
            axes.fill_between(steps, low, high, color=colors[algo], alpha=0.18, linewidth=0)
    axes.set_xlabel("env steps [million]")
    axes.set_ylabel("episode return")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def curves_on_one_grid(records: Sequence[Record]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Interpolate the runs' curves where all of them have one: env steps (P,) and returns (runs, P); P may be 0.

    Runs in which no episode ended have no curve, and are left out.
    """
    curves = [
        (np.asarray(record.curve["env_steps"], float), np.asarray(record.curve["return"], float))
        for record in records
        if record.curve["env_steps"]
    ]
    if not curves:
        return np.zeros(0), np.zeros((0, 0))
    first, last = max(steps[0] for steps, _ in curves), min(steps[-1] for steps, _ in curves)
    grid = np.linspace(first, last, GRID_POINTS) if last > first else np.array([last])
    return grid, np.stack([np.interp(grid, steps, returns) for steps, returns in curves])
