"""Commands on their way out: a publisher of the type that the robot's controller takes, and who else is there."""

from __future__ import annotations

from typing import Any

from rclpy.duration import Duration
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from policy_runner.contract import PolicyContract
from policy_runner.controller import Command, CommandTopic
from policy_runner.nodes import messages
from policy_runner.settings import RunnerSettings, SettingsError

TYPES: dict[str, tuple[Any, str]] = {
    "joint_trajectory": (JointTrajectory, "~/joint_trajectory"),
    "commands": (Float64MultiArray, "~/commands"),
    "joint_command": (JointState, "~/joint_command"),
}
"""Message and topic by `RunnerSettings.command_type`."""
NEWEST = QoSProfile(depth=1)

DELIVERY_S = 0.5
"""How long the last command may take to arrive before the publisher goes [s]."""


class CommandOutput:
    """Publishes commands for the joints of a contract."""

    def __init__(self, node: Any, contract: PolicyContract, settings: RunnerSettings) -> None:
        """Open the publisher that `settings.command_type` names, on an rclpy node.

        Raises:
            SettingsError: the message cannot carry what this policy commands.
        """
        command_type, self._action = settings.command_type, contract.action
        if command_type == "joint_trajectory" and messages.quantity(self._action) != "position":
            raise SettingsError(
                f"command_type: joint_trajectory carries positions, but the policy's mode is "
                f"{self._action.mode!r}; use commands or joint_command"
            )
        self._command_type, self._stamp_trajectory = command_type, settings.stamp_trajectory
        self._period_s = settings.control_dt_s(contract)
        self._node = node
        message_type, self.name = TYPES[command_type]
        self._publisher = node.create_publisher(message_type, self.name, NEWEST)

    def publish(self, command: Command) -> JointTrajectory | Float64MultiArray | JointState:
        """Publish one command; returns the message."""
        message = self._message(command)
        self._publisher.publish(message)
        return message

    def topic(self) -> CommandTopic:
        """Return what the graph knows of the topic. A process that was killed stays in it for some seconds."""
        return CommandTopic(listeners=self._publisher.get_subscription_count(), others=self._others())

    def wait_until_delivered(self) -> None:
        """Give the last command time to arrive."""
        self._publisher.wait_for_all_acked(Duration(seconds=DELIVERY_S))

    def close(self) -> None:
        """Take the publisher out of the graph."""
        self._node.destroy_publisher(self._publisher)

    def _others(self) -> tuple[str, ...]:
        topic, own = self._publisher.topic_name, self._node.get_fully_qualified_name()
        if self._node.count_publishers(topic) <= 1:  # ours; the question who they are takes ten times as long
            return ()
        endpoints = self._node.get_publishers_info_by_topic(topic)
        names = [f"{end.node_namespace.rstrip('/')}/{end.node_name}" for end in endpoints]
        if own in names:
            names.remove(own)  # once: there may be another node of our name
        return tuple(sorted(names))

    def _message(self, command: Command) -> JointTrajectory | Float64MultiArray | JointState:
        if self._command_type == "commands":
            return messages.float_array(command)
        if self._command_type == "joint_command":
            return messages.joint_command(command, self._action)
        stamp_ns = command.stamp_ns if self._stamp_trajectory else 0
        return messages.joint_trajectory(command, self._action, period_s=self._period_s, stamp_ns=stamp_ns)
