"""The learning curve of a run as a PNG, drawn without a display."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sapo_learner.atomic_file import write_atomically


def write_learning_curve(
    path: Path,
    *,
    env_steps: Sequence[float],
    returns: Sequence[float],
    do_nothing: float | None,
    final: float | None,
    title: str,
) -> None:
    """Plot episode returns while training over env steps, beside do-nothing and the policy that the run leaves.

    Epochs without a finished episode carry NaN and leave no point. do_nothing, final: mean returns on the
    evaluation's starts, or None where there is none. Raises OSError; `path` is then what it was before.
    """
    x, y = np.asarray(env_steps, float), np.asarray(returns, float)
    known = np.isfinite(y)
    figure = Figure(figsize=(7.2, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(x[known], y[known], color="#2a6fbb", linewidth=1.8, label="while training (stochastic)")
    if do_nothing is not None:
        axes.axhline(do_nothing, color="#8a8f98", linestyle="--", label=f"do-nothing: {do_nothing:.1f}")
    if final is not None:
        last = x[-1] if len(x) else 0.0
        axes.plot([last], [final], "o", color="#d1762b", label=f"policy (mean action): {final:.1f}")
    axes.set_xlabel("env steps")
    axes.set_ylabel("episode return")
    axes.set_title(title)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomically(path, picture.getbuffer())
