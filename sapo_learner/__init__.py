"""Learning with gradients through a simulator. Torch only: it knows no simulator and no ROS."""

from sapo_learner.learner import Interrupted, Learner, TrainingDiverged
from sapo_learner.sapo import Sapo, SapoConfig

__all__ = ["Interrupted", "Learner", "Sapo", "SapoConfig", "TrainingDiverged"]
