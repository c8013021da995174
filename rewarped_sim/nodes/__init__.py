"""ROS 2 nodes: thin shells around the library; the only files of this package that import rclpy."""
