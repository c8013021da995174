"""Clouds from one process to another, with our Fast DDS profile and with what ROS sets up by itself.

Best effort, depth 1, 15 Hz: what depth cameras publish and policies subscribe to. `p50_ms` and `p99_ms` are the ages on
arrival of those that arrived, message object included. Exit code 1 if one of 1.6 MB is lost with the profile.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bench.report import table, write
from policy_runner.transport import PROFILES_VARIABLES

CLOUD_BYTES = (480_000, 1_600_000, 4_800_000, 9_830_400)
COUNT = 150
RATE_HZ = 15.0
PROFILE = Path(__file__).parents[1] / "config" / "fastdds_shm.xml"
MUST_ARRIVE = 1_600_000


def ages_ms(size: int, environment: dict[str, str]) -> list[float]:
    """Send COUNT clouds of `size` bytes; return the ages of those that arrived."""

    def start(program: str, *words: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", f"bench.ros.{program}", *map(str, words)]
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    listener = start("cloud_listener")
    talker = start("cloud_talker", size, COUNT, RATE_HZ)
    talker.communicate()
    heard, _ = listener.communicate()
    if talker.returncode or listener.returncode:
        raise RuntimeError(f"exit codes {talker.returncode}, {listener.returncode}; expected 0")
    return json.loads(heard)


def row(size: int, profile: Path | None) -> dict[str, Any]:
    """Measure one size, with a profile or without."""
    environment = {name: value for name, value in os.environ.items() if name not in PROFILES_VARIABLES}
    environment |= {
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_DOMAIN_ID": str(1 + os.getpid() % 100),
    }
    if profile is not None:
        environment[PROFILES_VARIABLES[0]] = str(profile)
    load = os.getloadavg()[0]
    ages = ages_ms(size, environment)
    return {
        "cloud_mb": size / 1e6,
        "profile": profile.name if profile is not None else "none",
        "sent": COUNT,
        "arrived": len(ages),
        "p50_ms": float(np.median(ages)) if ages else float("nan"),
        "p99_ms": float(np.percentile(ages, 99)) if ages else float("nan"),
        "load": round(load, 1),
    }


def main() -> int:
    """Measure every size with and without the profile, report."""
    rows = []
    for profile in (PROFILE, None):
        for size in CLOUD_BYTES:
            rows.append(row(size, profile))
            print(table(rows[-1:]), flush=True)
    write("transport", rows)
    print(table(rows))
    lost = [r for r in rows if r["profile"] != "none" and r["cloud_mb"] == MUST_ARRIVE / 1e6]
    return int(any(r["arrived"] < r["sent"] for r in lost))


if __name__ == "__main__":
    sys.exit(main())
