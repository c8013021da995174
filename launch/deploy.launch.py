"""Run a policy bundle on a robot: the runner alone.

    ros2 launch rewarped_sim deploy.launch.py policy:=FOLDER

The runner takes `points` and `joint_states`, and commands nothing until an operator calls `~/arm`.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable, Shutdown
from launch.substitutions import (
    EnvironmentVariable,
    LaunchConfiguration,
    PathJoinSubstitution,
    ThisLaunchFileDir,
)
from launch_ros.actions import Node

from policy_runner.bundle import read_bundle


def generate_launch_description():
    """Declare the arguments, settle the transport, and start the runner."""
    config_folder = PathJoinSubstitution([ThisLaunchFileDir(), "..", "config"])
    return LaunchDescription(
        [
            DeclareLaunchArgument("policy", description="Folder of the policy bundle"),
            DeclareLaunchArgument(
                "config",
                default_value=PathJoinSubstitution([config_folder, "runner.yaml"]),
                description="YAML file with settings of the runner; config/runner.yaml explains them all",
            ),
            DeclareLaunchArgument(
                "command_type",
                default_value="",
                choices=["", "joint_trajectory", "commands", "joint_command"],
                description="How commands are published; empty: as in config",
            ),
            DeclareLaunchArgument(
                "autostart",
                default_value="",
                choices=["", "true", "false"],
                description="Configure and activate at start; empty: as in config",
            ),
            DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node"),
            DeclareLaunchArgument("points", default_value="points", description="Topic of the clouds"),
            DeclareLaunchArgument(
                "joint_states", default_value="joint_states", description="Topic of the joint states"
            ),
            DeclareLaunchArgument(
                "use_sim_time",
                default_value="false",
                choices=["true", "false"],
                description="Let the control loop follow /clock",
            ),
            DeclareLaunchArgument(
                "log_level",
                default_value="info",
                choices=["debug", "info", "warn", "error", "fatal"],
                description="Least severity of log messages",
            ),
            # what the user has set stays
            SetEnvironmentVariable(
                "FASTDDS_DEFAULT_PROFILES_FILE",
                EnvironmentVariable(
                    "FASTDDS_DEFAULT_PROFILES_FILE",
                    default_value=PathJoinSubstitution([config_folder, "fastdds_shm.xml"]),
                ),
            ),
            SetEnvironmentVariable(
                "ROS_AUTOMATIC_DISCOVERY_RANGE",
                EnvironmentVariable("ROS_AUTOMATIC_DISCOVERY_RANGE", default_value="LOCALHOST"),
            ),
            OpaqueFunction(function=start_runner),
        ]
    )


def start_runner(context):
    """Return the node, with those parameters that were given; a broken bundle ends the launch right here."""

    def given(name):
        return LaunchConfiguration(name).perform(context)

    policy = Path(given("policy")).absolute()
    read_bundle(policy)
    parameters = {"policy": str(policy), "use_sim_time": given("use_sim_time") == "true"}
    if given("command_type"):
        parameters["command_type"] = given("command_type")
    if given("autostart"):
        parameters["autostart"] = given("autostart") == "true"
    return [
        Node(
            package="rewarped_sim",
            executable="policy_runner",
            name="policy_runner",
            namespace=given("namespace"),
            output="screen",
            parameters=[given("config"), parameters],
            remappings=[("points", given("points")), ("joint_states", given("joint_states"))],
            arguments=["--ros-args", "--log-level", given("log_level")],
            on_exit=end_with_the_runner,
        )
    ]


def end_with_the_runner(event, context):
    """End the launch with the runner; its failure is a failure of the launch."""
    if event.returncode != 0:
        raise RuntimeError(f"policy_runner ended with exit code {event.returncode}")
    return [Shutdown(reason="policy_runner ended")]
