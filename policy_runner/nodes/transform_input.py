"""Frames on their way in: /tf and /tf_static, where their message type is installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.qos import DurabilityPolicy, QoSProfile

from policy_runner.frames import FrameTree, StampedTransform, TransformError
from policy_runner.nodes import messages

MOVING = QoSProfile(depth=100)
STATIC = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class TransformInput:
    """Feeds a tree of frames."""

    def __init__(self, node: Any, tree: FrameTree, resolve: Callable[[str], str] = str) -> None:
        """Subscribe on an rclpy node, to the topics' names as `resolve` gives them; needs `tf_message_type()`."""
        self._logger, self._tree = node.get_logger(), tree
        self.refused = 0
        """How many transforms said nothing about where a frame is."""
        kind = tf_message_type()
        node.create_subscription(kind, resolve("/tf"), self.take_moving, MOVING)
        node.create_subscription(kind, resolve("/tf_static"), self.take_static, STATIC)

    def take_moving(self, message: Any) -> None:
        """Take a `tf2_msgs/TFMessage` about frames that move."""
        self._take(message, static=False)

    def take_static(self, message: Any) -> None:
        """Take a `tf2_msgs/TFMessage` about frames that do not."""
        self._take(message, static=True)

    def _take(self, message: Any, *, static: bool) -> None:
        for stamped in message.transforms:
            move, turn = stamped.transform.translation, stamped.transform.rotation
            try:
                self._tree.add(
                    StampedTransform(
                        parent=stamped.header.frame_id,
                        child=stamped.child_frame_id,
                        stamp_ns=messages.to_ns(stamped.header.stamp),
                        position=np.array([move.x, move.y, move.z]),
                        quaternion=np.array([turn.x, turn.y, turn.z, turn.w]),
                    ),
                    static=static,
                )
            except TransformError as error:
                self.refused += 1
                self._logger.warning(f"refused: {error}", throttle_duration_sec=1.0)


def tf_message_type() -> Any:
    """Return `tf2_msgs.msg.TFMessage`; None where it is not installed, as it is not among the wheels of ROS."""
    try:
        return importlib.import_module("tf2_msgs.msg").TFMessage
    except ImportError:
        return None
