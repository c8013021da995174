"""Files that are either as they were or whole, whatever happens while they are written."""

from __future__ import annotations

import os
from pathlib import Path

TEMPORARY = ".writing_"
"""Begins the name of a file that is not whole yet; one that is found was left by a process that was killed."""


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write under another name in the same folder, bring it to the disk, and only then give it its name.

    Raises OSError, a full disk included; `path` is then what it was before.
    """
    temporary = path.with_name(TEMPORARY + path.name)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # the new name itself must survive a power cut
    finally:
        os.close(descriptor)


def clear_leftovers(folder: Path) -> None:
    """Delete what processes that were killed while they wrote left in `folder`. Raises OSError."""
    for leftover in folder.glob(f"{TEMPORARY}*"):
        leftover.unlink()
