"""Where results are to go is tried before the work that makes them."""

from __future__ import annotations

from pathlib import Path

from rewarped_sim.registry import ConfigError
from sapo_learner.atomic_file import TEMPORARY


def require_writable(path: Path, option: str) -> None:
    """Make the folder of `path`, and leave nothing else. Raises ConfigError naming `option` where no file can be."""
    if path.is_dir():
        raise ConfigError(f"{option} {path}: expected a file, found a folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.with_name(TEMPORARY + path.name)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"{option} {path} cannot be written: {error.strerror or error}") from error
