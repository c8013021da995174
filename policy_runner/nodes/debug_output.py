"""What a network saw and gave, for whoever looks for a fault in it."""

from __future__ import annotations

from typing import Any

from rclpy.qos import QoSProfile
from std_msgs.msg import Float32MultiArray

from policy_runner.acting import Acting
from policy_runner.bundle import OBS_INPUT
from policy_runner.nodes import messages

NEWEST = QoSProfile(depth=1)


class DebugOutput:
    """Publishes `~/observation`, without the cloud, which is on `~/policy_points`, and `~/action_raw`."""

    def __init__(self, node: Any) -> None:
        """Open the publishers, on an rclpy node."""
        self._node = node
        self._observations = node.create_publisher(Float32MultiArray, "~/observation", NEWEST)
        self._actions = node.create_publisher(Float32MultiArray, "~/action_raw", NEWEST)

    def show(self, acting: Acting) -> None:
        """Publish what the policy saw and gave last, before filter and limits."""
        if acting.observation is not None and OBS_INPUT in acting.observation:
            self._observations.publish(messages.float32_array(acting.observation[OBS_INPUT]))
        if acting.raw_action is not None:
            self._actions.publish(messages.float32_array(acting.raw_action))

    def close(self) -> None:
        """Take the publishers out of the graph."""
        self._node.destroy_publisher(self._observations)
        self._node.destroy_publisher(self._actions)
