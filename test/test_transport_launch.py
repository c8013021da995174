"""What transport.launch.py, and with it every launch file, settles for the processes it starts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROS2 = shutil.which("ros2", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
NAMES = (
    "ROS_AUTOMATIC_DISCOVERY_RANGE",
    "FASTDDS_DEFAULT_PROFILES_FILE",
    "FASTRTPS_DEFAULT_PROFILES_FILE",
    "ROS_STATIC_PEERS",
)
HANG_S = 60.0
SHOW = "import os; print(*(f'settled {name}={value}' for name, value in os.environ.items()), sep=chr(10))"
LAUNCH_FILE = f"""
import sys
from launch import LaunchDescription
from launch.actions import ExecuteProcess, IncludeLaunchDescription

def generate_launch_description():
    return LaunchDescription([
        IncludeLaunchDescription({str(ROOT / "launch" / "transport.launch.py")!r}),
        ExecuteProcess(cmd=[sys.executable, "-c", {SHOW!r}], output="screen"),
    ])
"""


@pytest.fixture
def settled(tmp_path):
    """Variables of a process started beside transport.launch.py, where the user has set those given."""
    path = tmp_path / "show.launch.py"
    path.write_text(LAUNCH_FILE)

    def run(**given):
        assert ROS2 is not None, "no ros2 command: run make, or source a ROS installation"
        unset = (*NAMES, "ROS_DISTRO")
        environment = {name: value for name, value in os.environ.items() if name not in unset} | given
        ended = subprocess.run(
            [ROS2, "launch", str(path)], env=environment, capture_output=True, text=True, timeout=HANG_S
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        lines = [line.partition("settled ")[2] for line in ended.stdout.splitlines() if "settled " in line]
        found = dict(line.split("=", 1) for line in lines if "=" in line)
        return {name: found[name] for name in NAMES if name in found}

    return run


def is_profile(path, name):
    return Path(path).samefile(ROOT / "config" / name)


def test_by_default_nothing_leaves_this_machine(settled):
    found = settled()
    assert found["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert is_profile(found["FASTDDS_DEFAULT_PROFILES_FILE"], "fastdds_shm.xml")
    assert "FASTRTPS_DEFAULT_PROFILES_FILE" not in found  # would be warned of


def test_an_older_fast_dds_is_told_under_the_name_it_knows(settled):
    found = settled(ROS_DISTRO="jazzy")
    assert is_profile(found["FASTRTPS_DEFAULT_PROFILES_FILE"], "fastdds_shm.xml")
    assert "FASTDDS_DEFAULT_PROFILES_FILE" not in found


@pytest.mark.parametrize(
    "given",
    [
        {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"},
        {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_STATIC_PEERS": "192.0.2.7"},
    ],
)
def test_whoever_opens_discovery_opens_the_network_for_messages(settled, given):
    found = settled(**given)
    assert given.items() <= found.items()
    assert is_profile(found["FASTDDS_DEFAULT_PROFILES_FILE"], "fastdds_shm_network.xml")


@pytest.mark.parametrize("variable", ["FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"])
def test_the_users_own_profiles_stay_alone(settled, variable):
    found = settled(**{variable: "/nonexistent/own.xml", "ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"})
    assert found == {variable: "/nonexistent/own.xml", "ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"}
