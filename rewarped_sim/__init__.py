"""Batched, differentiable multiphysics for learning, hosted in a ROS 2 node."""
