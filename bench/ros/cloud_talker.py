"""Publish clouds, best effort, depth 1, to whoever listens: `python -m bench.ros.cloud_talker BYTES COUNT RATE_HZ`."""

from __future__ import annotations

import array
import sys
import time

import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2, PointField

POINT_STEP = 32
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


def cloud(size: int) -> PointCloud2:
    """Return a cloud of about `size` bytes, with points of a depth camera's layout."""
    width = size // POINT_STEP
    return PointCloud2(
        height=1,
        width=width,
        point_step=POINT_STEP,
        row_step=POINT_STEP * width,
        fields=[
            PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
            for index, name in enumerate("xyz")
        ],
        data=array.array("B", bytes(POINT_STEP * width)),
    )


def main() -> None:
    """Wait for a listener, then publish; each cloud's stamp is the time just before."""
    size, count, rate_hz = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    rclpy.init()
    node = rclpy.create_node("talker")
    publisher = node.create_publisher(PointCloud2, "cloud", BEST_EFFORT)
    message = cloud(size)
    while publisher.get_subscription_count() == 0:
        time.sleep(0.05)
    time.sleep(1.0)  # the listener has to know of us, too
    next_s = time.monotonic()
    for _ in range(count):
        time.sleep(max(next_s - time.monotonic(), 0.0))
        next_s += 1.0 / rate_hz
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)
    time.sleep(1.0)  # the last one has to arrive before we go
    rclpy.shutdown()


if __name__ == "__main__":
    main()
