"""Clouds and frames over DDS, in threads beside the node that uses them: under its names, and ended cleanly."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest
import rclpy
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from robot import HANG_S, cloud_message
from sensor_msgs.msg import PointCloud2

from policy_runner.clock import now_s
from policy_runner.cloud_worker import CloudDrop
from policy_runner.nodes import cloud_input, messages, transform_input
from policy_runner.nodes.cloud_input import CloudInput, fixed_frame
from policy_runner.nodes.recorder import NoRecorder
from policy_runner.settings import RunnerSettings, SettingsError

BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
POINTS = np.random.default_rng(0).uniform(0.2, 0.4, (40, 3)).astype("<f4")


def wait_for(condition, meanwhile=lambda: None):
    deadline_s = time.monotonic() + HANG_S  # only against hanging
    while not condition():
        assert time.monotonic() < deadline_s
        meanwhile()
        time.sleep(0.01)


class Bench:
    """The runner's node, which nobody spins, its input of clouds, and a camera."""

    def __init__(self, context, contract, settings=None, arguments=(), topic="/points"):
        self.node = rclpy.create_node(
            "runner_in_test", context=context, cli_args=["--ros-args", *arguments] if arguments else None
        )
        self.camera = rclpy.create_node("camera", context=context)
        self.publisher = self.camera.create_publisher(PointCloud2, topic, BEST_EFFORT)
        self.contract = contract
        self.clouds = CloudInput(self.node, contract, settings or RunnerSettings(), NoRecorder())

    def send(self, points=POINTS, frame="world"):
        message = cloud_message(points)
        message.header.frame_id, message.header.stamp = frame, self.camera.get_clock().now().to_msg()
        self.publisher.publish(message)

    def close(self):
        self.clouds.close()
        self.camera.destroy_node()
        self.node.destroy_node()


def listeners(setup, topic):
    """Who listens, by full name; a process that another test has killed may still be in the graph."""
    found = setup.camera.get_subscriptions_info_by_topic(topic)
    return {f"{end.node_namespace.rstrip('/')}/{end.node_name}": end for end in found}


@pytest.fixture
def bench(ros_context, bundles):
    benches = []

    def start(**options):
        benches.append(Bench(ros_context, bundles.contract(), **options))
        return benches[-1]

    yield start
    for each in benches:
        each.close()


def test_a_camera_that_is_there_but_not_heard_is_listened_to_anew_and_then_heard(bench, monkeypatch):
    monkeypatch.setattr(cloud_input, "DEAF_S", 0.2)
    setup = bench()
    wait_for(lambda: setup.clouds.resubscriptions >= 2)
    wait_for(lambda: setup.clouds.newest() is not None, meanwhile=setup.send)


def test_where_there_is_no_camera_nothing_is_subscribed_to_anew(bench, monkeypatch):
    monkeypatch.setattr(cloud_input, "DEAF_S", 0.2)
    setup = bench(topic="/elsewhere")
    looks = []
    monkeypatch.setattr(cloud_input, "now_s", lambda: looks.append(1) or now_s())
    wait_for(lambda: len(looks) >= 3)
    assert setup.clouds.resubscriptions == 0


def test_clouds_arrive_and_are_processed_while_the_runners_own_node_is_busy(bench):
    setup = bench()
    wait_for(lambda: setup.clouds.newest() is not None, meanwhile=setup.send)
    sample = setup.clouds.newest()
    np.testing.assert_array_equal(sample.points, POINTS[::5])
    assert sample.stamp_ns > 0 and abs(now_s() - sample.arrival_s) < HANG_S


@pytest.mark.parametrize(
    ("arguments", "topic", "name"),
    [
        ((), "/points", "/runner_in_test_clouds"),
        (("-r", "__ns:=/left"), "/left/points", "/left/runner_in_test_clouds"),
        (("-r", "__node:=gripper"), "/points", "/gripper_clouds"),
        (("-r", "points:=/camera/depth/points"), "/camera/depth/points", "/runner_in_test_clouds"),
        (("-r", "__ns:=/left", "-r", "points:=depth"), "/left/depth", "/left/runner_in_test_clouds"),
    ],
)
def test_names_are_those_that_the_runner_was_given(bench, arguments, topic, name):
    setup = bench(arguments=arguments, topic=topic)
    wait_for(lambda: setup.clouds.newest() is not None, meanwhile=setup.send)
    assert name in listeners(setup, topic)


@pytest.mark.parametrize("reliable", [False, True])
def test_clouds_are_asked_for_as_reliably_as_the_operator_wants(bench, reliable):
    setup = bench(settings=RunnerSettings(reliable_clouds=reliable))
    name = "/runner_in_test_clouds"
    wait_for(lambda: name in listeners(setup, "/points"))
    expected = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
    assert listeners(setup, "/points")[name].qos_profile.reliability is expected


def test_a_hundred_inputs_leave_neither_threads_nor_open_files_nor_nodes(bench):
    setup = bench()
    contract, settings = setup.contract, RunnerSettings()
    wait_for(lambda: setup.clouds.newest() is not None, meanwhile=setup.send)

    def open_and_close():
        clouds = CloudInput(setup.node, contract, settings, NoRecorder())
        setup.send()
        clouds.close()

    for _ in range(5):
        open_and_close()
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        open_and_close()
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) <= files
    assert setup.node.get_node_names().count("runner_in_test_clouds") <= 1


def test_a_message_that_nobody_can_handle_is_counted_and_ends_nothing(bench, monkeypatch):
    setup = bench()
    with monkeypatch.context() as patch:
        patch.setattr(messages, "to_ns", lambda _: 1 / 0)
        wait_for(lambda: setup.clouds.drops[CloudDrop.FAILED] > 0, meanwhile=setup.send)
    assert setup.clouds.last_drop.startswith("cloud_failed: ZeroDivisionError")
    wait_for(lambda: setup.clouds.newest() is not None, meanwhile=setup.send)


def test_without_tf2_msgs_clouds_are_taken_in_the_policys_frame_alone(bench, monkeypatch):
    monkeypatch.setattr(cloud_input, "tf_message_type", lambda: None)
    setup = bench()
    wait_for(
        lambda: setup.clouds.drops[CloudDrop.WRONG_FRAME] > 0, meanwhile=lambda: setup.send(frame="camera")
    )
    assert setup.clouds.last_drop == "cloud_wrong_frame: frame 'camera', expected 'world'"
    wait_for(lambda: setup.clouds.newest() is not None, meanwhile=setup.send)


def transform(child, parent, x, stamp):
    told = TransformStamped(child_frame_id=child)
    told.header.frame_id, told.header.stamp, told.transform.translation.x = parent, stamp, x
    return told


def test_clouds_come_from_any_frame_that_tf_connects_with_the_policys(bench, monkeypatch):
    # one TransformStamped stands in for tf2_msgs/TFMessage, a list of them, which is not among the wheels
    monkeypatch.setattr(TransformStamped, "transforms", property(lambda told: [told]), raising=False)
    for module in (cloud_input, transform_input):
        monkeypatch.setattr(module, "tf_message_type", lambda: TransformStamped)
    setup = bench()
    moving = setup.camera.create_publisher(TransformStamped, "/tf", 10)
    fixed = setup.camera.create_publisher(TransformStamped, "/tf_static", LATCHED)
    fixed.publish(transform("camera", "hand", 0.125, Time()))
    setup.send(frame="camera")
    wait_for(
        lambda: setup.clouds.drops[CloudDrop.NO_TRANSFORM] > 0, meanwhile=lambda: setup.send(frame="camera")
    )
    assert "'camera'" in setup.clouds.last_drop or "'world'" in setup.clouds.last_drop

    def move_and_see():
        moving.publish(transform("hand", "world", 0.25, setup.camera.get_clock().now().to_msg()))
        setup.send(frame="camera")

    wait_for(lambda: setup.clouds.newest() is not None, meanwhile=move_and_see)
    expected = POINTS[::5] + np.float32([0.375, 0.0, 0.0])
    np.testing.assert_allclose(setup.clouds.newest().points, expected, atol=1e-6)
    bad = transform("hand", "world", 0.25, Time(sec=1))
    bad.transform.rotation.w = 0.0
    wait_for(lambda: setup.clouds.refused_transforms > 0, meanwhile=lambda: moving.publish(bad))
    wait_for(  # the hand is no longer told where it is
        lambda: setup.clouds.drops[CloudDrop.TRANSFORM_STALE] > 0,
        meanwhile=lambda: setup.send(frame="camera"),
    )
    assert "frame 'hand' in 'world'" in setup.clouds.last_drop


POSE = (0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("frame", "pose", "message"),
    [
        (
            "camera",
            (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
            "cloud_frame: 'camera' is not the policy's frame 'world'",
        ),
        ("", POSE, "cloud_extrinsics: given, but cloud_frame is empty"),
    ],
)
def test_half_a_pose_is_refused_rather_than_taken_for_the_identity(frame, pose, message):
    with pytest.raises(SettingsError, match=message):
        fixed_frame("world", RunnerSettings(cloud_frame=frame, cloud_extrinsics=pose))


def test_a_frame_and_its_pose_together_fix_where_clouds_are():
    camera = fixed_frame("world", RunnerSettings(cloud_frame="camera", cloud_extrinsics=POSE))
    assert camera is not None and camera.matrix("camera", stamp_ns=0, arrival_s=0.0)[0, 3] == 0.1
    own = fixed_frame("world", RunnerSettings(cloud_frame="world"))
    assert own is not None and own.matrix("world", stamp_ns=0, arrival_s=0.0) is None
    assert fixed_frame("world", RunnerSettings()) is None
