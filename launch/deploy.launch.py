"""Run a policy bundle on a robot: the runner alone.

    ros2 launch rewarped_sim deploy.launch.py policy:=FOLDER

The runner takes `points` and `joint_states`, and commands nothing until an operator calls `~/arm`.
"""

import sys
from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, ThisLaunchFileDir
from launch_ros.actions import Node

from policy_runner.bundle import read_bundle
from rewarped_sim.launch_arguments import numbers, refuse_unknown_arguments

CONFIG_FOLDER = PathJoinSubstitution([ThisLaunchFileDir(), "..", "config"])

ENCLAVE = "/rewarped_sim/policy_runner"  # without effect unless ROS_SECURITY_ENABLE is set: docs/security.md

# name: default, description, choices
ARGUMENTS = {
    "policy": (None, "Folder of the policy bundle", None),
    "config": (
        PathJoinSubstitution([CONFIG_FOLDER, "runner.yaml"]),
        "YAML file with settings of the runner; config/runner.yaml explains them all",
        None,
    ),
    "command_type": (
        "",
        "How commands are published; empty: as in config",
        ["", "joint_trajectory", "commands", "joint_command"],
    ),
    "command_topic": ("", "Topic of the commands; empty: ~/<command_type>", None),
    "urdf": ("", "URDF file of the robot, whose joint limits then hold too; empty: as in config", None),
    "autostart": ("", "Configure and activate at start; empty: as in config", ["", "true", "false"]),
    "namespace": ("", "Namespace of the node", None),
    "points": ("points", "Topic of the clouds", None),
    "cloud_frame": ("", "frame_id that clouds must have; empty: as in config", None),
    "cloud_extrinsics": (
        "",
        "Pose of cloud_frame in the frame of the policy: 'x y z qx qy qz qw'; empty: as in config",
        None,
    ),
    "joint_states": ("joint_states", "Topic of the joint states", None),
    "record": ("", "Folder that gets a bag of the run; empty: as in config", None),
    "use_sim_time": ("false", "Let the control loop follow /clock", ["true", "false"]),
    "log_level": (
        "info",
        "Least severity of log messages",
        ["debug", "info", "warn", "error", "fatal"],
    ),
}


def generate_launch_description():
    """Declare the arguments, settle the transport, and start the runner."""
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description, choices=choices)
                for name, (default, description, choices) in ARGUMENTS.items()
            ),
            OpaqueFunction(function=check_argument_names),
            IncludeLaunchDescription(PathJoinSubstitution([ThisLaunchFileDir(), "transport.launch.py"])),
            OpaqueFunction(function=start_runner),
        ]
    )


def check_argument_names(context):
    """Refuse mistyped names, unless another launch file, with arguments of its own, includes this one."""
    if any(Path(word).name == Path(__file__).name for word in sys.argv):
        refuse_unknown_arguments(context.argv, ARGUMENTS)


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
    if given("urdf"):
        parameters["urdf"] = str(Path(given("urdf")).absolute())
    if given("record"):
        parameters["record"] = str(Path(given("record")).absolute())
    if given("cloud_frame"):
        parameters["cloud_frame"] = given("cloud_frame")
    if given("cloud_extrinsics"):
        parameters["cloud_extrinsics"] = numbers("cloud_extrinsics", given("cloud_extrinsics"), 7)
    types = ("joint_trajectory", "commands", "joint_command")
    commands = [(f"~/{name}", given("command_topic")) for name in types if given("command_topic")]
    return [
        Node(
            package="rewarped_sim",
            executable="policy_runner",
            name="policy_runner",
            namespace=given("namespace"),
            output="screen",
            parameters=[given("config"), parameters],
            remappings=[("points", given("points")), ("joint_states", given("joint_states")), *commands],
            arguments=["--ros-args", "--log-level", given("log_level"), "--enclave", ENCLAVE],
            on_exit=end_with_the_runner,
        )
    ]


def end_with_the_runner(event, context):
    """End the launch with the runner; its failure is a failure of the launch."""
    if event.returncode != 0:
        raise RuntimeError(f"policy_runner ended with exit code {event.returncode}")
    return [Shutdown(reason="policy_runner ended")]
