"""Link frames on /tf, where the message type for it is installed."""

from __future__ import annotations

import importlib
from typing import Any

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import Header

from rewarped_sim.scene import Scene


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

    def publish(self, scene: Scene, stamp: Time) -> None:
        """Publish where a scene's links are, if it has any and somebody listens."""
        if not scene.links:
            return
        if self._publisher is None:
            self._node.get_logger().info("no link frames on /tf: tf2_msgs is not installed", once=True)
        elif self._publisher.get_subscription_count() > 0:
            self._publisher.publish(self._message_type(transforms=transforms_of(scene, stamp)))


def transforms_of(scene: Scene, stamp: Time) -> list[TransformStamped]:
    """Give each link's pose in the frame of its parent."""
    transforms = []
    for link in scene.links:
        x, y, z = (float(value) for value in link.position)
        qx, qy, qz, qw = (float(value) for value in link.quaternion)
        transforms.append(
            TransformStamped(
                header=Header(stamp=stamp, frame_id=link.parent),
                child_frame_id=link.name,
                transform=Transform(
                    translation=Vector3(x=x, y=y, z=z), rotation=Quaternion(x=qx, y=qy, z=qz, w=qw)
                ),
            )
        )
    return transforms


def _tf_message_type() -> Any:
    try:
        return importlib.import_module("tf2_msgs.msg").TFMessage
    except ImportError:
        return None
