"""Messages say in ROS's words exactly what the plain values say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import PointCloud2

from policy_runner.controller import Command
from policy_runner.nodes import messages
from policy_runner.pointcloud import decode

COMMAND = Command(values=np.array([0.1, 0.2, 0.3]), stamp_ns=12_000_000_345)


@pytest.mark.parametrize("stamp_ns", [0, 1, 999_999_999, 1_000_000_000, 1_795_229_666_442_243_240])
def test_stamps_survive_both_ways(stamp_ns):
    assert messages.to_ns(messages.to_time(stamp_ns)) == stamp_ns
    assert messages.to_time(1_500_000_000) == Time(sec=1, nanosec=500_000_000)


def test_a_trajectory_is_one_point_one_period_ahead(bundles):
    action = bundles.contract().action
    message = messages.joint_trajectory(COMMAND, action, period_s=1.25, stamp_ns=7)
    (point,) = message.points
    assert message.joint_names == ["pin_x", "pin_y", "pin_yaw"]
    assert list(point.positions) == [0.1, 0.2, 0.3] and not point.velocities
    assert (point.time_from_start.sec, point.time_from_start.nanosec) == (1, 250_000_000)
    assert messages.to_ns(message.header.stamp) == 7


@pytest.mark.parametrize(
    ("mode", "field"),
    [
        ("position", "position"),
        ("delta_position", "position"),
        ("velocity", "velocity"),
        ("effort", "effort"),
    ],
)
def test_a_joint_command_fills_the_field_of_what_the_policy_commands(bundles, mode, field):
    action = replace(bundles.contract().action, mode=mode)
    message = messages.joint_command(COMMAND, action)
    values = {name: list(getattr(message, name)) for name in ("position", "velocity", "effort")}
    assert values.pop(field) == [0.1, 0.2, 0.3] and not any(values.values())
    assert message.name == list(action.joint_names)
    assert messages.to_ns(message.header.stamp) == COMMAND.stamp_ns


@pytest.mark.parametrize("count", [0, 1, 250])
def test_points_survive_the_way_through_a_serialized_cloud(count):
    points = np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)
    message = messages.point_cloud(points, frame="world", stamp_ns=5)
    again = deserialize_message(serialize_message(message), PointCloud2)
    np.testing.assert_array_equal(decode(again), points)
    assert again.point_step == 12  # also where there are no points: viewers divide by it
    assert again.header.frame_id == "world"
