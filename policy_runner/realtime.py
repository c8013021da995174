"""Real-time priority for the threads that a control step waits for.

Without it, a step that is due while a cloud is processed on the same core waits until the scheduler has been fair to
the cloud: milliseconds, once for each time that control and network hand over to each other.
"""

from __future__ import annotations

import os
from contextlib import suppress


def go_first(priority: int) -> str:
    """Let the calling thread run (SCHED_FIFO) before all threads of lower priority and all that have none.

    priority: 1 to 99; 0 changes nothing. Threads and processes that it starts from now on have none, nor its niceness.

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
    except OSError as error:  # as of sandboxes, whose kernel knows one way of scheduling alone
        return f"no real-time priority: {error.strerror}"
    return ""


def take_turns(thread: int = 0) -> None:
    """Take the priority from a thread of this process: by its native id, or the calling one."""
    if not current_priority(thread):
        return
    try:
        os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
    except PermissionError:  # who has no privileges cannot be rid of the flag, only of the priority
        os.sched_setscheduler(thread, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))


def current_priority(thread: int = 0) -> int:
    """Return the real-time priority of a thread, by its native id, or of the calling one; 0 if it has none."""
    return os.sched_getparam(thread).sched_priority if hasattr(os, "sched_getparam") else 0


def be_as_nice_as_the_process() -> None:
    """Give the calling thread the niceness of the process, where a thread with a priority has started it.

    It may hold Python's lock, for which the others wait, when another program's turn comes.
    """
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, os.getpid()))
