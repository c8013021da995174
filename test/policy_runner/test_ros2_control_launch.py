"""The example of an arm under ros2_control: its files agree with each other, and launch starts what they say.

ros2_control itself is stood in for by scripts that note how they were started.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from policy_runner.settings import settings_from
from policy_runner.urdf import urdf_limits

ROOT = Path(__file__).parents[2]
LAUNCH_FILE = ROOT / "launch" / "ros2_control.launch.py"
CONFIG = ROOT / "config" / "ros2_control"
JOINTS = ["turn", "lean", "bend"]
HANG_S = 120.0
ROS2 = shutil.which("ros2", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


@pytest.fixture(scope="module")
def controllers():
    return {
        node: section["ros__parameters"]
        for node, section in yaml.safe_load((CONFIG / "controllers.yaml").read_text()).items()
    }


# the files


def test_the_arm_has_every_limit_of_every_joint():
    limits = urdf_limits(CONFIG / "arm.urdf", JOINTS, margin=0.0, velocity_scale=1.0, acceleration_scale=1.0)
    assert {name: limit.max_velocity for name, limit in limits.items()} == {
        "turn": 2.0,
        "lean": 2.0,
        "bend": 3.0,
    }
    assert all(limit.max_acceleration < 100.0 and limit.min_position < 0.0 for limit in limits.values())


def test_hardware_and_controllers_are_of_the_joints_of_the_arm(controllers):
    robot = ElementTree.parse(CONFIG / "arm.urdf").getroot()
    moving = [joint.get("name") for joint in robot.findall("joint") if joint.get("type") != "fixed"]
    hardware = {joint.get("name"): joint for joint in robot.findall("ros2_control/joint")}
    assert moving == JOINTS == list(hardware)
    trajectory, forward = (
        controllers[f"{name}_controller"] for name in ("joint_trajectory", "forward_position")
    )
    assert trajectory["joints"] == forward["joints"] == JOINTS
    for joint in hardware.values():
        commands, states = (
            {element.get("name") for element in joint.findall(f"{kind}_interface")}
            for kind in ("command", "state")
        )
        assert commands >= {*trajectory["command_interfaces"], forward["interface_name"]}
        assert states >= set(trajectory["state_interfaces"])
    assert set(JOINTS) < set(trajectory["constraints"])


def test_links_form_one_tree():
    robot = ElementTree.parse(CONFIG / "arm.urdf").getroot()
    links = [link.get("name") for link in robot.findall("link")]
    pairs = [(j.find("parent").get("link"), j.find("child").get("link")) for j in robot.findall("joint")]
    assert {child for _, child in pairs} == set(links) - {"world"} and len(pairs) == len(links) - 1
    assert {parent for parent, _ in pairs} <= set(links)


def test_the_trajectory_controller_stops_when_nobody_speaks(controllers):
    settings = controllers["joint_trajectory_controller"]
    assert 0.0 < settings["constraints"]["goal_time"] < settings["cmd_timeout"] <= 0.5
    assert settings["interpolate_from_desired_state"]


def test_limits_are_enforced_and_the_forward_controller_has_a_fallback_that_is_known(controllers):
    manager = controllers["controller_manager"]
    assert manager["enforce_command_limits"] is True
    types = {name for name, value in manager.items() if isinstance(value, dict)}
    assert types == {
        "joint_state_broadcaster",
        "joint_trajectory_controller",
        "forward_position_controller",
    }
    assert manager["forward_position_controller"]["fallback_controllers"] == ["joint_trajectory_controller"]
    assert set(controllers) - {"controller_manager"} <= types


def test_the_settings_of_the_runner_exist():
    values = yaml.safe_load((CONFIG / "runner.yaml").read_text())["/**"]["ros__parameters"]
    settings_from(values)


# the launch

STAND_IN = """#!{python}
import json, signal, sys
print("STARTED", json.dumps(sys.argv), flush=True)
if {waits}:
    signal.sigwait([signal.SIGINT, signal.SIGTERM])
sys.exit({code})
"""


@pytest.fixture
def stand_ins(tmp_path):
    """Write packages of scripts in place of ros2_control; returns the prefix."""

    def write(*, spawner_code=0):
        executables = {
            ("robot_state_publisher", "robot_state_publisher"): (True, 0),
            ("controller_manager", "ros2_control_node"): (True, 0),
            ("controller_manager", "spawner"): (False, spawner_code),
        }
        for (package, name), (waits, code) in executables.items():
            marker = tmp_path / "share/ament_index/resource_index/packages" / package
            script = tmp_path / "lib" / package / name
            for path in (marker, script):
                path.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
            script.write_text(STAND_IN.format(python=sys.executable, waits=waits, code=code))
            script.chmod(0o755)
        return tmp_path

    return write


@pytest.fixture
def launched():
    """Start the launch file; read it until something appears; interrupt it in the end."""
    running = []

    def start(prefix, *arguments, until):
        assert ROS2 is not None, "no ros2 command: run make, or source a ROS installation"
        environment = os.environ | {
            "ROS_DOMAIN_ID": str(1 + os.getpid() % 100),
            "AMENT_PREFIX_PATH": os.pathsep.join([str(prefix), os.environ.get("AMENT_PREFIX_PATH", "")]),
        }
        process = subprocess.Popen(
            [ROS2, "launch", str(LAUNCH_FILE), *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        guard = threading.Timer(HANG_S, process.kill)
        guard.start()
        running.append((process, guard))
        lines = []
        for line in process.stdout:
            lines.append(line)
            if until in line:
                break
        return process, "".join(lines)

    yield start
    for process, guard in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            process.stdout.read()
            process.wait()
        guard.cancel()
        process.stdout.close()


def started(output):
    """Command lines of the stand-ins, in order, each without its path."""
    found = re.findall(r"STARTED (\[.*\])", output)
    return [[Path(words[0]).name, *words[1:]] for words in map(json.loads, found)]


@pytest.fixture(scope="module")
def arm_bundle(bundles, tmp_path_factory):
    """A policy for the arm."""
    contract = bundles.contract()
    action = replace(
        contract.action,
        joint_names=tuple(JOINTS),
        lower=(-1.0, -1.0, -1.0),
        upper=(1.0, 1.0, 1.0),
        max_velocity=(3.0, 3.0, 3.0),
    )
    contract = replace(contract, action=action, default_joint_pos=(0.0, 0.0, 0.0))
    return bundles.write(tmp_path_factory.mktemp("bundle"), contract)


@pytest.mark.parametrize(
    ("controller", "other", "remapping"),
    [
        (
            "joint_trajectory_controller",
            "forward_position_controller",
            "~/joint_trajectory:=/joint_trajectory_controller/joint_trajectory",
        ),
        (
            "forward_position_controller",
            "joint_trajectory_controller",
            "~/commands:=/forward_position_controller/commands",
        ),
    ],
)
def test_the_runner_starts_after_its_controller_and_speaks_to_it(
    launched, stand_ins, arm_bundle, tmp_path, controller, other, remapping
):
    config = tmp_path / "runner.yaml"
    config.write_text(json.dumps({"/**": {"ros__parameters": {"vet_timeout_s": 60.0}}}))
    arguments = (f"policy:={arm_bundle}", f"controller:={controller}", f"config:={config}")
    process, output = launched(stand_ins(), *arguments, until="active: idle")
    assert "active: idle" in output, output
    file = str(ROOT / "launch" / ".." / "config" / "ros2_control" / "controllers.yaml")
    commands = started(output)
    spawners = [words[1:5] for words in commands if words[0] == "spawner"]
    assert spawners == [
        [other, "--inactive", "--param-file", file],
        ["joint_state_broadcaster", controller, "--param-file", file],
    ]
    assert output.index("STARTED") < output.index("[policy_runner]: unconfigured")
    (manager,) = (words for words in commands if words[0] == "ros2_control_node")
    assert file in manager and "~/robot_description:=/robot_description" in manager
    pid = re.search(r"\[policy_runner-\d+\]: process started with pid \[(\d+)\]", output).group(1)
    runner = Path("/proc", pid, "cmdline").read_text().split("\0")
    assert remapping in runner
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    process.stdout.read()
    assert process.wait() == 0


def test_where_a_controller_cannot_be_loaded_no_runner_starts(launched, stand_ins, arm_bundle):
    process, output = launched(stand_ins(spawner_code=1), f"policy:={arm_bundle}", until="no line has this")
    assert process.wait() != 0
    assert "a spawner of controllers ended with exit code 1" in output
    assert "[policy_runner]" not in output


def test_every_argument_is_described():
    shown = subprocess.run(
        [ROS2, "launch", str(LAUNCH_FILE), "--show-args"], capture_output=True, text=True, timeout=HANG_S
    )
    assert shown.returncode == 0
    described = {name for name, _ in re.findall(r"'(\w+)':\n\s+(\S.*)", shown.stdout)}
    assert described == {"policy", "controller", "urdf", "controllers", "config", "points"}
