"""Train a policy in a ROS 2 node.

    ros2 launch rewarped_sim train.launch.py task:=rolling_flat_small rviz:=true

Ctrl-C saves a checkpoint; resume:=true goes on from it. The launch ends with the training, and fails with it.
"""

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
from launch_ros.parameter_descriptions import ParameterValue

from rewarped_sim.launch_arguments import refuse_unknown_arguments, whole_number

TIME_FOR_A_CHECKPOINT_S = "60"

# name: type, default, description
ARGUMENTS = {
    "task": (
        str,
        "",
        "Registered name of the task; empty: that of config or resume, else rolling_flat_small",
    ),
    "algo": (str, "", "Learning algorithm; empty: that of config or resume, else sapo"),
    "num_envs": (int, "0", "Environments simulated side by side; 0: the task's own number"),
    "seed": (int, "-1", "Seed of every random number generator; -1: that of config or resume, else 0"),
    "device": (
        str,
        "",
        "cpu, cuda or cuda:N; auto, or empty without config: cuda where there is one, else cpu",
    ),
    "epochs": (int, "0", "Epoch at which to end, those before a resume included; 0: the task's own number"),
    "out_dir": (str, "", "Folder for everything the run writes; empty: a new runs/<task>_<algo>_<seed>"),
    "resume": (
        str,
        "false",
        "true or latest: go on with the newest run, or the one in out_dir; or its folder or checkpoint",
    ),
    "config": (
        str,
        "",
        "YAML file of differences from the defaults, with sections run, task and one per algorithm",
    ),
    "wait_for_goal": (bool, "false", "Wait for goals of the action ~/train instead of training at once"),
}


def generate_launch_description():
    """Declare the arguments, settle the transport, start the node and, if asked for, RViz."""
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(
                    name,
                    default_value=default,
                    description=description,
                    choices=["true", "false"] if kind is bool else None,
                )
                for name, (kind, default, description) in ARGUMENTS.items()
            ),
            DeclareLaunchArgument(
                "rviz", default_value="false", choices=["true", "false"], description="Watch in RViz"
            ),
            OpaqueFunction(function=check_arguments),
            IncludeLaunchDescription(PathJoinSubstitution([ThisLaunchFileDir(), "transport.launch.py"])),
            Node(
                package="rewarped_sim",
                executable="train_node",
                name="train_node",
                output="screen",
                parameters=[
                    {
                        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
                        for name, (kind, _, _) in ARGUMENTS.items()
                    }
                ],
                arguments=["--ros-args", "--enclave", "/rewarped_sim/train_node"],
                sigterm_timeout=TIME_FOR_A_CHECKPOINT_S,
                on_exit=end_with_the_training,
            ),
            IncludeLaunchDescription(
                PathJoinSubstitution([ThisLaunchFileDir(), "view.launch.py"]),
                launch_arguments={"view": "train"}.items(),
                condition=IfCondition(LaunchConfiguration("rviz")),
            ),
        ]
    )


def check_arguments(context):
    """Refuse mistyped names, and text where a number belongs."""
    refuse_unknown_arguments(context.argv, [*ARGUMENTS, "rviz", "view"])
    for name, (kind, _, _) in ARGUMENTS.items():
        if kind is int:
            whole_number(name, LaunchConfiguration(name).perform(context))


def end_with_the_training(event, context):
    """End the launch with the node; its failure is a failure of the launch."""
    if event.returncode != 0:
        raise RuntimeError(f"train_node ended with exit code {event.returncode}")
    return [Shutdown(reason="training ended")]
