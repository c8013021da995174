import os
import re
import signal
import time

import pytest

# Prints `ready`, then what it gets; ends at the signals that are named on its command line.
LISTENER = """\
#!/usr/bin/env python3
import signal, sys, time
def on_signal(number, _):
    name = signal.Signals(number).name
    print("got", name, flush=True)
    if name in sys.argv:
        sys.exit(0)
signal.signal(signal.SIGINT, on_signal)
signal.signal(signal.SIGTERM, on_signal)
print("ready", flush=True)
while True:
    time.sleep(0.05)
"""


def until(process, text):
    """Return what the process prints up to a line with `text`."""
    read = ""
    while text not in read:
        line = process.stdout.readline()
        assert line, f"ended before saying {text!r}:\n{read}"
        read += line
    return read


def finish(process):
    """Return all that the process goes on to print, after its end."""
    output, _ = process.communicate(timeout=60)
    return output


@pytest.fixture
def listener(workspace):
    return f"'{workspace.executable('listener', LISTENER)}'"


def test_a_handler_below_a_process_sees_it_start_and_end(workspace):
    code, output = workspace.launch(
        "worker",
        "ExecuteProcess(cmd=['true'])",
        "RegisterEventHandler(OnProcessStart(target_action=worker, on_start=[LogInfo(msg='it starts')]))",
        "RegisterEventHandler(OnProcessExit(target_action=worker, on_exit=tell))",
        before="""
            worker = ExecuteProcess(cmd=['sh', '-c', 'exit 3'], name='worker')
            def tell(event, context):
                facts = f'{event.name} {event.returncode} {event.cmd[0]} {event.action is worker}'
                return LogInfo(msg=f'it ends: {facts}')
        """,
    )
    assert code == 0
    assert output.count("it starts") == 1
    assert output.count("it ends: worker-1 3 sh True") == 1


def test_a_handler_without_a_target_sees_every_process(workspace):
    _, output = workspace.launch(
        "ExecuteProcess(cmd=['true'])",
        "ExecuteProcess(cmd=['true'])",
        "RegisterEventHandler(OnProcessExit("
        "on_exit=lambda event, context: LogInfo(msg=f'{event.name} is over')))",
    )
    assert "true-1 is over" in output and "true-2 is over" in output


def test_a_dead_process_is_reported_but_the_launch_succeeds_like_the_real_one(workspace):
    code, output = workspace.launch("ExecuteProcess(cmd=['sh', '-c', 'exit 3'])")
    assert code == 0
    assert re.search(
        r"\[ERROR\] \[sh-1\]: process has died \[pid \d+, exit code 3, cmd 'sh -c exit 3'\]", output
    )


def test_a_launch_file_makes_a_dead_process_its_own_failure_by_raising(workspace):
    code, output = workspace.launch(
        "ExecuteProcess(cmd=['sh', '-c', 'exit 3'], on_exit=must_succeed)",
        "ExecuteProcess(cmd=['sleep', '1000'])",
        before="""
            def must_succeed(event, context):
                if event.returncode != 0:
                    raise RuntimeError(f'{event.name} failed with exit code {event.returncode}')
        """,
    )
    assert code == 1
    assert "sh-1 failed with exit code 3" in output
    assert "sending signal 'SIGINT' to process[sleep-2]" in output


def test_an_end_can_shut_the_others_down(workspace):
    code, output = workspace.launch(
        "ExecuteProcess(cmd=['true'], on_exit=[Shutdown(reason='done')])",
        "ExecuteProcess(cmd=['sleep', '1000'])",
    )
    assert code == 0 and "sending signal 'SIGINT' to process[sleep-2]" in output


def test_a_program_that_does_not_exist_is_an_error(workspace):
    code, output = workspace.launch(
        "ExecuteProcess(cmd=['no_such_program'])", "ExecuteProcess(cmd=['sleep', '1000'])"
    )
    assert code == 1 and "no_such_program" in output


def test_output_is_shown_as_asked_for_and_all_of_it_on_request(workspace):
    speak = "cmd=['sh', '-c', 'echo out; echo err >&2']"
    path = workspace.launch_file(
        "main.launch.py",
        f"ExecuteProcess({speak}, name='screen', output='screen')",
        f"ExecuteProcess({speak}, name='log')",
        f"ExecuteProcess({speak}, name='own', output='own_log')",
    )
    _, output = workspace.ros2("launch", path)
    assert set(re.findall(r"^\[(\w+)-\d\] (\w+)$", output, re.M)) == {
        ("screen", "out"),
        ("screen", "err"),
        ("log", "err"),
    }
    _, output = workspace.ros2("launch", path, "-a")
    assert len(re.findall(r"^\[\w+-\d\] (out|err)$", output, re.M)) == 6


def test_lines_arrive_whole_however_long_and_the_last_one_without_its_end(workspace):
    code, output = workspace.launch(
        "ExecuteProcess(cmd=['sh', '-c', script], output='screen')",
        before="script = 'head -c 300000 /dev/zero | tr \"\\\\0\" x; echo; printf last'",
    )
    assert code == 0
    assert "[sh-1] " + "x" * 300_000 + "\n" in output
    assert "[sh-1] last\n" in output


def test_a_child_that_outlives_its_process_does_not_hold_the_launch_up(workspace):
    code, output = workspace.launch(
        "ExecuteProcess(cmd=['sh', '-c', 'sleep 300 & echo $!'], output='screen')"
    )
    assert code == 0 and "process has finished cleanly" in output
    [child] = re.findall(r"^\[sh-1\] (\d+)$", output, re.M)
    os.kill(int(child), signal.SIGKILL)


@pytest.mark.parametrize(("emulate_tty", "answer"), [(False, "no"), (True, "yes")])
def test_a_terminal_is_emulated_on_request(workspace, emulate_tty, answer):
    _, output = workspace.launch(
        f"ExecuteProcess(cmd=['sh', '-c', 'test -t 1 -a -t 2 && echo yes || echo no'], output='screen',"
        f" emulate_tty={emulate_tty})"
    )
    assert f"[sh-1] {answer}\n" in output


def test_shell_prefix_folder_and_environment_are_those_asked_for(workspace, tmp_path):
    workspace.environment["Y"] = "inherited"
    _, output = workspace.launch(
        f"ExecuteProcess(cmd=['echo $X:$Y', '$PWD'], shell=True, output='screen', cwd='{tmp_path}',"
        " additional_env={'X': '1'})",
        "ExecuteProcess(cmd=['sh', '-c', 'echo $X:$Y'], output='screen', prefix='nice -n 1',"
        " env={'X': ['2'], 'PATH': '/usr/bin'})",
    )
    assert f"1:inherited {tmp_path}\n" in output
    assert "[nice-2] 2:\n" in output


def test_a_process_is_started_again_as_often_as_asked_for(workspace):
    code, output = workspace.launch(
        "ExecuteProcess(cmd=['echo', 'again'], output='screen', respawn=True, respawn_delay=0.01,"
        " respawn_max_retries=2)"
    )
    assert code == 0
    assert output.count("[echo-1] again") == 3
    assert output.count("process started with pid") == 3


def test_a_process_is_not_started_again_after_a_shutdown(workspace, listener):
    process = workspace.start(
        "launch",
        workspace.launch_file(
            "main.launch.py", f"ExecuteProcess(cmd=[{listener}, 'SIGINT'], output='screen', respawn='true')"
        ),
    )
    until(process, "ready")
    process.send_signal(signal.SIGINT)
    assert "ready" not in finish(process)
    assert process.returncode == 0


def test_ctrl_c_reaches_every_process_once_and_a_second_one_is_ignored(workspace, listener):
    path = workspace.launch_file(
        "main.launch.py", f"ExecuteProcess(cmd=[{listener}, 'SIGTERM'], output='screen', sigterm_timeout='1')"
    )
    process = workspace.start("launch", path)
    until(process, "ready")
    process.send_signal(signal.SIGINT)
    until(process, "got SIGINT")
    process.send_signal(signal.SIGINT)
    rest = finish(process)
    assert "got SIGINT" not in rest
    assert "again, ignoring" in rest
    assert "failed to terminate '1' seconds after receiving 'SIGINT', escalating to 'SIGTERM'" in rest
    assert rest.count("got SIGTERM") == 1
    assert process.returncode == 0


def test_a_process_that_heeds_no_signal_is_killed(workspace, listener):
    path = workspace.launch_file(
        "main.launch.py",
        f"ExecuteProcess(cmd=[{listener}], output='screen', sigkill_timeout=LaunchConfiguration('patience'))",
    )
    process = workspace.start("launch", path, "sigterm_timeout:=0.2", "patience:=0.2")
    until(process, "ready")
    process.send_signal(signal.SIGTERM)
    rest = finish(process)
    assert re.findall(r"sending signal '(\w+)'", rest) == ["SIGINT", "SIGTERM", "SIGKILL"]
    assert "exit code -9" in rest


def test_a_process_that_takes_its_time_is_left_to_it(workspace):
    slow = workspace.executable(
        "slow",
        """\
        #!/bin/sh
        trap 'sleep 1; echo saved; exit 0' INT
        echo ready
        while true; do sleep 0.05; done
        """,
    )
    path = workspace.launch_file(
        "main.launch.py", f"ExecuteProcess(cmd=['{slow}'], output='screen', sigterm_timeout='30')"
    )
    process = workspace.start("launch", path)
    until(process, "ready")
    process.send_signal(signal.SIGINT)
    rest = finish(process)
    assert "saved" in rest and "SIGTERM" not in rest


def test_a_reader_that_goes_away_leaves_the_processes_their_proper_end(workspace, tmp_path):
    witness = tmp_path / "saved"
    chatty = workspace.executable(
        "chatty",
        f"""\
        #!/bin/sh
        trap 'touch {witness}; exit 0' INT
        while true; do echo talk; sleep 0.05; done
        """,
    )
    path = workspace.launch_file("main.launch.py", f"ExecuteProcess(cmd=['{chatty}'], output='screen')")
    process = workspace.start("launch", path)
    until(process, "talk")
    process.stdout.close()
    time.sleep(0.3)  # let it talk to nobody
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0
    assert witness.exists()
