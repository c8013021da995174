"""What a robot and its operator say, on its way in: joint states and goals, handed on or dropped and counted."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState

from policy_runner.clock import now_s
from policy_runner.controller import Controller
from policy_runner.inputs import GoalError, GoalSample, JointReader, JointStateError
from policy_runner.nodes import messages
from policy_runner.nodes.recorder import Recorder

NEWEST = QoSProfile(depth=1)
NEWEST_BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


class RobotInput:
    """Receives joint states, and goals where the policy takes one, for a controller."""

    def __init__(self, node: Any, controller: Controller, recorder: Recorder) -> None:
        """Subscribe to `joint_states` and `~/goal`, on an rclpy node."""
        self._node, self._controller, self._recorder = node, controller, recorder
        self._joints = JointReader(
            controller.contract.action.joint_names, needs_velocity=controller.needs_velocity
        )
        self.drops: Counter[str] = Counter()
        """How many messages were dropped, by reason."""
        self.last_drop = ""
        """What was wrong with the last one of them; empty if there was none."""
        self.topic = node.resolve_topic_name("joint_states")
        """Where joint states come from."""
        self._subscriptions = [
            node.create_subscription(JointState, "joint_states", self._on_joint_state, NEWEST_BEST_EFFORT)
        ]
        if controller.goal_frame is not None:
            self._subscriptions.append(node.create_subscription(PoseStamped, "~/goal", self._on_goal, NEWEST))

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _on_joint_state(self, message: JointState) -> None:
        arrival_s = now_s()
        self._recorder.message("joint_states", message, at_s=arrival_s)
        try:
            sample = self._joints.read(
                list(message.name),
                message.position,
                message.velocity,
                stamp_ns=messages.to_ns(message.header.stamp),
                arrival_s=arrival_s,
            )
        except JointStateError as error:
            self._drop("joint_state_bad", str(error))
        else:
            self._controller.set_joints(sample)

    def _on_goal(self, message: PoseStamped) -> None:
        self._recorder.message("~/goal", message)
        frame = self._controller.goal_frame
        if message.header.frame_id != frame:
            self._drop("goal_wrong_frame", f"frame {message.header.frame_id!r}, expected {frame!r}")
            return
        position = message.pose.position
        try:
            self._controller.set_goal(GoalSample(position=np.array([position.x, position.y, position.z])))
        except GoalError as error:
            self._drop("goal_bad", str(error))

    def _drop(self, reason: str, what: str) -> None:
        self.drops[reason] += 1
        self.last_drop = f"{reason}: {what}"
        self._node.get_logger().warning(f"dropped: {self.last_drop}", throttle_duration_sec=1.0)
