"""Run a policy bundle on a simulated robot: the same messages and the same runner as on hardware.

    ros2 launch rewarped_sim play.launch.py policy:=runs/rolling_flat_small_sapo_0/bundle

The simulated robot arms the runner at the start of every episode.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    Shutdown,
)
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, ThisLaunchFileDir
from launch_ros.actions import Node

from policy_runner.bundle import read_bundle
from policy_runner.inspect_bundle import robot_problem
from rewarped_sim.launch_arguments import number, numbers, refuse_unknown_arguments, whole_number
from rewarped_sim.sensor_model import SensorConfig


def words(values):
    """Return numbers as a launch argument has them."""
    return " ".join(str(value) for value in values)


# name: default, description, choices
ARGUMENTS = {
    "policy": (None, "Folder of the policy bundle", None),
    "task": ("", "Registered name of the task; empty: the one that the policy was trained for", None),
    "seed": ("0", "Decides the start of every episode", None),
    "device": ("cpu", "Where the robot is simulated: cpu, cuda or cuda:N", None),
    "task_config": ("", "YAML file of differences; its section task applies to the simulated robot", None),
    "episodes": ("0", "End after so many episodes, with their mean return; 0: go on until stopped", None),
    "real_time_factor": (
        "1.0",
        "Speed of the simulated robot; other than 1, the runner follows /clock",
        None,
    ),
    "lockstep": (
        "false",
        "Let the simulated world wait for each answer of the policy; exact with stamped commands only",
        ["true", "false"],
    ),
    "command_type": (
        "joint_trajectory",
        "How the runner commands the robot",
        ["joint_trajectory", "commands", "joint_command"],
    ),
    "camera": (
        "none",
        "What the robot sees by: depth, a simulated depth camera; none, all particles or the task's own camera",
        ["none", "depth"],
    ),
    "camera_position": (words(SensorConfig.position), "Where the depth camera stands: 'x y z' [m]", None),
    "camera_look_at": (words(SensorConfig.look_at), "Point that it looks at: 'x y z' [m]", None),
    "camera_self_filter": (
        "true",
        "The tool gives no points, as where a robot filters out what its own model covers",
        ["true", "false"],
    ),
    "rviz": ("false", "Watch in RViz", ["true", "false"]),
}


def generate_launch_description():
    """Declare the arguments, settle the transport, start robot and runner and, if asked for, RViz."""
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description, choices=choices)
                for name, (default, description, choices) in ARGUMENTS.items()
            ),
            OpaqueFunction(function=check_argument_names),
            IncludeLaunchDescription(PathJoinSubstitution([ThisLaunchFileDir(), "transport.launch.py"])),
            OpaqueFunction(function=start_robot_and_runner),
            IncludeLaunchDescription(
                PathJoinSubstitution([ThisLaunchFileDir(), "view.launch.py"]),
                launch_arguments={"view": "play"}.items(),
                condition=IfCondition(LaunchConfiguration("rviz")),
            ),
        ]
    )


def check_argument_names(context):
    """Refuse mistyped names."""
    refuse_unknown_arguments(context.argv, [*ARGUMENTS, "view"])


def start_robot_and_runner(context):
    """Return the two.

    A bundle that is broken or that no runner can run, a number that is none, a camera that cannot be: each ends the
    launch right here.
    """

    def given(name):
        return LaunchConfiguration(name).perform(context)

    camera = SensorConfig(
        position=tuple(numbers("camera_position", given("camera_position"), 3)),
        look_at=tuple(numbers("camera_look_at", given("camera_look_at"), 3)),
    )
    sees_by_camera = given("camera") == "depth"
    folder = Path(ThisLaunchFileDir().perform(context))
    policy = Path(given("policy")).absolute()
    bundle = read_bundle(policy)
    if problem := robot_problem(bundle.contract):
        raise RuntimeError(f"{policy}: {problem}")
    real_time_factor = number("real_time_factor", given("real_time_factor"))
    sim_time = real_time_factor != 1.0
    commands = ("joint_trajectory", "commands", "joint_command")
    robot = Node(
        package="rewarped_sim",
        executable="sim_node",
        name="sim_node",
        output="screen",
        parameters=[
            {
                "task": given("task") or bundle.contract.task,
                "seed": whole_number("seed", given("seed")),
                "device": given("device"),
                "config": given("task_config"),
                "episodes": whole_number("episodes", given("episodes")),
                "real_time_factor": real_time_factor,
                "lockstep": given("lockstep") == "true",
                "runner": "policy_runner",
                "publish_clock": sim_time,
                "camera": given("camera"),
                "camera_position": list(camera.position),
                "camera_look_at": list(camera.look_at),
                "camera_self_filter": given("camera_self_filter") == "true",
            }
        ],
        remappings=[(f"~/{command}", f"policy_runner/{command}") for command in (*commands, "goal")],
        arguments=["--ros-args", "--enclave", "/rewarped_sim/sim_node"],
        on_exit=end_with_the_robot,
    )
    runner = IncludeLaunchDescription(
        str(folder / "deploy.launch.py"),
        launch_arguments={
            "policy": str(policy),
            "config": str(folder.parent / "config" / "runner_in_simulation.yaml"),
            "command_type": given("command_type"),
            "use_sim_time": "true" if sim_time else "false",
            "cloud_frame": camera.frame if sees_by_camera else "",
            "cloud_extrinsics": words(camera.pose) if sees_by_camera else "",
        }.items(),
    )
    return [robot, runner]


def end_with_the_robot(event, context):
    """End the launch with the last episode; a failure of the robot is a failure of the launch."""
    if event.returncode != 0:
        raise RuntimeError(f"sim_node ended with exit code {event.returncode}")
    return [Shutdown(reason="sim_node ended")]
