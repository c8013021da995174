"""A robot with a depth camera, and the operator who arms the runner beside it.

    python -m bench.ros.robot_with_camera BUNDLE CLOUD.npy CLOUD_HZ SECONDS

It is where it is told to be, publishes joint states at 100 Hz and the cloud at CLOUD_HZ, and prints, as JSON, when each
command came in that many seconds, and what the runner's diagnostics said meanwhile.
"""

from __future__ import annotations

import array
import json
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from sensor_msgs.msg import JointState, PointCloud2, PointField
from std_srvs.srv import SetBool

from policy_runner.bundle import read_bundle
from policy_runner.contract import PolicyContract

JOINT_STATES_HZ = 100.0
JOINT_STATES_AHEAD_NS = 1_000_000_000
"""A command bears the stamp of its oldest input: stamped like this, that is the cloud."""
CAMERA_FRAME = "camera"
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
PATIENCE_S = 60.0
WARM_UP_S = 2.0
LOOK_S = 0.5
"""Between two looks whether the runner holds."""


class RobotWithCamera:
    """The node, and what it has heard of the runner."""

    def __init__(self, contract: PolicyContract, image: NDArray[np.float32], cloud_hz: float) -> None:
        """Begin to publish.

        image: (height, width, 8), points of 32 bytes that begin with x, y, z [m] in the camera's frame.
        """
        self.node = rclpy.create_node("robot")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._names = list(contract.action.joint_names)
        self.position = list(contract.default_joint_pos)
        self.commands: list[tuple[int, int, int]] = []
        """Number, time of publication and stamp of each command; the stamp is 0 for one that holds. All [ns]."""
        self.diagnostics: list[dict[str, str]] = []
        self._joints = self.node.create_publisher(JointState, "joint_states", BEST_EFFORT)
        self._points = self.node.create_publisher(PointCloud2, "points", BEST_EFFORT)
        message = cloud_message(image)
        self._cloud = bytearray(serialize_message(message))
        message.data = message.data[:-1]
        self._cut_cloud = bytearray(serialize_message(message))
        self._arm = self.node.create_client(SetBool, "policy_runner/arm")
        self.node.create_subscription(JointState, "policy_runner/joint_command", self._on_command, 100)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.node.create_timer(1.0 / JOINT_STATES_HZ, self._publish_joints)
        self.node.create_timer(1.0 / cloud_hz, self._publish_cloud)
        self.camera_on = self.joints_on = True
        self.cut_clouds = False
        """Whether clouds end before their last point."""
        self.sensor_fault = 0.0
        """Added to every joint's position as it is published [rad or m]."""

    def until(self, condition: Callable[[], Any], patience_s: float = PATIENCE_S) -> None:
        """Listen and publish until the condition holds; raises TimeoutError where it does not."""
        give_up_s = time.monotonic() + patience_s
        while not condition():
            if time.monotonic() > give_up_s:
                raise TimeoutError(f"waited {patience_s} s; last diagnostics: {self.diagnostics[-1:]}")
            self._executor.spin_once(timeout_sec=0.1)

    def pass_time(self, seconds: float) -> None:
        """Listen and publish."""
        end_s = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= end_s, patience_s=seconds + PATIENCE_S)

    def call(self, client: Any, request: Any) -> Any:
        """Return the answer of a service."""
        self.until(client.service_is_ready)
        future = client.call_async(request)
        self.until(future.done)
        return future.result()

    def arm(self) -> None:
        """Put the policy in command, as soon as the runner has what it needs."""
        while not self.call(self._arm, SetBool.Request(data=True)).success:
            self.pass_time(0.1)

    def disarm(self) -> None:
        """Take the command from the policy."""
        self.call(self._arm, SetBool.Request(data=False))

    def _on_command(self, message: JointState, info: Any) -> None:
        self.position = list(message.position)
        stamp = message.header.stamp
        stamp_ns = stamp.sec * 1_000_000_000 + stamp.nanosec
        self.commands.append((info["publication_sequence_number"], info["source_timestamp"], stamp_ns))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.endswith("policy_runner"):
                self.diagnostics.append({pair.key: pair.value for pair in status.values})

    def _publish_joints(self) -> None:
        if not self.joints_on:
            return
        measured = [position + self.sensor_fault for position in self.position]
        message = JointState(name=self._names, position=measured, velocity=[0.0] * len(self._names))
        stamp_ns = time.time_ns() + JOINT_STATES_AHEAD_NS
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
        self._joints.publish(message)

    def _publish_cloud(self) -> None:
        if self.camera_on:
            cloud = self._cut_cloud if self.cut_clouds else self._cloud
            struct.pack_into("<iI", cloud, 4, *divmod(time.time_ns(), 1_000_000_000))  # header.stamp
            self._points.publish(bytes(cloud))


def cloud_message(image: NDArray[np.float32]) -> PointCloud2:
    """Return an organised cloud, of which each point is a row of the image's last axis."""
    height, width, values = image.shape
    message = PointCloud2(
        height=height,
        width=width,
        point_step=4 * values,
        row_step=4 * values * width,
        fields=[
            PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
            for index, name in enumerate("xyz")
        ],
        data=array.array("B", image.tobytes()),
    )
    message.header.frame_id = CAMERA_FRAME
    return message


def main() -> None:
    """Arm, let the robot move, tell what came."""
    bundle, image, cloud_hz, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
    rclpy.init()
    robot = RobotWithCamera(read_bundle(Path(bundle)).contract, np.load(image), cloud_hz)
    robot.arm()
    robot.pass_time(WARM_UP_S)
    first, seen = len(robot.commands), len(robot.diagnostics)
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        robot.pass_time(min(LOOK_S, seconds))
        if not robot.commands[-1][2]:  # on a busy machine, the network may once be late
            robot.arm()
    print(json.dumps({"commands": robot.commands[first:], "diagnostics": robot.diagnostics[seen:]}))
    rclpy.shutdown()


if __name__ == "__main__":
    main()
