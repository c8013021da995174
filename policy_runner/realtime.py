"""Real-time priority for the threads that a control step waits for.

Without it, a step that is due while a cloud is processed on the same core waits until the scheduler has been fair to
the cloud: milliseconds, once for each time that control and network hand over to each other.
"""

from __future__ import annotations

import os


def go_first(priority: int) -> str:
    """Let the calling thread run (SCHED_FIFO) before all threads of lower priority and all that have none.

    priority: 1 to 99; 0 changes nothing. Threads and processes that it starts from now on have none.

    Returns why not, for an operator to read; empty if all is well.
    """
    if priority == 0:
        return ""
    if not hasattr(os, "SCHED_RESET_ON_FORK"):
        return "no real-time priority: there is none on this system"
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except PermissionError:
        return f"no real-time priority: the system does not allow this user {priority}; see `ulimit -r`"
    return ""


def take_turns() -> None:
    """Take the calling thread's priority from it."""
    if current_priority():
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def current_priority() -> int:
    """Return the real-time priority of the calling thread; 0 if it has none."""
    return os.sched_getparam(0).sched_priority if hasattr(os, "sched_getparam") else 0
