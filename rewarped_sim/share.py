"""Where this package's configuration files lie: in a checkout, or installed next to ROS packages."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def find_share_file(relative: str) -> Path | None:
    """Return the first `relative` path that exists in the checkout or in share/rewarped_sim of a prefix."""
    prefixes = [prefix for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    shares = [Path(prefix, "share", "rewarped_sim") for prefix in (*prefixes, sys.prefix)]
    for folder in (Path(__file__).resolve().parents[1], *shares):
        if (folder / relative).is_file():
            return folder / relative
    return None
