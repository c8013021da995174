"""What Fast DDS has in shared memory, and what processes that were killed have left there."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
LOCK_SUFFIX = "_el"
"""Beside every segment lies a file by this ending, which the process that owns the segment keeps locked."""


def free_bytes(folder: Path = SHARED_MEMORY) -> int:
    """Return how much shared memory is left."""
    return shutil.disk_usage(folder).free


def abandoned_segments(folder: Path = SHARED_MEMORY) -> list[Path]:
    """Return the segments of Fast DDS whose processes are gone; whoever cannot look into a segment leaves it out."""
    locks = folder.glob(
        f"fastdds_{'?' * 16}{LOCK_SUFFIX}"
    )  # those of ports, which are reused, have other names
    segments = {lock.with_name(lock.name.removesuffix(LOCK_SUFFIX)): lock for lock in locks}
    return sorted(segment for segment, lock in segments.items() if segment.exists() and not _is_locked(lock))


def _is_locked(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDONLY)
    except OSError:  # another user's, or gone meanwhile
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)
