"""Programs that benchmarks start in processes of their own; the only place in bench/ that imports rclpy."""
