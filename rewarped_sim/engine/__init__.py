"""Physics: Warp and NumPy only. No torch, no ROS, no learning."""
