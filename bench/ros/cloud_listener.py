"""Receive clouds until standard input ends, then print each one's age on arrival [ms] as a JSON list."""

from __future__ import annotations

import json
import sys
import threading

import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2

BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


def main() -> None:
    """Listen."""
    rclpy.init()
    node = rclpy.create_node("listener")
    ages_ms: list[float] = []

    def on_cloud(message: PointCloud2) -> None:
        stamp = message.header.stamp
        age_ns = node.get_clock().now().nanoseconds - stamp.sec * 1_000_000_000 - stamp.nanosec
        ages_ms.append(age_ns / 1e6)

    node.create_subscription(PointCloud2, "cloud", on_cloud, BEST_EFFORT)
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    while not over.is_set():
        rclpy.spin_once(node, timeout_sec=0.1)
    print(json.dumps(ages_ms), flush=True)
    rclpy.shutdown()


if __name__ == "__main__":
    main()
