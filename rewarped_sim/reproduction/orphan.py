"""A run that nobody waits for any more saves itself and ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def end_with_parent() -> Callable[[], None] | None:
    """Return what a child is to do before it begins (`preexec_fn`), so that SIGTERM comes when its parent is killed.

    Else it would train on, and whoever starts the parent again finds the run's folder in use. None outside Linux, where
    there is no such thing.
    """
    if not sys.platform.startswith("linux"):
        return None
    libc, parent = ctypes.CDLL(None), os.getpid()  # loaded here: between fork and exec as little as possible

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it was killed in between
            os.kill(os.getpid(), signal.SIGTERM)

    return ask
