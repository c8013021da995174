"""`ros2 launch deploy.launch.py` starts the runner alone, or says what is wrong and fails."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from policy_runner.journal import read_journal

ROOT = Path(__file__).parents[2]
LAUNCH_FILE = ROOT / "launch" / "deploy.launch.py"
ROS2 = shutil.which("ros2", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
HANG_S = 120.0
CONFIG = {"vet_timeout_s": 60.0}


@pytest.fixture(scope="module")
def bundle(bundles, tmp_path_factory):
    return bundles.write(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "runner.yaml"
    path.write_text(json.dumps({"/**": {"ros__parameters": CONFIG}}))
    return path


def environment(**changes):
    own = {"ROS_DOMAIN_ID": str(1 + os.getpid() % 100)}
    unset = ("FASTDDS_DEFAULT_PROFILES_FILE", "ROS_AUTOMATIC_DISCOVERY_RANGE")
    return {name: value for name, value in os.environ.items() if name not in unset} | own | changes


def launch(*arguments):
    assert ROS2 is not None, "no ros2 command: run make, or source a ROS installation"
    return subprocess.run(
        [ROS2, "launch", str(LAUNCH_FILE), *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )


class Launched:
    """A launch that is read until something appears and then interrupted."""

    def __init__(self, *arguments, **variables):
        assert ROS2 is not None, "no ros2 command: run make, or source a ROS installation"
        self.process = subprocess.Popen(
            [ROS2, "launch", str(LAUNCH_FILE), *arguments],
            env=environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines = []
        self._guard = threading.Timer(HANG_S, self.process.kill)
        self._guard.start()

    def read_until(self, words):
        for line in self.process.stdout:
            self.lines.append(line)
            if words in line:
                return
        raise AssertionError("".join(self.lines))

    def node_pid(self):
        return re.search(r"process started with pid \[(\d+)\]", "".join(self.lines)).group(1)

    def node_command(self):
        return Path("/proc", self.node_pid(), "cmdline").read_text().split("\0")

    def node_environment(self):
        items = Path("/proc", self.node_pid(), "environ").read_bytes().split(b"\0")
        return dict(item.decode().split("=", 1) for item in items if b"=" in item)

    def interrupt(self):
        os.killpg(self.process.pid, signal.SIGINT)  # as a terminal does
        self.lines += self.process.stdout.readlines()
        return self.process.wait()

    def close(self):
        if self.process.poll() is None:
            self.interrupt()  # only the launch itself can end its node
        self._guard.cancel()
        self.process.stdout.close()
        self.process.wait()


@pytest.fixture
def launched():
    running = []

    def start(*arguments, **variables):
        running.append(Launched(*arguments, **variables))
        return running[-1]

    yield start
    for process in running:
        process.close()


def test_every_argument_is_described():
    shown = launch("--show-args")
    assert shown.returncode == 0
    described = re.findall(r"'(\w+)':\n\s+(\S.*)", shown.stdout)
    assert {name for name, _ in described} == {
        "policy",
        "config",
        "command_type",
        "autostart",
        "namespace",
        "points",
        "cloud_frame",
        "cloud_extrinsics",
        "joint_states",
        "command_topic",
        "urdf",
        "record",
        "use_sim_time",
        "log_level",
    }


def test_it_runs_ends_well_on_ctrl_c_and_settles_the_transport(launched, bundle, config):
    runner = launched(f"policy:={bundle}", f"config:={config}")
    runner.read_until("active: idle")
    variables = runner.node_environment()
    assert variables["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert Path(variables["FASTDDS_DEFAULT_PROFILES_FILE"]).samefile(ROOT / "config" / "fastdds_shm.xml")
    assert runner.interrupt() == 0
    assert "process has finished cleanly" in "".join(runner.lines)


def test_what_the_user_has_set_of_the_transport_stays(launched, bundle, config):
    own = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF", "FASTDDS_DEFAULT_PROFILES_FILE": "/nonexistent/own.xml"}
    runner = launched(f"policy:={bundle}", f"config:={config}", **own)
    runner.read_until("active: idle")
    assert own.items() <= runner.node_environment().items()


def test_arguments_reach_the_node(launched, bundle, config):
    runner = launched(f"policy:={bundle}", f"config:={config}", "autostart:=false", "namespace:=left")
    runner.read_until("[left.policy_runner]: unconfigured")
    assert runner.interrupt() == 0
    assert "inactive" not in "".join(runner.lines)


def test_its_commands_go_where_the_controller_listens_and_its_enclave_is_named(launched, bundle, config):
    topic = "/joint_trajectory_controller/joint_trajectory"
    runner = launched(f"policy:={bundle}", f"config:={config}", f"command_topic:={topic}")
    runner.read_until("active: idle")
    words = runner.node_command()
    assert f"~/joint_trajectory:={topic}" in words
    assert words[words.index("--enclave") + 1] == "/rewarped_sim/policy_runner"


def test_what_the_config_says_holds_unless_an_argument_says_otherwise(launched, bundle, config):
    values = yaml.safe_load(config.read_text())
    values["/**"]["ros__parameters"]["autostart"] = False
    config.write_text(yaml.safe_dump(values))
    runner = launched(f"policy:={bundle}", f"config:={config}", "autostart:=true")
    runner.read_until("active: idle")
    assert runner.interrupt() == 0


def test_a_run_is_recorded_where_an_argument_asks_for_it(launched, bundle, config, tmp_path):
    bags = tmp_path / "bags"
    runner = launched(f"policy:={bundle}", f"config:={config}", f"record:={bags}", "namespace:=left")
    runner.read_until("active: idle")
    time.sleep(1.0)  # the loop has begun, but may not have ticked yet
    assert runner.interrupt() == 0
    (bag,) = bags.glob("left_policy_runner_*")
    assert (bag / "metadata.yaml").exists()
    kinds = [event.kind for event in read_journal(bag)]
    assert kinds[0] == "begin" and kinds[-1] == "end" and "tick" in kinds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "policy"),
        (["policy:=/nowhere"], "/nowhere: expected a folder with bundle.json, found nothing"),
        (["policy:={bundle}", "command_type:=telepathy"], "telepathy"),
        (["policy:={bundle}", "comand_type:=commands"], "did you mean 'command_type'?"),
    ],
)
def test_a_wrong_argument_is_explained_and_fails(bundle, arguments, message):
    ended = launch(*(argument.format(bundle=bundle) for argument in arguments))
    assert ended.returncode != 0
    assert message in ended.stdout + ended.stderr
    assert "process started" not in ended.stdout + ended.stderr


def test_a_bundle_that_only_the_check_refuses_fails_the_launch_with_the_reason(bundles, tmp_path, config):
    contract = bundles.contract()
    golden = bundles.golden(contract, bundles.weights(contract))
    golden["actions"] += np.float32(0.1)
    folder = bundles.write(tmp_path / "b", contract, golden=golden)
    ended = launch(f"policy:={folder}", f"config:={config}")
    assert ended.returncode != 0
    assert "golden.npz: pair 0: policy.onnx differs" in ended.stdout + ended.stderr


def test_a_mistyped_setting_in_the_config_fails_the_launch_with_a_suggestion(bundle, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump({"/**": {"ros__parameters": {"ramp_in": 1.0}}}))
    ended = launch(f"policy:={bundle}", f"config:={path}")
    assert ended.returncode != 0
    assert "did you mean 'ramp_in_s'?" in ended.stdout + ended.stderr
