"""Watch a training run or a simulated robot in RViz.

ros2 launch rewarped_sim view.launch.py view:=play
"""

import shutil

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, LogInfo, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, ThisLaunchFileDir
from launch_ros.actions import Node


def generate_launch_description():
    """Declare the argument, settle the transport, start RViz where there is one."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "view",
                default_value="train",
                choices=["train", "play"],
                description="What to watch: training, or a simulated robot and its runner",
            ),
            IncludeLaunchDescription(PathJoinSubstitution([ThisLaunchFileDir(), "transport.launch.py"])),
            OpaqueFunction(function=start_rviz),
        ]
    )


def start_rviz(context):
    """Return RViz, or a line that says why there is none; everything else goes on without it."""
    if shutil.which("rviz2") is None:
        return [
            LogInfo(msg="rviz2 is not on the PATH, so nothing is shown; a ROS 2 desktop installation has it")
        ]
    view = LaunchConfiguration("view").perform(context)
    config = PathJoinSubstitution([ThisLaunchFileDir(), "..", "config", f"{view}.rviz"])
    return [Node(package="rviz2", executable="rviz2", name="rviz2", arguments=["-d", config])]
