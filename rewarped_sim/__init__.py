"""Batched, differentiable multiphysics for learning, hosted in a ROS 2 node."""

from rewarped_sim.make import make

__all__ = ["make"]
