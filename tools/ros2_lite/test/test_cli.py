import os
import sys


def test_a_real_ros2_on_the_path_gets_the_command_as_it_is(workspace, tmp_path):
    real = tmp_path / "elsewhere" / "ros2"
    real.parent.mkdir()
    real.write_text('#!/bin/sh\necho "real: $*"\nexit 7\n')
    real.chmod(0o755)
    workspace.environment["PATH"] = f"{real.parent}:/usr/bin:/bin"
    assert workspace.ros2("topic", "list", "-v") == (7, "real: topic list -v\n")


def test_another_stand_in_on_the_path_is_not_taken_for_a_real_one(workspace, tmp_path):
    other = tmp_path / "ros2"
    other.write_text("#!/bin/sh\n# from ros2_lite.cli import main\necho wrong\n")
    other.chmod(0o755)
    workspace.environment["PATH"] = f"{tmp_path}:/usr/bin:/bin"
    code, output = workspace.launch("LogInfo(msg='here')")
    assert code == 0 and "here" in output and "wrong" not in output


def test_libraries_of_the_wheels_are_not_handed_to_a_real_ros2(workspace, tmp_path):
    real = tmp_path / "ros2"
    real.write_text('#!/bin/sh\necho "[$LD_LIBRARY_PATH] [$_ROS_WHEELS_BOOTSTRAP_COMPLETE]"\n')
    real.chmod(0o755)
    workspace.environment |= {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "LD_LIBRARY_PATH": f"{sys.prefix}/lib{os.pathsep}/opt/mine",
        "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1",
    }
    assert workspace.ros2("run") == (0, "[/opt/mine] []\n")


def test_run_gives_all_further_words_to_the_executable(workspace):
    workspace.executable("greet", '#!/bin/sh\necho "$@"\nexit 5\n')
    assert workspace.ros2("run", "demo", "greet", "--ros-args", "-p", "a:=1") == (5, "--ros-args -p a:=1\n")


def test_run_suggests_the_nearest_executable(workspace):
    workspace.executable("greet", "#!/bin/sh\n")
    code, output = workspace.ros2("run", "demo", "gret")
    assert code == 1 and "executable 'gret' not found" in output and "did you mean 'greet'?" in output


def test_an_unknown_package_is_an_error_that_suggests_the_nearest(workspace):
    code, output = workspace.ros2("launch", "dmo", "main.launch.py")
    assert code == 1 and "package 'dmo' not found, searching:" in output and "did you mean 'demo'?" in output


def test_an_unknown_launch_file_is_an_error_that_suggests_the_nearest(workspace):
    workspace.launch_file("train.launch.py")
    code, output = workspace.ros2("launch", "demo", "trian.launch.py")
    assert (
        code == 1
        and "'trian.launch.py' was not found" in output
        and "did you mean 'train.launch.py'?" in output
    )


def test_a_package_without_a_file_lists_its_launch_files(workspace):
    workspace.launch_file("train.launch.py")
    code, output = workspace.ros2("launch", "demo")
    assert code == 1 and "train.launch.py" in output


def test_another_verb_is_refused_with_the_verbs_there_are(workspace):
    code, output = workspace.ros2("topic", "list")
    assert code == 2 and "'topic'" in output and "launch" in output and "run" in output


def test_a_file_of_a_package_is_found_by_name_and_any_file_by_path(workspace):
    path = workspace.launch_file("main.launch.py", "LogInfo(msg=ThisLaunchFile())")
    for words in (("demo", "main.launch.py"), (path,)):
        code, output = workspace.ros2("launch", *words)
        assert code == 0 and f"[INFO] [launch.user]: {path}" in output


def test_a_word_that_is_no_argument_is_refused(workspace):
    code, output = workspace.launch("LogInfo(msg='not reached')", arguments=("epochs=3",))
    assert code == 1 and "malformed launch argument 'epochs=3', expected format '<name>:=<value>'" in output
    assert "not reached" not in output


def test_show_args_prints_every_argument_like_the_real_command(workspace):
    workspace.launch_file(
        "inner.launch.py",
        "DeclareLaunchArgument('set_by_outer', default_value='0', description='hidden')",
        "DeclareLaunchArgument('rate_hz', default_value='30', description='How often.')",
    )
    path = workspace.launch_file(
        "outer.launch.py",
        "DeclareLaunchArgument('task', description='What to train.')",
        "DeclareLaunchArgument('algo', default_value='sapo', choices=['sapo', 'shac'], description='How')",
        "DeclareLaunchArgument('config', default_value=[LaunchConfiguration('task'), '.yaml'])",
        "GroupAction([DeclareLaunchArgument('only', default_value='1', description='Sometimes.')],"
        " condition=IfCondition('false'))",
        "IncludeLaunchDescription([ThisLaunchFileDir(), '/inner.launch.py'],"
        " launch_arguments={'set_by_outer': '1'}.items())",
        "OpaqueFunction(function=lambda context: 1 / 0)",
    )
    code, output = workspace.ros2("launch", path, "--show-args")
    assert code == 0
    assert output == (
        "Arguments (pass arguments as '<name>:=<value>'):\n"
        "\n    'task':\n        What to train.\n"
        "\n    'algo':\n        How. Valid choices are: ['sapo', 'shac']\n        (default: 'sapo')\n"
        "\n    'config':\n        no description given\n"
        "        (default: LaunchConfiguration('task') + '.yaml')\n"
        "\n    'only':*\n        Sometimes.\n        (default: '1')\n"
        "\n    'rate_hz':\n        How often.\n        (default: '30')\n"
        "\n* argument(s) which are only used if specific conditions occur\n"
    )
