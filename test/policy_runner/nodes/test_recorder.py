"""A recorded run of the node: the bag tells what the robot heard, and the replay commands the same."""

from __future__ import annotations

import os
import signal
import subprocess
from itertools import pairwise

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from robot import ENVIRONMENT, HANG_S, ROOT, RUNNER, arguments
from rosbags.highlevel import AnyReader

from policy_runner.bag import read_bag
from policy_runner.bundle import load_bundle
from policy_runner.cloud_replay import make_again
from policy_runner.inference import Policy
from policy_runner.journal import read_journal
from policy_runner.repeat import repeat


@pytest.fixture(scope="module")
def second(bundles, tmp_path_factory):
    contract = bundles.contract(policy_name="second")
    folder = tmp_path_factory.mktemp("second")
    return bundles.write(folder, contract, w=bundles.weights(contract, seed=9))


def bag_in(folder):
    (bag,) = folder.iterdir()
    return bag


def repeated(bag, *folders):
    networks = [Policy(load_bundle(folder)) for folder in folders]
    outcome = repeat(read_journal(bag), {network.digest: network for network in networks})
    assert outcome.first is None, outcome.first
    assert outcome.missing == 0
    return outcome


def commands_of(outcome):
    """Replayed commands, without the ticks that had none."""
    replayed = np.array(outcome.replayed)
    return replayed[np.isfinite(replayed[:, 0])]


def commands_on_disk(bag):
    """Number of commands in a bag that is being written."""
    return [message.topic for message in read_bag(bag)].count("/policy_runner/joint_command")


def heard(robot):
    return np.array([sent.positions for sent in robot.stream])


def test_the_replay_of_a_run_commands_what_the_robot_heard(start, bundle, second, tmp_path):
    robot = start(
        record=tmp_path / "bags",
        inference_budget_s=5.0,
        record_clouds=True,
        cloud_timeout_s=2.0,
        policy_dirs=[str(bundle), str(second)],
    )
    robot.arm()
    robot.until(lambda: len(robot.commands) >= 30)
    assert robot.call("load_policy", path=str(second)).success
    robot.until(lambda: len(robot.commands) >= 60)
    robot.call("stop")
    robot.held()
    robot.call("reset_stop")
    robot.arm()
    robot.cloud_on = False
    robot.until(lambda: robot.status.message.startswith("active: holding: cloud_stale"))
    robot.held()
    values = robot.diagnosis()
    assert int(values["recorded_messages"]) > 100 and values["dropped_recording"] == "0"
    robot.process.send_signal(signal.SIGINT)
    robot.until(lambda: robot.process.poll() is not None)
    robot.pass_time(0.1)
    bag = bag_in(tmp_path / "bags")
    assert str(bag) == values["recording"]
    outcome = repeated(bag, bundle, second)
    assert outcome.complete
    clouds = make_again(read_journal(bag))
    assert clouds.equal == outcome.events["cloud"] > 10
    np.testing.assert_array_equal(commands_of(outcome), heard(robot))
    assert {kind: outcome.events[kind] for kind in ("stop", "reset_stop", "swap", "load_policy")} == {
        "stop": 1,
        "reset_stop": 1,
        "swap": 1,
        "load_policy": 1,
    }


def test_a_bag_holds_the_messages_under_their_topics_for_any_tool(start, tmp_path):
    robot = start(record=tmp_path / "bags", inference_budget_s=5.0, record_clouds=True)
    robot.arm()
    robot.until(lambda: len(robot.commands) >= 30)
    robot.process.send_signal(signal.SIGINT)
    robot.until(lambda: robot.process.poll() is not None)
    robot.pass_time(0.1)
    with AnyReader([bag_in(tmp_path / "bags")]) as reader:
        types = {connection.topic: connection.msgtype for connection in reader.connections}
        assert types == {
            "/joint_states": "sensor_msgs/msg/JointState",
            "/points": "sensor_msgs/msg/PointCloud2",
            "/policy_runner/journal": "diagnostic_msgs/msg/KeyValue",
            "/policy_runner/joint_command": "sensor_msgs/msg/JointState",
            "/policy_runner/policy_points": "sensor_msgs/msg/PointCloud2",
            "/policy_runner/status": "diagnostic_msgs/msg/DiagnosticStatus",
        }
        content = {topic: [] for topic in types}
        times = []
        for connection, time_ns, data in reader.messages():
            content[connection.topic].append(reader.deserialize(data, connection.msgtype))
            times.append(time_ns)
    assert all(before <= after for before, after in pairwise(times))
    commands = [command.position for command in content["/policy_runner/joint_command"]]
    np.testing.assert_array_equal(commands, heard(robot))
    cloud = content["/points"][0]
    np.testing.assert_array_equal(np.frombuffer(cloud.data.tobytes(), "<f4").reshape(-1, 3), robot.cloud)
    points = content["/policy_runner/policy_points"][0]
    np.testing.assert_array_equal(
        np.frombuffer(points.data.tobytes(), "<f4").reshape(-1, 3), robot.cloud[::5]
    )
    assert content["/joint_states"][0].name == robot.joint_names
    assert "active: running" in [status.message for status in content["/policy_runner/status"]]


def test_a_runner_that_is_killed_leaves_a_bag_that_can_be_replayed(start, bundle, tmp_path):
    robot = start(record=tmp_path / "bags", inference_budget_s=5.0)
    robot.arm()
    robot.until(lambda: len(robot.commands) >= 30)
    before = len(robot.commands)
    bag = bag_in(tmp_path / "bags")

    robot.until(lambda: commands_on_disk(bag) >= before)
    robot.process.send_signal(signal.SIGKILL)
    robot.until(lambda: robot.process.poll() is not None)
    robot.pass_time(0.1)
    outcome = repeated(bag, bundle)
    assert not outcome.complete
    commands = commands_of(outcome)
    assert len(commands) >= before
    np.testing.assert_array_equal(commands, heard(robot)[: len(commands)])


def test_a_recording_that_is_full_ends_and_the_robot_moves_on(start, tmp_path):
    robot = start(record=tmp_path / "bags", inference_budget_s=5.0, record_clouds=True, record_limit_mb=1.0)
    robot.cloud = np.random.default_rng(0).uniform(0.2, 0.4, (4000, 3)).astype("<f4")
    robot.arm()
    robot.until(lambda: robot.diagnosis()["recording_problem"] == "it has reached its 1 MB")
    count = len(robot.commands)
    robot.until(lambda: len(robot.commands) >= count + 30)
    assert robot.status.message == "active: running"
    assert robot.counter("dropped_recording") > 0
    assert sum(1 for _ in read_bag(bag_in(tmp_path / "bags"))) > 10


def test_every_configuration_has_a_bag_of_its_own(start, bundle, tmp_path):
    robot = start(record=tmp_path / "bags", inference_budget_s=5.0)
    robot.arm()
    robot.until(lambda: len(robot.commands) >= 10)
    for transition in ("DEACTIVATE", "CLEANUP", "CONFIGURE", "ACTIVATE"):
        assert robot.change_state(getattr(Transition, f"TRANSITION_{transition}"))
    robot.arm()
    first, second = sorted((tmp_path / "bags").iterdir(), key=lambda bag: bag.stat().st_ctime)
    assert repeated(first, bundle).complete
    robot.until(lambda: commands_on_disk(second) >= 10)
    assert not repeated(second, bundle).complete


def test_a_folder_that_cannot_be_written_is_refused_at_configure(bundle, tmp_path):
    (tmp_path / "file").write_text("")
    ended = subprocess.run(
        [*RUNNER, *arguments({"policy": bundle, "record": tmp_path / "file", "vet_timeout_s": 60.0})],
        env=os.environ | ENVIRONMENT,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert ended.returncode == 1
    assert f"record: cannot write to {tmp_path / 'file'}: Not a directory" in ended.stdout + ended.stderr
