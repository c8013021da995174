"""One process at a time in a run's folder."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from typing import TextIO

LOCK_FILE = ".lock"


class RunLockedError(OSError):
    """Somebody else has the folder; the message says who."""


class RunLock:
    """A lock that the kernel takes back however its owner ends, `kill -9` and a power cut included.

    The file itself stays, and means nothing: what counts is whether a process holds `flock` on it.
    """

    def __init__(self, folder: Path) -> None:
        """Take the lock. Raises RunLockedError at once where another run has it, OSError where none can be had."""
        self._file: TextIO = (folder / LOCK_FILE).open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            owner = self._file.read().strip() or "another process"
            self._file.close()
            if isinstance(error, BlockingIOError):
                raise RunLockedError(f"in use by {owner}; wait until it ends, or stop it") from error
            raise
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._file.flush()

    def release(self) -> None:
        """Give it back."""
        self._file.close()
