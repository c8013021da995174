"""Learning with gradients through a simulator. Torch only: it knows no simulator and no ROS."""
