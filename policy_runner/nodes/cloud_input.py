"""Clouds on their way in: the subscription of `points`, and the worker that turns them into samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2

from policy_runner.clock import now_s
from policy_runner.cloud_worker import CloudDrop, CloudWorker, pose_matrix
from policy_runner.contract import PointCloudSpec
from policy_runner.inputs import CloudSample
from policy_runner.nodes import messages
from policy_runner.pointcloud import CloudLike
from policy_runner.settings import RunnerSettings

NEWEST_BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


class CloudInput:
    """Receives clouds and offers the newest sample."""

    def __init__(self, node: Any, spec: PointCloudSpec, settings: RunnerSettings) -> None:
        """Subscribe to `points`, on an rclpy node."""
        identity = settings.cloud_extrinsics == RunnerSettings.cloud_extrinsics
        self._worker = CloudWorker(
            spec,
            frame=settings.cloud_frame or spec.frame,
            transform=None if identity else pose_matrix(settings.cloud_extrinsics),
        )
        self._node = node
        self._subscription = node.create_subscription(
            PointCloud2, "points", self._on_points, NEWEST_BEST_EFFORT
        )

    @property
    def drops(self) -> Mapping[CloudDrop, int]:
        """How many clouds gave no sample, by reason."""
        return self._worker.drops

    @property
    def last_drop(self) -> str:
        """What was wrong with the last cloud that was wrong; empty if none was."""
        return self._worker.last_drop

    def newest(self) -> CloudSample | None:
        """Return the newest sample, or None while there is none."""
        return self._worker.newest()

    def close(self) -> None:
        """Unsubscribe and end the worker."""
        self._node.destroy_subscription(self._subscription)
        self._worker.close()

    def _on_points(self, message: PointCloud2) -> None:
        header = message.header
        self._worker.submit(
            cast(CloudLike, message),
            frame=header.frame_id,
            stamp_ns=messages.to_ns(header.stamp),
            arrival_s=now_s(),
        )
