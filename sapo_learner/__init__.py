"""Learning with gradients through a simulator. Torch only: it knows no simulator and no ROS."""

from sapo_learner.sapo import Interrupted, Sapo, SapoConfig, TrainingDiverged

__all__ = ["Interrupted", "Sapo", "SapoConfig", "TrainingDiverged"]
