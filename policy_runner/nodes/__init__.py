"""The ROS half of the runner: everything that imports rclpy or message packages."""
