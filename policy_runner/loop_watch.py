"""How the control loop keeps time: whether it was away, how long its ticks take, and how many are late."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

WINDOW_S = 10.0
"""The time over which tick times are reported [s]."""


@dataclass(frozen=True, kw_only=True)
class TickTimes:
    """How long the ticks of the last `WINDOW_S` took [s]."""

    p50: float
    p99: float
    max: float


class LoopWatch:
    """Told when a tick begins and ends. Times are of `clock.now_s` [s]."""

    def __init__(self, *, period_s: float, stall_s: float) -> None:
        """Begin with no tick.

        period_s: a tick that takes longer has missed its deadline; stall_s: the loop was away, rather than
        late, where there was none for longer than that.
        """
        self._period_s, self._stall_s = period_s, stall_s
        self._began_s: float | None = None
        self._durations: deque[float] = deque(maxlen=max(round(WINDOW_S / period_s), 1))
        self.ticks = 0
        self.stalls = 0
        """How often the loop was away."""
        self.deadline_misses = 0
        self.misses_in_a_row = 0

    def begin(self, now_s: float) -> bool:
        """Begin a tick and return whether the loop was away before it."""
        away = self._began_s is not None and now_s - self._began_s > self._stall_s
        self._began_s = now_s
        self.stalls += away
        return away

    def end(self, now_s: float, *, in_time: bool = True) -> None:
        """End a tick; in_time: false where something in it is known to have been late."""
        assert self._began_s is not None
        duration_s = now_s - self._began_s
        self._durations.append(duration_s)
        self.ticks += 1
        if in_time and duration_s <= self._period_s:
            self.misses_in_a_row = 0
        else:
            self.deadline_misses += 1
            self.misses_in_a_row += 1

    def rest(self) -> None:
        """Expect no tick until the next one."""
        self._began_s = None

    def tick_times(self) -> TickTimes | None:
        """Return the quantiles of the window, or None before the first tick."""
        if not self._durations:
            return None
        p50, p99, longest = np.quantile(self._durations, (0.5, 0.99, 1.0), method="higher")
        return TickTimes(p50=float(p50), p99=float(p99), max=float(longest))
