"""The node in a process of its own, over DDS: what an operator and a robot see of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from rclpy.parameter import Parameter
from robot import COMMAND_TYPES, ENVIRONMENT, HANG_S, ROOT, RUNNER, arguments, positions_of
from rosgraph_msgs.msg import Clock

DT = 1.0 / 60.0


def test_commands_flow_only_after_arming_and_follow_the_network(start, bundles):
    robot = start()
    robot.until(lambda: robot.status is not None and robot.status.message == "active: idle")
    robot.pass_time(0.5)
    assert not robot.commands
    robot.arm()
    robot.until(lambda: len(robot.commands) >= 30)
    assert robot.status.message == "active: running"
    contract = robot.contract
    points = robot.cloud[::5]
    start_q = [0.5, 0.3, 0.0]
    inputs = {
        "obs": np.array([[*start_q, *points.mean(axis=0, dtype=np.float64)]], np.float32),
        "particle_q": points[np.newaxis],
    }
    action = bundles.oracle(contract, bundles.weights(contract), inputs)[0]
    first = np.array(robot.commands[0].position)
    np.testing.assert_allclose(first, np.array(start_q) + np.array(contract.action.scale) * action, atol=1e-6)
    positions = np.array([command.position for command in robot.commands])
    assert ((positions >= contract.action.lower) & (positions <= contract.action.upper)).all()
    speeds = np.abs(np.diff(positions, axis=0)) / DT
    assert (speeds <= np.array(contract.action.max_velocity) * (1 + 1e-9)).all()
    assert robot.commands[-1].name == list(contract.action.joint_names)
    assert robot.commands[-1].header.stamp.sec > 0


@pytest.mark.parametrize("command_type", ["joint_command", "joint_trajectory"])
def test_in_lockstep_the_robot_moves_as_if_the_policy_were_called_in_process(start, bundles, command_type):
    """The world stands still until a command bears the stamp of its present state; then it takes one step."""
    robot = start(command_type=command_type, stamp_trajectory=True, robot_obeys=False)
    contract = robot.contract
    w, action = bundles.weights(contract), contract.action
    robot.stamp = Time(sec=1)
    robot.arm()
    expected = robot.position
    for step in range(1, 61):
        robot.until(lambda: robot.commands and robot.commands[-1].header.stamp == robot.stamp)
        points = robot.cloud[::5]
        centre = points.mean(axis=0, dtype=np.float64)
        inputs = {"obs": np.array([[*expected, *centre]], np.float32), "particle_q": points[np.newaxis]}
        moved = expected + np.array(action.scale) * bundles.oracle(contract, w, inputs)[0]
        expected = np.clip(moved, action.lower, action.upper)
        robot.position = positions_of(robot.commands[-1])
        np.testing.assert_allclose(robot.position, expected, atol=1e-6)
        robot.cloud = robot.cloud + np.float32(2e-3)
        robot.stamp = Time(sec=1, nanosec=step * 16_666_667)


def test_in_simulated_time_the_loop_ticks_with_the_clock(start):
    robot = start(use_sim_time=True)
    clock = robot.node.create_publisher(Clock, "/clock", 10)
    robot.stamp = Time()  # unstamped
    seconds = 0

    def advance(steps):
        nonlocal seconds
        for _ in range(steps):
            seconds += 1
            clock.publish(Clock(clock=Time(sec=seconds // 60, nanosec=round(seconds % 60 * DT * 1e9))))
            robot.pass_time(0.01)

    robot.until(lambda: robot.status is not None and robot.status.message == "active: idle")
    advance(10)
    robot.arm()
    robot.pass_time(0.3)
    assert not robot.commands  # time stands still
    advance(60)
    assert 50 <= len(robot.commands) <= 61  # a best-effort clock may lose a beat


def test_what_the_network_sees_is_published(start):
    robot = start()
    robot.until(lambda: robot.policy_points)
    message = robot.policy_points[-1]
    assert message.header.frame_id == "world" and (message.width, message.point_step) == (8, 12)
    points = np.frombuffer(message.data, "<f4").reshape(-1, 3)
    np.testing.assert_array_equal(points, robot.cloud[::5])


@pytest.mark.parametrize("command_type", list(COMMAND_TYPES))
def test_every_command_type_says_the_same(start, command_type):
    robot = start(command_type=command_type)
    robot.arm()
    robot.until(lambda: len(robot.commands) >= 20)
    command = robot.commands[-1]
    assert isinstance(command, COMMAND_TYPES[command_type])
    assert np.isfinite(robot.position).all() and len(robot.position) == 3
    if command_type == "joint_trajectory":
        assert command.joint_names == robot.joint_names
        assert command.points[0].time_from_start.nanosec == round(DT * 1e9)
        assert (command.header.stamp.sec, command.header.stamp.nanosec) == (0, 0)  # 'start now'


def test_joint_trajectories_carry_the_stamp_of_their_inputs_where_asked_to(start):
    robot = start(command_type="joint_trajectory", stamp_trajectory=True)
    robot.arm()
    robot.until(lambda: robot.commands)
    assert robot.commands[-1].header.stamp.sec > 0


def test_when_clouds_stop_the_position_is_held_and_published_and_counted(start):
    robot = start(cloud_timeout_s=2.0)
    robot.arm()
    robot.until(lambda: len(robot.commands) >= 30)
    robot.cloud_on = False
    robot.until(lambda: robot.status.message == "active: holding: cloud_stale")
    held = robot.held()
    robot.pass_time(0.5)
    assert robot.commands[-1].position == held.position
    assert robot.commands[-1].header.stamp.sec == 0
    assert robot.counter("held_cloud_stale") == 1
    robot.cloud_on = True
    robot.pass_time(0.5)
    assert robot.status.message == "active: holding: cloud_stale"  # it waits for the operator
    robot.arm()
    robot.until(lambda: robot.commands[-1].header.stamp.sec > 0)


def test_a_joint_state_that_is_not_finite_is_dropped_and_then_held(start):
    robot = start(joint_state_timeout_s=2.0)
    robot.arm()
    robot.until(lambda: len(robot.commands) >= 30)
    robot.sensor_fault = np.array([0.0, np.nan, 0.0])
    robot.until(lambda: robot.status.message == "active: holding: joint_state_stale")
    robot.held()
    assert np.isfinite([command.position for command in robot.commands]).all()
    assert robot.counter("dropped_joint_state_bad") > 0


def test_clouds_without_points_hold_and_say_why(start):
    robot = start(cloud_timeout_s=2.0)
    robot.arm()
    robot.until(lambda: len(robot.commands) >= 10)
    robot.cloud = np.full((40, 3), np.nan, "<f4")
    robot.until(lambda: robot.status.message == "active: holding: cloud_stale")
    assert robot.counter("dropped_cloud_too_few_points") > 0


def test_arming_names_the_joint_that_is_missing(start):
    robot = start()
    robot.joint_names = ["pin_x", "elbow", "pin_yaw"]
    robot.until(lambda: robot.status is not None and robot.status.message == "active: idle")
    robot.pass_time(0.5)
    response = robot.call("arm", data=True)
    assert not response.success
    assert response.message.startswith(
        "not armed: joint_state_stale: none has come; last dropped joint_state_bad:"
    )
    assert "joint 'pin_y' is missing" in response.message
    assert robot.counter("dropped_joint_state_bad") > 0


def test_arming_names_the_topic_that_nobody_publishes(start):
    robot = start()
    robot.cloud_on = False
    robot.node.destroy_publisher(robot.points_publisher)
    while "age_joint_state_s" not in robot.diagnosis():
        pass
    response = robot.call("arm", data=True)
    assert not response.success
    assert response.message == "not armed: cloud_stale: none has come; nobody publishes /points"


def test_a_stop_is_latched_until_it_is_reset(start):
    robot = start()
    robot.arm()
    robot.until(lambda: len(robot.commands) >= 10)
    assert robot.call("stop").success
    robot.until(lambda: robot.status.message == "active: stopped")
    held = robot.held()
    response = robot.call("arm", data=True)
    assert not response.success and "reset_stop" in response.message
    assert robot.commands[-1].position == held.position
    for transition in ("DEACTIVATE", "CLEANUP", "CONFIGURE", "ACTIVATE"):
        assert robot.change_state(getattr(Transition, f"TRANSITION_{transition}"))
    response = robot.call("arm", data=True)
    assert not response.success and "reset_stop" in response.message
    assert robot.call("reset_stop").success
    robot.arm()
    robot.until(lambda: robot.status.message == "active: running")


def test_a_stop_counts_before_there_is_a_policy_and_after_it_the_robot_is_not_armed_by_itself(start):
    robot = start(autostart=False, arm_on_activate=True)
    assert not robot.call("reset_stop").success
    assert robot.call("stop").success and robot.call("reset_stop").success
    assert robot.call("stop").success
    for transition in ("CONFIGURE", "ACTIVATE"):
        assert robot.change_state(getattr(Transition, f"TRANSITION_{transition}"))
    response = robot.call("arm", data=True)
    assert not response.success and "reset_stop" in response.message
    assert robot.call("reset_stop").success
    robot.until(lambda: robot.status.message.startswith("active: idle"))
    ticks = robot.counter("ticks")
    robot.until(lambda: robot.counter("ticks") > ticks + 30)
    assert robot.status.message.startswith("active: idle") and not robot.commands
    robot.arm()
    robot.until(lambda: robot.status.message == "active: running")


def test_the_lifecycle_can_be_driven_from_outside(start):
    robot = start(autostart=False)
    assert robot.state() == "unconfigured"
    assert not robot.call("arm", data=True).success
    assert robot.change_state(Transition.TRANSITION_CONFIGURE)
    assert robot.state() == "inactive"
    assert not robot.call("arm", data=True).success
    assert robot.change_state(Transition.TRANSITION_ACTIVATE)
    robot.arm()
    robot.until(lambda: len(robot.commands) >= 30)
    assert robot.change_state(Transition.TRANSITION_DEACTIVATE)
    robot.pass_time(0.2)
    count = len(robot.commands)
    assert robot.commands[-1].position == robot.commands[-2].position  # at rest before it fell silent
    robot.pass_time(0.3)
    assert len(robot.commands) == count
    assert robot.change_state(Transition.TRANSITION_CLEANUP)
    assert robot.change_state(Transition.TRANSITION_CONFIGURE)
    assert robot.change_state(Transition.TRANSITION_ACTIVATE)
    robot.pass_time(0.3)
    assert len(robot.commands) == count  # armed once is not armed for ever


def test_a_refused_bundle_leaves_the_node_unconfigured_with_the_reason(start, bundles, bundle, tmp_path):
    broken = shutil.copytree(bundle, tmp_path / "broken")
    data = bytearray((broken / "policy.onnx").read_bytes())
    data[len(data) // 2] ^= 4
    (broken / "policy.onnx").write_bytes(data)
    robot = start(autostart=False, policy=broken)
    assert not robot.change_state(Transition.TRANSITION_CONFIGURE)
    assert robot.state() == "unconfigured"
    robot.until(lambda: "policy.onnx: sha256: expected" in robot.status.message)
    assert robot.status.level == DiagnosticStatus.ERROR
    bundles.write(broken)
    assert robot.change_state(Transition.TRANSITION_CONFIGURE)  # mended, it is taken


def test_a_policy_is_exchanged_while_it_runs_or_stays_if_the_other_is_refused(
    start, bundles, bundle, tmp_path
):
    contract = bundles.contract(policy_name="second")
    second = bundles.write(tmp_path / "second", contract, w=bundles.weights(contract, seed=9))
    action = replace(contract.action, joint_names=("a", "b", "c"))
    foreign = bundles.write(tmp_path / "foreign", bundles.contract(action=action))
    robot = start(policy_dirs=[str(bundle), str(tmp_path)])
    robot.arm()
    robot.until(lambda: len(robot.commands) >= 10)
    for path, reason in (
        (tmp_path / "nothing", "found nothing"),
        (foreign, "action.joint_names[0]: expected 'pin_x', found 'a'"),
    ):
        response = robot.call("load_policy", path=str(path))
        assert not response.success and reason in response.message and response.policy_name == "roller"
    count = len(robot.commands)
    response = robot.call("load_policy", path=str(second))
    assert response.success and response.policy_name == "second"
    assert len(robot.commands) > count  # the loop went on meanwhile
    robot.until(lambda: len(robot.commands) > count + 30)
    assert robot.status.message == "active: running"
    positions = np.array([command.position for command in robot.commands])
    assert (np.abs(np.diff(positions, axis=0)) <= np.array(contract.action.max_velocity) * DT + 1e-9).all()


def test_armed_by_itself_where_it_is_told_to(start):
    robot = start(arm_on_activate=True)
    robot.until(lambda: len(robot.commands) >= 10)


def test_parameters_are_described_and_refuse_nonsense(start):
    robot = start(autostart=False)
    names = ["policy", "command_type", "cloud_timeout_s", "ramp_in_s", "deadline_miss_limit"]
    descriptors = robot.call("describe_parameters", names=names).descriptors
    assert all(descriptor.description for descriptor in descriptors)
    assert descriptors[3].floating_point_range[0].to_value == 60.0
    assert "joint_command" in descriptors[1].additional_constraints

    def set_parameter(name, value):
        message = Parameter(name, value=value).to_parameter_msg()
        return robot.call("set_parameters", parameters=[message]).results[0]

    refused = set_parameter("command_type", "telepathy")
    assert not refused.successful and "known: ['joint_trajectory'" in refused.reason
    assert not set_parameter("ramp_in_s", -1.0).successful
    assert set_parameter("ramp_in_s", 1.0).successful
    assert robot.change_state(Transition.TRANSITION_CONFIGURE)
    late = set_parameter("ramp_in_s", 0.5)
    assert not late.successful and "clean up first" in late.reason
    listed = robot.call("list_parameters").result.names
    assert set(names) <= set(listed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_brings_the_robot_to_rest_and_ends_the_process_with_0(start, number):
    robot = start()
    robot.arm()
    robot.until(lambda: len(robot.commands) >= 30)
    robot.process.send_signal(number)
    robot.until(lambda: robot.process.poll() is not None)
    assert robot.process.returncode == 0
    robot.pass_time(0.1)
    assert robot.commands[-1].position == robot.commands[-2].position


def test_a_node_that_was_shut_down_stands_still_and_ends_its_process_with_0(start):
    robot = start()
    robot.arm()
    robot.until(lambda: len(robot.commands) >= 30)
    assert robot.change_state(Transition.TRANSITION_ACTIVE_SHUTDOWN)
    assert robot.state() == "finalized"
    assert not robot.call("arm", data=True).success
    robot.pass_time(0.1)
    assert robot.commands[-1].position == robot.commands[-2].position
    robot.process.send_signal(signal.SIGINT)
    robot.until(lambda: robot.process.poll() is not None)
    assert robot.process.returncode == 0


def test_two_signals_in_a_row_do_no_harm(start):
    robot = start()
    robot.arm()
    robot.until(lambda: len(robot.commands) >= 10)
    robot.process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    robot.process.send_signal(signal.SIGINT)
    robot.until(lambda: robot.process.poll() is not None)
    assert robot.process.returncode == 0


def run(*words, **parameters):
    return subprocess.run(
        [*RUNNER, *arguments(parameters), *words],
        env=os.environ | ENVIRONMENT,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )


@pytest.mark.parametrize(
    ("parameters", "code", "message"),
    [
        ({}, 1, "policy: not set; give the folder of a policy bundle"),
        ({"policy": "/nowhere"}, 1, "/nowhere: expected a folder with bundle.json, found nothing"),
        ({"polcy": "/nowhere"}, 2, "unknown parameter 'polcy'; did you mean 'policy'?"),
        ({"rate_hz": "fast"}, 2, "rate_hz: expected float, got 'fast'"),
        ({"joint_limits.pin_x.max_velocty": 1.0}, 2, "did you mean 'max_velocity'?"),
    ],
)
def test_a_bad_start_is_explained_and_ends_with_another_code_than_0(parameters, code, message):
    ended = run(**parameters)
    assert ended.returncode == code
    assert message in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


def test_limits_of_a_joint_that_the_policy_does_not_command_are_refused(bundle):
    ended = run(policy=bundle, **{"joint_limits.elbow.max_velocity": 1.0})
    assert ended.returncode == 1 and "joint_limits.elbow: no such joint" in ended.stdout + ended.stderr


def test_the_runner_loads_neither_torch_nor_warp_nor_the_other_packages():
    code = (
        "import sys, policy_runner.nodes.runner, policy_runner.model_check, policy_runner.inspect_bundle; "
        "print([name for name in ('torch', 'warp', 'rewarped_sim', 'sapo_learner') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
