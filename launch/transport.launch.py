"""Settle how messages travel: on this machine, large ones through shared memory. What the user has set stays.

Every other launch file includes this one; on its own it starts nothing. Where the user lets discovery reach other
machines (ROS_AUTOMATIC_DISCOVERY_RANGE, ROS_STATIC_PEERS), the network is opened for messages too.
"""

from launch import LaunchDescription
from launch.actions import OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import PathJoinSubstitution, ThisLaunchFileDir

RANGE = "ROS_AUTOMATIC_DISCOVERY_RANGE"
PROFILES, OLD_PROFILES = "FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"
OLD_DISTRIBUTIONS = ("humble", "iron", "jazzy")  # with a Fast DDS before version 3, which knows the old name


def generate_launch_description():
    """Set those variables that are not set."""
    return LaunchDescription([OpaqueFunction(function=settle)])


def settle(context):
    """Return what sets the range of discovery, and the profiles that go with it."""
    discovery = context.environment.get(RANGE) or "LOCALHOST"
    this_machine = discovery in ("LOCALHOST", "OFF") and not context.environment.get("ROS_STATIC_PEERS")
    profiles = "fastdds_shm.xml" if this_machine else "fastdds_shm_network.xml"
    path = PathJoinSubstitution([ThisLaunchFileDir(), "..", "config", profiles]).perform(context)
    settings = [SetEnvironmentVariable(RANGE, discovery)]
    if not context.environment.get(PROFILES) and not context.environment.get(OLD_PROFILES):
        old = context.environment.get("ROS_DISTRO") in OLD_DISTRIBUTIONS
        settings.append(SetEnvironmentVariable(OLD_PROFILES if old else PROFILES, path))
    return settings
