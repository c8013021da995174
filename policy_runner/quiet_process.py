"""Two settings of this process, without which megabytes that pass through one thread delay the ticks of another."""

from __future__ import annotations

import ctypes
import sys

SWITCH_INTERVAL_S = 5e-4
"""How long a thread of Python may go on while another one waits; 5 ms is what Python starts with."""
KEPT_BYTES = 256 * 1024 * 1024
"""Freed memory up to this is kept for the next cloud. What goes back to the system must be taken from it page by page
again, 2,400 of them for 10 MB: that is three quarters of the time it takes to receive such a cloud, in which no other
thread runs."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>


def keep_ticks_short() -> None:
    """Let threads take turns quickly and keep freed memory; the latter only with glibc."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
