"""A camera in a process of its own: on a line of input, it publishes COUNT organised clouds of millions of points."""

from __future__ import annotations

import array
import sys
import time

import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from robot import cloud_message
from sensor_msgs.msg import PointCloud2, PointField

HEIGHT, WIDTH = 1600, 2000
BYTES = 3 * HEIGHT * WIDTH
"""Three of INT8 a point: three such clouds fit into the shared memory of the profile, 32 MiB."""
PERIOD_S = 0.1


def big_cloud():
    message = cloud_message([])
    message.height, message.width, message.point_step, message.row_step = HEIGHT, WIDTH, 3, 3 * WIDTH
    message.fields = [
        PointField(name=name, offset=offset, datatype=PointField.INT8, count=1)
        for offset, name in enumerate("xyz")
    ]
    message.data = array.array("B", bytes(BYTES))  # all at the origin, a corner of the crop box
    message.header.frame_id = "world"
    return message


def main():
    rclpy.init()
    node = rclpy.create_node("big_camera")
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    publisher, message = node.create_publisher(PointCloud2, "points", best_effort), big_cloud()
    while publisher.get_subscription_count() == 0:
        time.sleep(0.05)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(int(sys.argv[1])):
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)
        time.sleep(PERIOD_S)
    node.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    main()
