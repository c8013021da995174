"""Settings of this process, without which megabytes that pass through one of its threads delay the ticks of another."""

from __future__ import annotations

import ctypes
import os
import sys

SWITCH_INTERVAL_S = 5e-4
"""How long a thread of Python may go on while another one waits; 5 ms is what Python starts with."""
KEPT_BYTES = 256 * 1024 * 1024
"""Freed memory up to this is kept for the next cloud. What goes back to the system must be taken from it page by page
again, 2,400 of them for 10 MB: that is three quarters of the time it takes to receive such a cloud, in which no other
thread runs."""
ARENAS = 2
"""Pools of memory that threads share. With glibc's eight for each core, threads that come and go with the policies
that are exchanged leave so many half-empty pools that memory grows on, exchange by exchange."""
NICENESS = -10
"""Before other programs: a thread that is set aside while it takes a cloud keeps the ticks waiting as well."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # <malloc.h>


def keep_ticks_short() -> str:
    """Let threads take turns quickly, keep freed memory, and go before other programs.

    Returns what the system does not allow, for the operator to know; empty if all is well.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # glibc
        mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_M_ARENA_MAX, ARENAS)
    if os.getpriority(os.PRIO_PROCESS, 0) != 0:  # somebody has chosen it
        return ""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    except PermissionError:
        return (
            f"no priority over other programs: the system does not allow this user a niceness of {NICENESS}"
        )
    return ""
