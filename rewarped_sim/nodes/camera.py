"""A simulated depth camera as ROS knows one: organised clouds in an optical frame, intrinsics, the frame's place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo

from rewarped_sim.nodes import messages
from rewarped_sim.nodes.parameters import Param, ParameterError
from rewarped_sim.nodes.transforms import StaticTransform
from rewarped_sim.registry import unknown
from rewarped_sim.scene import Scene
from rewarped_sim.scene_camera import SceneCamera
from rewarped_sim.sensor_model import SensorConfig, SensorError, deproject
from rewarped_sim.shutter import NANOSECONDS, Shot, Shutter

NEWEST_BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
CAMERAS = ("none", "depth")
PREFIX = "camera_"
DEFAULTS = SensorConfig()
PARAMS = (
    Param(
        "camera",
        "none",
        "depth: publish what a depth camera sees; none: all particles, or what the task's own camera sees.",
    ),
    *(
        Param(PREFIX + field.name, getattr(DEFAULTS, field.name), field.metadata["description"])
        for field in fields(SensorConfig)
    ),
)


def camera_config(params: Mapping[str, Any]) -> SensorConfig | None:
    """Return the camera that a node's parameters describe; None where there is none.

    Raises ParameterError for one that cannot be.
    """
    if params["camera"] not in CAMERAS:
        raise ParameterError(unknown("camera", params["camera"], list(CAMERAS)))
    if params["camera"] == "none":
        return None
    try:
        return SensorConfig(**{field.name: params[PREFIX + field.name] for field in fields(SensorConfig)})
    except SensorError as error:
        raise ParameterError(f"parameter {PREFIX}{error}") from error


class CameraPublisher:
    """Publishes clouds and `~/camera_info`, and once the static transform of the optical frame."""

    def __init__(
        self, node: Node, config: SensorConfig, scene: Scene, *, points: Publisher, device: str
    ) -> None:
        """scene: what will be looked at; points: of clouds; device: where depths are computed."""
        self._config = config
        self._camera = SceneCamera(config, device=device)
        self._camera.see(scene)  # compiles kernels, before anybody waits for a picture
        self._shutter: Shutter[NDArray[np.float32]] = Shutter(
            rate_hz=config.rate_hz, latency_s=config.latency_s
        )
        self._newest: Shot[NDArray[np.float32]] | None = None
        self._points_publisher = points
        self._info_publisher = node.create_publisher(CameraInfo, "~/camera_info", NEWEST_BEST_EFFORT)
        self._transform = StaticTransform(node, child=config.frame, parent=scene.frame, pose=config.pose)
        if not self._transform.sent:
            pose = ", ".join(f"{value:.6f}" for value in config.pose)
            node.get_logger().info(
                "no transform of the camera on /tf_static: tf2_msgs is not installed; tell the runner "
                f"cloud_frame: {config.frame} and cloud_extrinsics: [{pose}]"
            )

    def cut(self) -> None:
        """A new episode begins: pictures of the last one, which are still on their way, never arrive."""
        self._shutter.cut()

    def film(self, scene: Scene, stamp: Time) -> None:
        """Take a picture if it is time for one; publish the one that has come through, stamped as it was taken."""
        now_ns = stamp.sec * NANOSECONDS + stamp.nanosec
        shot = self._look(scene, now_ns)
        if shot is not None and shot.taken_ns >= 0:  # simulated time begins at 0: a stamp before that is none
            sec, nanosec = divmod(shot.taken_ns, NANOSECONDS)
            self._publish(shot.picture, Time(sec=sec, nanosec=nanosec))

    def film_standing(self, scene: Scene, stamp: Time, world_ns: int) -> None:
        """Do the same in a world that stands still until it is answered; what is newest is published at every call.

        Pictures are taken, and come through, by the world's own time. They bear the stamp of the state that is to be
        answered, since it is by its stamp that an answer is known.
        """
        self._newest = self._look(scene, world_ns) or self._newest
        if self._newest is not None:
            self._publish(self._newest.picture, stamp)

    def _look(self, scene: Scene, now_ns: int) -> Shot[NDArray[np.float32]] | None:
        def take(number: int) -> NDArray[np.float32]:
            return deproject(self._camera.measure(scene, number), self._config)

        return self._shutter.open(now_ns, take)

    def _publish(self, points: NDArray[np.float32], stamp: Time) -> None:
        self._info_publisher.publish(messages.camera_info_message(self._config, stamp))
        self._points_publisher.publish(messages.organised_cloud_message(points, self._config.frame, stamp))
