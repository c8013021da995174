"""The runner in a process of its own for benchmarks, and a robot with a camera in another one."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench.cloud_chain import POINT_STEP, depth_image

RATE_HZ = 50.0
CAMERA_POSE = (0.5, 0.5, 1.1, 1.0, 0.0, 0.0, 0.0)
"""Above the table, looking down."""
PROFILE = Path(__file__).parents[1] / "config" / "fastdds_shm.xml"
SETTINGS = {
    "command_type": "joint_command",
    "rate_hz": RATE_HZ,
    "ramp_in_s": 0.0,
    "cloud_frame": "camera",
    "cloud_extrinsics": list(CAMERA_POSE),
    # what is asked is how late the loop is, not what it then does
    "cloud_timeout_s": 10.0,
    "joint_state_timeout_s": 10.0,
    "max_input_skew_s": 0.0,
    "inference_budget_s": 0.02,
    "deadline_miss_limit": 1000,
}


def environment() -> dict[str, str]:
    """Variables of all ROS processes: a domain of our own, the profile for large clouds, one thread each."""
    return os.environ | {
        "ROS_DOMAIN_ID": str(1 + os.getpid() % 100),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "FASTDDS_DEFAULT_PROFILES_FILE": str(PROFILE),
        "OMP_NUM_THREADS": "1",
    }


@contextmanager
def runner(bundle: Path, log: Path, core: int, **settings: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run the node on one core, and end it as Ctrl-C would."""
    words = [f"{name}:={value}" for name, value in (SETTINGS | settings | {"policy": bundle}).items()]
    command = [sys.executable, "-m", "policy_runner.nodes.runner", "--ros-args"]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, *(word for value in words for word in ("-p", value))],
            env=environment(),
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        os.sched_setaffinity(process.pid, {core})
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60.0)


def heard(program: str, core: int, *words: object) -> dict[str, Any]:
    """Run the robot's side on a core; return what it printed."""
    command = [sys.executable, "-m", f"bench.ros.{program}", *map(str, words)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        os.sched_setaffinity(process.pid, {core})
        printed, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{program}: exit code {process.returncode}, expected 0")
    return json.loads(printed)


def cores() -> tuple[int, int]:
    """Return the runner's core and the robot's; the same one where there is no other."""
    available = sorted(os.sched_getaffinity(0))
    return available[0], available[-1]


def save_image(path: Path, width: int, height: int) -> Path:
    """Write the camera's cloud for the robot's side to load."""
    values = np.frombuffer(depth_image(width, height).data, "<f4")
    np.save(path, values.reshape(height, width, POINT_STEP // 4))
    return path
