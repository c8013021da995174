def said(output: str) -> list[str]:
    """Return what LogInfo printed."""
    mark = "[INFO] [launch.user]: "
    return [line.removeprefix(mark) for line in output.splitlines() if line.startswith(mark)]


ARGUMENT = "DeclareLaunchArgument('who', default_value='world', choices=['world', 'you'], description='Whom')"


def test_an_argument_has_its_default_until_it_is_given(workspace):
    greeting = "LogInfo(msg=['hello ', LaunchConfiguration('who')])"
    assert said(workspace.launch(ARGUMENT, greeting)[1]) == ["hello world"]
    assert said(workspace.launch(ARGUMENT, greeting, arguments=("who:=you",))[1]) == ["hello you"]


def test_a_value_that_is_not_a_choice_is_an_error(workspace):
    code, output = workspace.launch(ARGUMENT, "LogInfo(msg='not reached')", arguments=("who:=me",))
    assert code == 1 and said(output) == []
    assert "argument 'who' was given the value 'me'; valid choices: ['world', 'you']" in output


def test_a_missing_argument_is_an_error_that_describes_it(workspace):
    code, output = workspace.launch("DeclareLaunchArgument('policy', description='Folder of a bundle.')")
    assert code == 1 and "required launch argument 'policy' was not given (Folder of a bundle.)" in output


def test_an_argument_that_nothing_declares_is_warned_of(workspace):
    code, output = workspace.launch(ARGUMENT, arguments=("woh:=you", "sigterm_timeout:=9"))
    assert code == 0
    assert "no launch file declares the argument 'woh'; did you mean 'who'?" in output
    assert "'sigterm_timeout'" not in output


def test_an_exception_in_a_function_ends_the_launch_with_its_message_and_exit_code_1(workspace):
    code, output = workspace.launch(
        "ExecuteProcess(cmd=['sleep', '1000'])",
        "OpaqueFunction(function=refuse)",
        before="""
            def refuse(context):
                raise RuntimeError(f"unknown task {context.launch_configurations['task']} {context.argv}")
        """,
        arguments=("task:=rol",),
    )
    assert code == 1 and "unknown task rol ['task:=rol']" in output and "Traceback" not in output


def test_debug_shows_where_an_exception_came_from(workspace):
    path = workspace.launch_file("main.launch.py", "OpaqueFunction(function=lambda context: 1 / 0)")
    code, output = workspace.ros2("launch", "--debug", path)
    assert code == 1 and "ZeroDivisionError" in output


def test_what_a_function_returns_is_carried_out_in_its_place(workspace):
    _, output = workspace.launch(
        "LogInfo(msg='first')",
        "OpaqueFunction(function=lambda context, a, b: [LogInfo(msg=a), LogInfo(msg=b)], args=['second'],"
        " kwargs={'b': 'third'})",
        "LogInfo(msg='fourth')",
    )
    assert said(output) == ["first", "second", "third", "fourth"]


def test_a_scoped_group_undoes_what_it_sets_and_an_unscoped_one_does_not(workspace):
    show = "LogInfo(msg=[LaunchConfiguration('x', default='-'), EnvironmentVariable('X', default_value='-')])"
    setting = "[SetLaunchConfiguration('x', '1'), SetEnvironmentVariable('X', '2'), " + show + "]"
    _, output = workspace.launch(
        f"GroupAction({setting})", show, f"GroupAction({setting}, scoped=False)", show
    )
    assert said(output) == ["12", "--", "12", "12"]


def test_a_group_without_forwarding_sees_only_what_it_is_given(workspace):
    _, output = workspace.launch(
        "SetLaunchConfiguration('x', 'outer')",
        "SetLaunchConfiguration('y', 'outer')",
        "GroupAction([LogInfo(msg=[LaunchConfiguration('x', default='none'), LaunchConfiguration('y')])],"
        " forwarding=False, launch_configurations={'y': [LaunchConfiguration('x'), '+']})",
        "LogInfo(msg=LaunchConfiguration('y'))",
    )
    assert said(output) == ["noneouter+", "outer"]


def test_an_unset_environment_variable_is_gone_for_later_processes(workspace):
    workspace.environment["X"] = "inherited"
    code, output = workspace.launch(
        "ExecuteProcess(cmd=['sh', '-c', 'echo x=$X'], output='screen')",
        "UnsetEnvironmentVariable('X')",
        "ExecuteProcess(cmd=['sh', '-c', 'echo x=$X'], output='screen')",
    )
    assert code == 0 and "[sh-1] x=inherited\n" in output and "[sh-2] x=\n" in output


def test_conditions_decide_whether_an_action_is_carried_out(workspace):
    _, output = workspace.launch(
        "LogInfo(msg='a', condition=IfCondition('TRUE'))",
        "LogInfo(msg='b', condition=IfCondition('0'))",
        "LogInfo(msg='c', condition=UnlessCondition(PythonExpression(['1 > ', '2'])))",
    )
    assert said(output) == ["a", "c"]


def test_a_condition_that_is_no_boolean_is_an_error(workspace):
    code, output = workspace.launch("LogInfo(msg='a', condition=IfCondition('maybe'))")
    assert code == 1 and "expected true, false, 1 or 0, got 'maybe'" in output


def test_nested_includes_pass_arguments_and_know_their_own_folder(workspace):
    workspace.launch_file(
        "leaf.launch.py",
        "DeclareLaunchArgument('x', default_value='leaf')",
        "LogInfo(msg=['leaf ', LaunchConfiguration('x')])",
        "SetLaunchConfiguration('set_in_leaf', 'yes')",
    )
    middle = workspace.launch_file(
        "middle.launch.py",
        "IncludeLaunchDescription(PythonLaunchDescriptionSource(PathJoinSubstitution("
        "[ThisLaunchFileDir(), 'leaf.launch.py'])), launch_arguments=[('x', 'from middle')])",
        "LogInfo(msg=ThisLaunchFile())",
    )
    _, output = workspace.launch(
        "IncludeLaunchDescription(PythonLaunchDescriptionSource("
        "[FindPackageShare('demo'), '/launch/middle.launch.py']))",
        "LogInfo(msg=[LaunchConfiguration('x'), ' ', LaunchConfiguration('set_in_leaf')])",
    )
    assert said(output) == ["leaf from middle", str(middle), "from middle yes"]


def test_a_missing_include_is_an_error_that_names_the_file(workspace):
    code, output = workspace.launch("IncludeLaunchDescription('/nowhere/x.launch.py')")
    assert code == 1 and "launch file '/nowhere/x.launch.py' does not exist" in output


def test_a_file_without_a_description_is_an_error(workspace, tmp_path):
    path = tmp_path / "empty.launch.py"
    path.write_text("")
    code, output = workspace.ros2("launch", path)
    assert code == 1 and "defines no function generate_launch_description()" in output


def test_what_is_not_offered_is_refused_by_name(workspace):
    code, output = workspace.launch(before="from launch.actions import AppendEnvironmentVariable")
    assert (
        code == 1 and "launch.actions.AppendEnvironmentVariable is not among what ros2_lite offers" in output
    )


def test_a_timer_acts_after_its_period_and_not_after_a_shutdown(workspace):
    code, output = workspace.launch(
        "TimerAction(period=0.05, actions=[LogInfo(msg='in time'), Shutdown(reason='enough')])",
        "TimerAction(period='100', actions=[LogInfo(msg='too late')])",
    )
    assert code == 0 and said(output) == ["in time"]


def test_shutdown_handlers_run_once_whatever_ends_the_launch(workspace):
    handler = "RegisterEventHandler(OnShutdown(on_shutdown=[LogInfo(msg='bye')]))"
    assert said(workspace.launch(handler)[1]) == ["bye"]
    code, output = workspace.launch(
        handler,
        "EmitEvent(event=launch.events.Shutdown(reason='asked'))",
        "Shutdown()",
        "ExecuteProcess(cmd=['echo', 'not started'], output='screen')",
    )
    assert code == 0 and said(output) == ["bye"] and "not started" not in output
