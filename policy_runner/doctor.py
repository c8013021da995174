"""Look for what most often keeps a runner from seeing or moving a robot: `python -m policy_runner.doctor`.

Looks at this shell's environment and this machine, changes nothing, and starts no node. Exit code 1 where something
must be mended, with the remedy; else 0.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

from policy_runner.shared_memory import abandoned_segments, free_bytes
from policy_runner.transport import LARGE_CLOUD_BYTES, transport_of

LIBRARIES = {"numpy": "numpy", "onnxruntime": "onnxruntime", "open3d": "open3d-cpu"}
"""What a runner cannot do without, and what pip calls it."""
ROS_REMEDY = "source a ROS 2 installation, or: pip install -r requirements/ros.txt"
IMPORT_TIMEOUT_S = 120.0
SEGMENTS = 4
"""So many processes with large clouds: camera, runner, RViz, a recorder."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report."""

    subject: str
    found: str
    remedy: str = ""
    """What to do; empty where all is well."""


def findings(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what is found, one subject after the other; environment: variables, as a runner would be started with."""
    yield from _libraries()
    rmw = _output("import rclpy; print(rclpy.get_rmw_implementation_identifier())", environment)
    if rmw is None:
        yield Finding(subject="rclpy", found="cannot be imported", remedy=ROS_REMEDY)
    else:
        yield Finding(subject="rclpy", found=_version("ros-rclpy", "rclpy"))
        yield from _middleware(rmw, environment)
    yield from _discovery(environment)
    has_tf = _output("import tf2_msgs.msg", environment) is not None
    yield Finding(
        subject="tf2_msgs",
        found="installed: frames of clouds come from /tf"
        if has_tf
        else "not installed: frames of clouds come from cloud_frame and cloud_extrinsics",
    )
    yield from _memory()


def _libraries() -> Iterator[Finding]:
    for module, package in LIBRARIES.items():
        works = _output(f"import {module}", os.environ) is not None
        yield Finding(
            subject=module,
            found=_version(package, module) if works else "cannot be imported",
            remedy=""
            if works
            else f"pip install {package}; `python -c 'import {module}'` says what is missing",
        )


def _middleware(rmw: str, environment: Mapping[str, str]) -> Iterator[Finding]:
    yield Finding(subject="middleware", found=rmw)
    transport = transport_of(rmw, environment)
    remedy = transport.warning.rpartition("; ")[2] if transport.warning else ""
    yield Finding(subject="transport", found=transport.found, remedy=remedy)


def _discovery(environment: Mapping[str, str]) -> Iterator[Finding]:
    reach = (
        environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE")
        or "not set: the launch files take LOCALHOST, ROS SUBNET"
    )
    domain = environment.get("ROS_DOMAIN_ID") or "0"
    yield Finding(subject="discovery", found=f"range {reach}; domain {domain}")
    secure = environment.get("ROS_SECURITY_ENABLE") == "true"
    yield Finding(
        subject="security",
        found=f"strategy {environment.get('ROS_SECURITY_STRATEGY') or 'Permissive'}"
        if secure
        else "off: whoever reaches the domain can arm and command; see docs/security.md",
    )


def _memory() -> Iterator[Finding]:
    free, needed = free_bytes(), SEGMENTS * 2 * LARGE_CLOUD_BYTES
    yield Finding(
        subject="shared memory",
        found=f"{free / 2**20:.0f} MiB free in /dev/shm",
        remedy=""
        if free >= needed
        else f"at least {needed / 2**20:.0f} MiB: docker run --shm-size=512m, or mount",
    )
    abandoned = abandoned_segments()
    size = sum(segment.stat().st_size for segment in abandoned)
    yield Finding(
        subject="abandoned",
        found=f"{len(abandoned)} segments of killed processes, {size / 2**20:.0f} MiB; "
        "with every ROS process ended: rm /dev/shm/*fastdds_*"
        if abandoned
        else "no segments of killed processes",
    )


def _output(program: str, environment: Mapping[str, str]) -> str | None:
    """Run a program in a process of its own, whose crash would not be ours; None where it fails."""
    try:
        ended = subprocess.run(
            [sys.executable, "-c", program],
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=IMPORT_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return None
    return ended.stdout.strip() if ended.returncode == 0 else None


def _version(*packages: str) -> str:
    for package in packages:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return "installed, version unknown"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; returns 1 where something must be mended."""
    parser = argparse.ArgumentParser(
        prog="python -m policy_runner.doctor",
        description="Look, in this shell's environment and on this machine, for what most often keeps a runner from "
        "seeing or moving a robot; change nothing and start no node.",
        epilog="Exit codes: 0 all is well, 1 something must be mended, 2 the command was mistyped.",
    )
    parser.parse_args(arguments)
    code = 0
    for finding in findings(os.environ):
        print(f"{'MEND' if finding.remedy else 'ok':>4}  {finding.subject}: {finding.found}", flush=True)
        if finding.remedy:
            print(f"      remedy: {finding.remedy}")
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
