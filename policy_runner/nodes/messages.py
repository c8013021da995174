"""ROS messages from and to plain values; needs the message packages, but no rclpy."""

from __future__ import annotations

import array

import numpy as np
from builtin_interfaces.msg import Duration, Time
from numpy.typing import NDArray
from sensor_msgs.msg import JointState, PointCloud2, PointField
from std_msgs.msg import Float32MultiArray, Float64MultiArray, Header
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from policy_runner.contract import ActionSpec
from policy_runner.controller import Command

NANOSECONDS = 1_000_000_000


def to_ns(stamp: Time) -> int:
    """Return a stamp in nanoseconds."""
    return stamp.sec * NANOSECONDS + stamp.nanosec


def to_time(stamp_ns: int) -> Time:
    """Return a stamp given in nanoseconds."""
    return Time(sec=stamp_ns // NANOSECONDS, nanosec=stamp_ns % NANOSECONDS)


def quantity(action: ActionSpec) -> str:
    """Return what a command holds, which is also the field of a JointState: position, velocity or effort."""
    return "position" if action.mode == "delta_position" else action.mode


def joint_trajectory(
    command: Command, action: ActionSpec, *, period_s: float, stamp_ns: int
) -> JointTrajectory:
    """Return one point, to be reached one control period after the stamp; a zero stamp means now."""
    period_ns = round(period_s * NANOSECONDS)
    point = JointTrajectoryPoint(
        positions=command.values.tolist(),
        time_from_start=Duration(sec=period_ns // NANOSECONDS, nanosec=period_ns % NANOSECONDS),
    )
    header = Header(stamp=to_time(stamp_ns))
    return JointTrajectory(header=header, joint_names=list(action.joint_names), points=[point])


def float_array(command: Command) -> Float64MultiArray:
    """Return only the values, in the contract's order."""
    return Float64MultiArray(data=command.values.tolist())


def joint_command(command: Command, action: ActionSpec) -> JointState:
    """Return the values under the joints' names, in the field for what the policy commands."""
    message = JointState(header=Header(stamp=to_time(command.stamp_ns)), name=list(action.joint_names))
    setattr(message, quantity(action), command.values.tolist())
    return message


def float32_array(values: NDArray[np.float32]) -> Float32MultiArray:
    """Return only the values, in order."""
    return Float32MultiArray(data=values.ravel().tolist())


def point_cloud(points: NDArray[np.float32], *, frame: str, stamp_ns: int) -> PointCloud2:
    """Return points (n, 3) [m] as an unorganised cloud of x, y, z."""
    names = ("x", "y", "z")
    data = array.array("B")  # a NumPy array here would be copied element by element
    data.frombytes(np.ascontiguousarray(points, "<f4").tobytes())
    return PointCloud2(
        header=Header(stamp=to_time(stamp_ns), frame_id=frame),
        height=1,
        width=len(points),
        fields=[
            PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
            for index, name in enumerate(names)
        ],
        is_bigendian=False,
        point_step=12,
        row_step=12 * len(points),
        data=data,
        is_dense=True,
    )
