"""How far a run has come, for a person at a terminal or in a log file."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import TextIO

from tqdm import tqdm


class Progress:
    """A bar with ETA, env steps per second and return; where the output is no terminal, a line now and then."""

    def __init__(
        self,
        total_epochs: int,
        *,
        epoch: int = 0,
        env_steps: int = 0,
        stream: TextIO | None = None,
        line_every_s: float = 30.0,
    ) -> None:
        """Start after `epoch` epochs and `env_steps` env steps; `stream` is standard error unless given."""
        self._stream = stream or sys.stderr
        self._total = total_epochs
        self._first_epoch, self._first_steps = epoch, env_steps
        self._start = time.monotonic()
        self._line_every_s, self._last_line = line_every_s, -math.inf
        self._bar = tqdm(
            total=total_epochs,
            initial=epoch,
            unit="epoch",
            file=self._stream,
            disable=not self._stream.isatty(),
            dynamic_ncols=True,
        )

    def update(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Show an epoch that is done. metrics: `env_steps`, `return` and `step_reward`, as `Sapo.update` gives them."""
        elapsed_s = max(time.monotonic() - self._start, 1e-9)
        steps_per_s = (metrics["env_steps"] - self._first_steps) / elapsed_s
        score = _score(metrics)
        if not self._bar.disable:
            self._bar.set_postfix_str(f"{steps_per_s:.0f} env-steps/s, {score}", refresh=False)
            self._bar.update(epoch - self._bar.n)
        elif elapsed_s - self._last_line >= self._line_every_s or epoch >= self._total:
            self._last_line = elapsed_s
            left_s = (self._total - epoch) * elapsed_s / max(epoch - self._first_epoch, 1)
            self._stream.write(
                f"epoch {epoch}/{self._total}, {score}, {steps_per_s:.0f} env-steps/s, "
                f"{tqdm.format_interval(left_s)} left\n"
            )
            self._stream.flush()

    def close(self) -> None:
        """Leave the bar as it is and end its line."""
        self._bar.close()


def _score(metrics: Mapping[str, float]) -> str:
    if math.isnan(metrics["return"]):  # no episode has finished yet
        return f"reward per step {metrics['step_reward']:.3g}"
    return f"return {metrics['return']:.2f}"
