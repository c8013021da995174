"""Settle how messages travel: on this machine, large ones through shared memory. What the user has set stays.

Every other launch file includes this one; on its own it starts nothing.
"""

from launch import LaunchDescription
from launch.actions import SetEnvironmentVariable
from launch.substitutions import EnvironmentVariable, PathJoinSubstitution, ThisLaunchFileDir

PROFILES = PathJoinSubstitution([ThisLaunchFileDir(), "..", "config", "fastdds_shm.xml"])
DEFAULTS = {"FASTDDS_DEFAULT_PROFILES_FILE": PROFILES, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


def generate_launch_description():
    """Set those variables that are not set."""
    return LaunchDescription(
        [
            SetEnvironmentVariable(name, EnvironmentVariable(name, default_value=default))
            for name, default in DEFAULTS.items()
        ]
    )
