"""Run a policy on an arm under ros2_control: controllers that stop the arm by themselves, and the runner.

    ros2 launch rewarped_sim ros2_control.launch.py policy:=FOLDER

An example to copy: config/ros2_control has the arm's description, with hardware that is only imitated, and its
controllers. Needs the packages ros2_control, ros2_controllers and robot_state_publisher. The policy's joints must be
those of the arm. As everywhere, nothing moves before an operator calls ~/arm.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
)
from launch.event_handlers import OnProcessExit
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, ThisLaunchFileDir
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from rewarped_sim.launch_arguments import refuse_unknown_arguments

CONFIG_FOLDER = PathJoinSubstitution([ThisLaunchFileDir(), "..", "config", "ros2_control"])

# what the runner publishes for each controller, and where the controller listens
CONTROLLERS = {
    "joint_trajectory_controller": ("joint_trajectory", "/joint_trajectory_controller/joint_trajectory"),
    "forward_position_controller": ("commands", "/forward_position_controller/commands"),
}

# name: default, description, choices
ARGUMENTS = {
    "policy": (None, "Folder of the policy bundle", None),
    "controller": (
        "joint_trajectory_controller",
        "What the runner commands; only the first stops the arm when the runner dies in the middle of a motion",
        [*CONTROLLERS],
    ),
    "urdf": (PathJoinSubstitution([CONFIG_FOLDER, "arm.urdf"]), "Description of the arm", None),
    "controllers": (
        PathJoinSubstitution([CONFIG_FOLDER, "controllers.yaml"]),
        "Settings of the controllers",
        None,
    ),
    "config": (PathJoinSubstitution([CONFIG_FOLDER, "runner.yaml"]), "Settings of the runner", None),
    "points": ("points", "Topic of the clouds", None),
}


def generate_launch_description():
    """Declare the arguments, settle the transport, and start arm, controllers and runner, in this order."""
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description, choices=choices)
                for name, (default, description, choices) in ARGUMENTS.items()
            ),
            OpaqueFunction(function=check_argument_names),
            IncludeLaunchDescription(PathJoinSubstitution([ThisLaunchFileDir(), "transport.launch.py"])),
            OpaqueFunction(function=start_arm),
        ]
    )


def check_argument_names(context):
    """Refuse mistyped names."""
    refuse_unknown_arguments(context.argv, ARGUMENTS)


def start_arm(context):
    """Return the arm's nodes; the controller is active before the runner starts, the fallback before the controller."""

    def given(name):
        return LaunchConfiguration(name).perform(context)

    folder = ThisLaunchFileDir().perform(context)
    controller, controllers = given("controller"), given("controllers")
    (other,) = set(CONTROLLERS) - {controller}
    description = ParameterValue(Path(given("urdf")).read_text(), value_type=str)
    fallback = spawner(other, "--inactive", "--param-file", controllers)
    active = spawner("joint_state_broadcaster", controller, "--param-file", controllers)
    return [
        Node(
            package="robot_state_publisher",
            executable="robot_state_publisher",
            output="screen",
            parameters=[{"robot_description": description}],
        ),
        Node(
            package="controller_manager",
            executable="ros2_control_node",
            output="screen",
            parameters=[controllers],
            remappings=[("~/robot_description", "/robot_description")],
            on_exit=Shutdown(reason="ros2_control_node ended"),
        ),
        fallback,
        RegisterEventHandler(OnProcessExit(target_action=fallback, on_exit=after_success(active))),
        RegisterEventHandler(
            OnProcessExit(target_action=active, on_exit=after_success(runner(given, folder)))
        ),
    ]


def spawner(*words):
    """Return a process that loads controllers and ends."""
    return Node(package="controller_manager", executable="spawner", arguments=[*words], output="screen")


def after_success(action):
    """Return what goes on with `action` when a process has ended well, and else ends the launch."""

    def go_on(event, context):
        if event.returncode != 0:
            raise RuntimeError(f"a spawner of controllers ended with exit code {event.returncode}")
        return [action]

    return go_on


def runner(given, folder):
    """Return the runner, with the topic of its commands led to the controller."""
    command_type, topic = CONTROLLERS[given("controller")]
    arguments = {
        "policy": given("policy"),
        "config": given("config"),
        "points": given("points"),
        "urdf": given("urdf"),
        "command_type": command_type,
        "command_topic": topic,
    }
    return IncludeLaunchDescription(f"{folder}/deploy.launch.py", launch_arguments=arguments.items())
