"""What keeps an operator from arming, or ends a run, seen over DDS: other nodes, limits, clocks; and what debugs it."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from rewarped_msgs.srv import LoadPolicy
from robot import ENVIRONMENT, HANG_S, ROOT, RUNNER, arguments, values_of
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Float32MultiArray

from policy_runner.realtime import go_first

URDF = """
<robot name="roller">
  <joint name="pin_x" type="prismatic"><limit lower="0.0" upper="0.62" velocity="0.8" effort="1"/></joint>
  <joint name="pin_y" type="prismatic"><limit lower="0.0" upper="1.0" velocity="9" effort="1"/></joint>
  <joint name="pin_yaw" type="continuous"><limit velocity="0.5" acceleration="2.0" effort="1"/></joint>
</robot>
"""


def test_beside_another_publisher_nobody_is_armed_and_who_runs_stops(start):
    robot = start()
    robot.arm()
    robot.until(lambda: len(robot.commands) >= 20)
    other = rclpy.create_node("teleop", namespace="/left", context=robot.context)
    intruder = other.create_publisher(JointState, "/policy_runner/joint_command", 1)
    message = "active: holding: other_publisher: commands also come from /left/teleop"
    robot.until(lambda: robot.status.message == message)
    assert robot.status.level == DiagnosticStatus.ERROR
    robot.held()
    answer = robot.call("arm", data=True)
    assert not answer.success and "other_publisher: commands also come from /left/teleop" in answer.message
    other.destroy_publisher(intruder)
    robot.arm()  # once the graph knows that it is gone
    assert robot.counter("held_other_publisher") == 1
    other.destroy_node()


def test_two_runners_of_one_name_do_not_both_command_a_robot(start):
    robot, _ = start(), start()

    def both_know():
        statuses = [values_of(d.status[0]) for d in robot.diagnostics[-4:]]  # of both, in turn
        return len(statuses) == 4 and all(s.get("fault_now") == "other_publisher" for s in statuses)

    robot.until(both_know)
    for _ in range(6):  # whichever of the two it is that answers
        answer = robot.call("arm", data=True)
        assert not answer.success
        assert "other_publisher: commands also come from /policy_runner" in answer.message
    assert not robot.commands


@pytest.mark.parametrize("allowed", [False, True])
def test_where_nobody_listens_it_is_armed_only_if_it_may(start, allowed):
    robot = start(arm_without_listener=allowed)
    robot.until(lambda: robot.status is not None and robot.status.message == "active: idle")
    robot.stop_listening()
    robot.until(lambda: robot.node.count_subscribers("/policy_runner/joint_command") == 0)
    robot.pass_time(1.0)  # until the runner knows as well
    answer = robot.call("arm", data=True)
    assert answer.success == allowed
    assert answer.message == ("armed" if allowed else "not armed: no_listener")


def test_limits_of_a_urdf_bind_the_commands(start, tmp_path):
    (tmp_path / "robot.urdf").write_text(URDF)
    robot = start(urdf=tmp_path / "robot.urdf")
    robot.arm()
    robot.until(lambda: len(robot.stream) >= 120)
    path = np.array([robot.stream[0].positions, *(sent.positions for sent in robot.stream)])
    velocity = np.abs(np.diff(path, axis=0)) * 60.0
    assert (path[:, 0] <= 0.62 - 0.05 + 1e-12).all()  # less the margin
    assert (
        velocity <= np.array([0.4, 0.6, 0.25]) * (1 + 1e-9)
    ).all()  # half of the URDF's, or the contract's
    assert velocity.max() > 0.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            URDF.replace('"pin_y"', '"pin_z"'),
            "robot.urdf: no joint 'pin_y'; known: ['pin_x', 'pin_yaw', 'pin_z']",
        ),
        (URDF.replace('upper="1.0"', 'upper="0.13"'), "joint_limits.pin_y: no room between 0.1 and 0.08"),
    ],
)
def test_a_urdf_that_does_not_fit_the_policy_is_refused_at_start(bundle, tmp_path, text, message):
    (tmp_path / "robot.urdf").write_text(text)
    ended = subprocess.run(
        [*RUNNER, *arguments({"policy": bundle, "urdf": tmp_path / "robot.urdf"})],
        env=os.environ | ENVIRONMENT,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert ended.returncode == 1 and message in ended.stdout + ended.stderr


def test_what_the_network_saw_and_gave_is_published_where_asked_for(start, bundles):
    robot = start(debug_topics=True)
    actions, observations = [], []
    robot.node.create_subscription(Float32MultiArray, "policy_runner/action_raw", actions.append, 100)
    robot.node.create_subscription(Float32MultiArray, "policy_runner/observation", observations.append, 100)
    robot.until(lambda: robot.node.count_publishers("/policy_runner/observation") == 1)
    robot.arm()
    robot.until(lambda: len(actions) >= 10 and len(observations) >= 10)
    contract = robot.contract
    for observation in observations:
        inputs = {
            "obs": np.array([observation.data], np.float32),
            "particle_q": robot.cloud[::5][np.newaxis],
        }
        expected = bundles.oracle(contract, bundles.weights(contract), inputs)[0]
        assert (
            min(np.abs(expected - action.data).max() for action in actions) < 1e-5
            or observation is observations[-1]
        )


@pytest.mark.parametrize("jump_s", [3600, -3600])
def test_when_the_clock_is_set_there_is_one_tick_at_most_and_everything_is_stale(start, jump_s):
    robot = start(use_sim_time=True)
    clock = robot.node.create_publisher(Clock, "/clock", 10)
    robot.stamp = Time()  # unstamped
    now_ns = 7200 * 1_000_000_000

    def advance(steps, step_ns=16_666_667):
        nonlocal now_ns
        for _ in range(steps):
            now_ns += step_ns
            clock.publish(Clock(clock=Time(sec=now_ns // 10**9, nanosec=now_ns % 10**9)))
            robot.pass_time(0.01)

    robot.until(lambda: robot.status is not None and robot.status.message == "active: idle")
    while not robot.call("arm", data=True).success:
        advance(1)
    robot.until(lambda: advance(1) or len(robot.commands) >= 10)
    before = len(robot.stream)
    advance(1, jump_s * 1_000_000_000)
    robot.pass_time(0.5)
    assert len(robot.stream) - before <= 1
    robot.until(lambda: advance(1) or robot.status.message == "active: holding: stalled")
    assert all(sent.stamp_ns == 0 for sent in robot.stream[before:])
    advance(20)
    assert len(robot.stream) - before >= 10  # it goes on ticking, and holds
    assert robot.counter("held_stalled") == 1


@pytest.mark.parametrize("priority", [0, 20])
def test_the_loop_has_the_priority_that_was_asked_for_where_the_system_allows_it(start, priority):
    with ThreadPoolExecutor(1) as pool:  # the thread ends, and with it its priority
        denied = pool.submit(go_first, priority).result()
    robot = start(realtime_priority=priority)
    robot.arm()
    assert robot.counter("realtime_priority") == (0 if denied else priority)


def test_diagnostics_say_how_the_loop_keeps_time_and_what_the_limits_cut(start):
    robot = start()
    robot.arm()
    robot.until(lambda: len(robot.commands) >= 60)
    values = robot.diagnosis()
    p50, p99, longest = (float(values[f"tick_{name}_ms"]) for name in ("p50", "p99", "max"))
    assert 0.0 < p50 <= p99 <= longest
    assert 0.0 <= float(values["saturation"]) <= 1.0 and int(values["stalls"]) == 0
    assert int(values["ticks"]) >= 60
    names = [name for name, _ in robot.node.get_topic_names_and_types()]
    assert "/policy_runner/policy_points" in names
    assert "/policy_runner/action_raw" not in names  # nor anything else that nobody asked for


def test_an_error_that_nobody_foresaw_brings_the_robot_to_rest_and_ends_the_process(start, monkeypatch):
    code = """
import sys
from policy_runner.nodes import robot_input, runner
def fail(node, message):
    raise ZeroDivisionError("unforeseen")
robot_input.RobotInput._drop = fail
sys.exit(runner.main())
"""
    monkeypatch.setattr("robot.RUNNER", (sys.executable, "-c", code))
    robot = start()
    robot.arm()
    robot.until(lambda: len(robot.stream) >= 30)
    robot.sensor_fault = np.full(3, np.nan)  # dropped, if that did not fail
    robot.until(lambda: robot.process.poll() is not None)
    assert robot.process.returncode == 4
    robot.pass_time(0.2)
    steps = np.abs(np.diff([sent.positions for sent in robot.stream], axis=0))
    assert (steps <= np.array(robot.contract.action.max_velocity) / 60.0 + 1e-9).all()
    assert not steps[-1].any() and robot.stream[-1].stamp_ns == 0


def test_a_policy_that_was_asked_for_before_a_cleanup_is_refused_after_it(
    start, bundles, bundle, tmp_path, monkeypatch
):
    """Whoever configures the node anew wants the policy that it is configured for."""
    code = """
import sys, time
from pathlib import Path
from policy_runner.nodes import policy_loader, runner
load = policy_loader.PolicyLoader.load
def load_late(self, path, settings):
    if path.endswith("second"):
        Path(path + "_begun").touch()
        while not Path(path + "_goes_on").exists():
            time.sleep(0.01)
    return load(self, path, settings)
policy_loader.PolicyLoader.load = load_late
sys.exit(runner.main())
"""
    monkeypatch.setattr("robot.RUNNER", (sys.executable, "-c", code))
    second = bundles.write(tmp_path / "second", bundles.contract(policy_name="second"))
    robot = start(autostart=False, policy_dirs=[str(bundle), str(tmp_path)])
    assert robot.change_state(Transition.TRANSITION_CONFIGURE)
    answer = robot.clients["load_policy"].call_async(LoadPolicy.Request(path=str(second)))
    robot.until((tmp_path / "second_begun").exists)
    for transition in (Transition.TRANSITION_CLEANUP, Transition.TRANSITION_CONFIGURE):
        assert robot.change_state(transition)
    (tmp_path / "second_goes_on").touch()
    robot.until(answer.done)
    response = answer.result()
    assert not response.success and "cleaned up meanwhile" in response.message
    assert response.policy_name == "roller"
