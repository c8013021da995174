"""The clock by which all ages are judged: nobody sets it, and it goes on while the machine is suspended."""

from __future__ import annotations

import time

# Linux has the former, others the latter alone
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now_s() -> float:
    """Return the seconds since some moment in the past, whatever happens to the time of day."""
    return time.clock_gettime(_CLOCK)
