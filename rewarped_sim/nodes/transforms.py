"""Link frames on /tf, where the message type for it is installed."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Header

from rewarped_sim.scene import Scene

FOCUS_FRAME = "focus"
"""RViz can follow a frame, but not a point; see the saved view in config/train.rviz."""


class TransformPublisher:
    """Publishes the frames of a robot's links; without `tf2_msgs` it says so once and does nothing.

    The wheels of ROS do not have that package; every ROS installation does.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._message_type: Any = _tf_message_type()
        self._publisher = None
        if self._message_type is not None:
            self._publisher = node.create_publisher(self._message_type, "/tf", QoSProfile(depth=10))

    @property
    def heard(self) -> bool:
        """Whether somebody listens."""
        return self._publisher is not None and self._publisher.get_subscription_count() > 0

    def publish(self, scene: Scene, stamp: Time) -> None:
        """Publish where a scene's links and focus are, if it has any and somebody listens."""
        if not scene.links and scene.focus is None:
            return
        if self._publisher is None:
            self._node.get_logger().info("no link frames on /tf: tf2_msgs is not installed", once=True)
        elif self.heard:
            self._publisher.publish(self._message_type(transforms=transforms_of(scene, stamp)))


class StaticTransform:
    """Publishes once, for all who ever ask, where a frame is that does not move; `sent` tells whether it could."""

    def __init__(self, node: Node, *, child: str, parent: str, pose: Sequence[float]) -> None:
        """pose: of the child in the parent's frame: x y z [m], quaternion x y z w."""
        message_type = _tf_message_type()
        self.sent = message_type is not None
        if message_type is None:
            return
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._publisher = node.create_publisher(message_type, "/tf_static", latched)
        stamp = node.get_clock().now().to_msg()
        self._publisher.publish(
            message_type(transforms=[_transform(child, parent, pose[:3], pose[3:], stamp)])
        )


def transforms_of(scene: Scene, stamp: Time) -> list[TransformStamped]:
    """Give each link's pose in the frame of its parent, and what a camera should follow as the frame `focus`."""
    transforms = [
        _transform(link.name, link.parent, link.position.tolist(), link.quaternion.tolist(), stamp)
        for link in scene.links
    ]
    if scene.focus is not None:
        transforms.append(_transform(FOCUS_FRAME, scene.frame, scene.focus, (0.0, 0.0, 0.0, 1.0), stamp))
    return transforms


def _transform(
    name: str, parent: str, position: Sequence[float], quaternion: Sequence[float], stamp: Time
) -> TransformStamped:
    (x, y, z), (qx, qy, qz, qw) = position, quaternion
    return TransformStamped(
        header=Header(stamp=stamp, frame_id=parent),
        child_frame_id=name,
        transform=Transform(translation=Vector3(x=x, y=y, z=z), rotation=Quaternion(x=qx, y=qy, z=qz, w=qw)),
    )


def _tf_message_type() -> Any:
    try:
        return importlib.import_module("tf2_msgs.msg").TFMessage
    except ImportError:
        return None
