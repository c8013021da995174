"""The machine and the versions that a measured figure depends on."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def machine(device: str = "cpu") -> dict[str, Any]:
    """Name processor, memory, accelerator where `device` is one, versions, commit (empty: not known) and date."""
    accelerator = {"gpu": torch.cuda.get_device_name(device)} if device.startswith("cuda") else {}
    return {
        "cpu": _processor(),
        **accelerator,
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "python": platform.python_version(),
        "warp": version("warp-lang"),
        "torch": version("torch"),
        "commit": _commit(),
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parent,
            check=False,
        )
    except OSError:  # there is no git
        return ""
    return done.stdout.strip()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
