"""How far a run has come, for a person at a terminal or in a log file."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TextIO

from tqdm import tqdm


class Progress:
    """A bar with ETA, env steps per second and return; to anything but a terminal, a line now and then."""

    def __init__(
        self, total_epochs: int, *, epoch: int = 0, stream: TextIO | None = None, line_every_s: float = 30.0
    ) -> None:
        """Start after `epoch` epochs; `stream` is standard error unless given."""
        self._stream = stream or sys.stderr
        self._total, self._line_every_s = total_epochs, line_every_s
        self._started = self._last_line = time.monotonic()
        self._first_epoch = epoch
        self._first_update: tuple[float, float] | None = None
        self._bar = tqdm(
            total=total_epochs,
            initial=epoch,
            unit="epoch",
            file=self._stream,
            disable=not self._stream.isatty(),
            dynamic_ncols=True,
        )

    def update(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Show a finished epoch. metrics: `env_steps`, `return` and `step_reward`, as from `Sapo.update`."""
        now = time.monotonic()
        figures = f"{_score(metrics)}{self._speed(now, metrics['env_steps'])}"
        if not self._bar.disable:
            self._bar.set_postfix_str(figures, refresh=False)
            self._bar.update(epoch - self._bar.n)
        elif epoch in (self._first_epoch + 1, self._total) or now - self._last_line >= self._line_every_s:
            self._last_line = now
            left_s = (self._total - epoch) * (now - self._started) / (epoch - self._first_epoch)
            with suppress(OSError):  # a log on a full disk ends no training
                self._stream.write(
                    f"epoch {epoch}/{self._total}, {figures}, {tqdm.format_interval(left_s)} left\n"
                )
                self._stream.flush()

    def close(self) -> None:
        """Leave the bar as it is and end its line."""
        self._bar.close()

    def _speed(self, now: float, env_steps: float) -> str:
        if self._first_update is None:  # a resumed run does not say how many steps it began with
            self._first_update = now, env_steps
            return ""
        start, first_steps = self._first_update
        return f", {(env_steps - first_steps) / max(now - start, 1e-9):.0f} env-steps/s"


def _score(metrics: Mapping[str, float]) -> str:
    if math.isnan(metrics["return"]):  # no episode has finished yet
        return f"reward per step {metrics['step_reward']:.3g}"
    return f"return {metrics['return']:.2f}"
