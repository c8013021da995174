"""Clouds on their way in: a node, an executor and a thread of their own, so that no tick waits for one to arrive.

Taking a cloud of 10 MB from the middleware takes milliseconds; processing it, in the thread of `CloudWorker`, more.
Neither may happen between two ticks of the control loop.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, cast

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2

from policy_runner.clock import now_s
from policy_runner.cloud_frames import CloudFrames, FixedFrame, TrackedFrames
from policy_runner.cloud_worker import CloudDrop, CloudWorker
from policy_runner.contract import PolicyContract
from policy_runner.frames import FrameTree
from policy_runner.inputs import CloudSample
from policy_runner.nodes import messages
from policy_runner.nodes.recorder import Recorder
from policy_runner.nodes.transform_input import TransformInput, tf_message_type
from policy_runner.pointcloud import CloudLike
from policy_runner.settings import RunnerSettings, SettingsError
from policy_runner.stamp_order import StampOrder

NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
NEWEST_BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
HELD_BACK = 2.0
"""Clouds whose stamps or frames have jumped are held back for this many timeouts of clouds: the controller is then sure
to hold, and an operator to be asked."""

DEAF_S, LONGEST_DEAF_S = 5.0, 60.0
"""Where somebody publishes clouds and none arrives for so long, they are subscribed to anew [s]; from one time to the
next, patience doubles."""


class CloudInput:
    """Receives clouds, and the frames they are in, and offers the newest sample."""

    def __init__(
        self, node: Any, contract: PolicyContract, settings: RunnerSettings, recorder: Recorder
    ) -> None:
        """Subscribe to `points` as the rclpy node `node` would, in a thread beside it.

        Raises:
            SettingsError: of `cloud_frame` and `cloud_extrinsics`, only one says something.
        """
        spec = contract.point_cloud
        assert spec is not None
        fixed = fixed_frame(spec.frame, settings)  # before anything is there to be closed
        settle_s = HELD_BACK * settings.cloud_timeout(contract)
        self._logger, self._context, self._recorder = node.get_logger(), node.context, recorder
        # without global arguments, names are what they are here: those of the other node, remapped as it was told
        self._node = rclpy.create_node(
            f"{node.get_name()}_clouds",
            namespace=node.get_namespace(),
            context=self._context,
            use_global_arguments=False,
            enable_rosout=False,
            start_parameter_services=False,
            parameter_overrides=[Parameter("start_type_description_service", value=False)],
        )
        self._transforms: TransformInput | None = None
        self._worker = CloudWorker(
            spec,
            fixed or self._told_frames(node, spec.frame, settings, settle_s),
            order=StampOrder(settle_s=settle_s),
            max_points=settings.max_cloud_points,
            report=self._report,
        )
        self.topic = node.resolve_topic_name("points")
        """Where clouds come from."""
        self._qos = NEWEST if settings.reliable_clouds else NEWEST_BEST_EFFORT
        self._subscription = self._subscribe()
        self._heard_s, self._patience_s = now_s(), DEAF_S
        self.resubscriptions = 0
        """How often clouds that somebody publishes were subscribed to anew, because none arrived."""
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._closing = threading.Event()
        self._closed = self._node.create_guard_condition(lambda: None)
        self._thread = threading.Thread(target=self._listen, name="cloud_input", daemon=True)
        self._thread.start()

    @property
    def drops(self) -> Mapping[CloudDrop, int]:
        """How many clouds gave no sample, by reason."""
        return self._worker.drops

    @property
    def last_drop(self) -> str:
        """What was wrong with the last cloud that was wrong; empty if none was."""
        return self._worker.last_drop

    @property
    def refused_transforms(self) -> int:
        """How many transforms said nothing about where a frame is."""
        return self._transforms.refused if self._transforms is not None else 0

    def newest(self) -> CloudSample | None:
        """Return the newest sample, or None while there is none."""
        return self._worker.newest()

    def close(self) -> None:
        """Unsubscribe, and end both threads."""
        self._closing.set()
        self._closed.trigger()  # else it would listen on until something comes
        self._thread.join()
        self._executor.shutdown()
        self._node.destroy_node()
        self._worker.close()

    def _told_frames(self, node: Any, target: str, settings: RunnerSettings, settle_s: float) -> CloudFrames:
        """Return the frames that /tf tells of; the policy's own alone where /tf cannot be understood."""
        if tf_message_type() is None:
            self._logger.info(f"tf2_msgs is not installed: clouds must come in frame {target!r}")
            return FixedFrame(target)
        tree = FrameTree(timeout_s=settings.tf_timeout_s)
        self._transforms = TransformInput(self._node, tree, node.resolve_topic_name)
        return TrackedFrames(
            tree,
            target,
            max_jump_m=settings.max_transform_jump_m,
            max_jump_rad=settings.max_transform_jump_rad,
            settle_s=settle_s,
        )

    def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                self._executor.spin_once(timeout_sec=1.0)
                self._subscribe_anew_if_deaf()
            except ExternalShutdownException:
                return
            except Exception as error:  # what cannot even be taken from the middleware must end nothing
                self._worker.drop(error)
                self._closing.wait(0.1)  # nor let it spin

    def _subscribe(self) -> Any:
        return self._node.create_subscription(PointCloud2, self.topic, self._on_points, self._qos)

    def _subscribe_anew_if_deaf(self) -> None:
        """Do not wait for ever for a publisher that the middleware knows of but has not brought together with us."""
        if now_s() - self._heard_s < self._patience_s or self._node.count_publishers(self.topic) == 0:
            return
        self._node.destroy_subscription(self._subscription)
        self._subscription = self._subscribe()
        self._heard_s, self._patience_s = now_s(), min(2.0 * self._patience_s, LONGEST_DEAF_S)
        self.resubscriptions += 1
        self._logger.warning(
            f"no cloud came from those who publish {self.topic}: subscribed anew; if none comes now, see whether they "
            "send at all and as `reliable_clouds` asks, and `python -m policy_runner.doctor`"
        )

    def _on_points(self, message: PointCloud2) -> None:
        header, arrival_s = message.header, now_s()
        self._heard_s, self._patience_s = arrival_s, DEAF_S
        self._recorder.cloud(message, at_s=arrival_s)
        self._worker.submit(
            cast(CloudLike, message),
            frame=header.frame_id,
            stamp_ns=messages.to_ns(header.stamp),
            arrival_s=arrival_s,
        )

    def _report(self, line: str) -> None:
        self._logger.warning(f"dropped: {line}", throttle_duration_sec=1.0)


def fixed_frame(target: str, settings: RunnerSettings) -> FixedFrame | None:
    """Return the one frame that clouds may have, where its pose in the frame `target` is given; else None.

    Raises:
        SettingsError: of `cloud_frame` and `cloud_extrinsics`, only one says something.
    """
    frame, pose = settings.cloud_frame, settings.cloud_extrinsics
    posed = pose != RunnerSettings.cloud_extrinsics
    if posed and not frame:
        raise SettingsError(
            "cloud_extrinsics: given, but cloud_frame is empty: name the frame whose pose it is"
        )
    if not posed and frame not in ("", target):  # it would be taken to be the policy's frame, and is not
        raise SettingsError(
            f"cloud_frame: {frame!r} is not the policy's frame {target!r}, and cloud_extrinsics gives no pose: "
            "give one, or leave cloud_frame empty to take it from /tf"
        )
    if not frame:
        return None
    return FixedFrame(frame, pose if posed else None)
