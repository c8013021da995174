"""The node in a process of its own, over DDS: what an operator and a robot see of it."""

from __future__ import annotations

import array
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import DescribeParameters, ListParameters, SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rewarped_msgs.srv import LoadPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState, PointCloud2, PointField
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

DT = 1.0 / 60.0
HANG_S = 60.0
ROOT = Path(__file__).parents[3]
DOMAIN = 1 + os.getpid() % 100
ENVIRONMENT = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_DOMAIN_ID": str(DOMAIN)}
COMMAND_TYPES = {
    "joint_trajectory": JointTrajectory,
    "commands": Float64MultiArray,
    "joint_command": JointState,
}
SERVICES = {
    "arm": SetBool,
    "stop": Trigger,
    "reset_stop": Trigger,
    "load_policy": LoadPolicy,
    "change_state": ChangeState,
    "describe_parameters": DescribeParameters,
    "list_parameters": ListParameters,
    "set_parameters": SetParameters,
    "get_state": GetState,  # last: who has discovered this client has discovered those before it
}
SETTINGS = {
    "command_type": "joint_command",
    "ramp_in_s": 0.0,
    # patient, so that a busy machine is no fault; the fault tests say otherwise
    "cloud_timeout_s": 10.0,
    "joint_state_timeout_s": 10.0,
    "max_input_skew_s": 0.0,
    "deadline_miss_limit": 1000,
    "vet_timeout_s": 60.0,
}


@pytest.fixture(scope="module")
def context():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        context = Context()
        rclpy.init(context=context, domain_id=DOMAIN)
        # as long as there is a node, the DDS participant stays: taking it down beside processes that come and go
        # now and then crashes in rmw_fastrtps
        keeper = rclpy.create_node("keeper", context=context)
        yield context
        keeper.destroy_node()
        rclpy.shutdown(context=context)


@pytest.fixture(scope="module")
def bundle(bundles, tmp_path_factory):
    return bundles.write(tmp_path_factory.mktemp("bundle"))


def positions_of(command):
    if isinstance(command, JointTrajectory):
        return np.array(command.points[0].positions)
    return np.array(command.data if isinstance(command, Float64MultiArray) else command.position)


def arguments(parameters):
    values = [f"{name}:={str(v).lower() if isinstance(v, bool) else v}" for name, v in parameters.items()]
    return ["--ros-args", *(word for value in values for word in ("-p", value))]


class Robot:
    """A robot that does as told, an operator beside it, and the runner's process."""

    def __init__(self, context, bundles, log: Path, *, robot_obeys=True, **parameters):
        self.obeys = robot_obeys
        self.contract = bundles.contract()
        self.context = context
        self.node = rclpy.create_node("robot", context=context)
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.node)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.points_publisher = self.node.create_publisher(PointCloud2, "points", best_effort)
        self.joints_publisher = self.node.create_publisher(JointState, "joint_states", best_effort)
        self.commands, self.status, self.diagnostics, self.policy_points = [], None, [], []
        for name, kind in COMMAND_TYPES.items():
            self.node.create_subscription(kind, f"policy_runner/{name}", self._obey, 1000)
        self.node.create_subscription(DiagnosticStatus, "policy_runner/status", self._set_status, latched)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self.diagnostics.append, 10)
        self.node.create_subscription(
            PointCloud2, "policy_runner/policy_points", self.policy_points.append, best_effort
        )
        self.clients = {
            name: self.node.create_client(kind, f"policy_runner/{name}") for name, kind in SERVICES.items()
        }
        self.met = False
        self.position = np.array([0.5, 0.3, 0.0])
        self.cloud = np.random.default_rng(0).uniform(0.2, 0.4, (40, 3)).astype("<f4")
        self.cloud_on = self.joints_on = True
        self.stamp = None  # of this moment
        self.sensor_fault = np.zeros(3)
        self.joint_names = list(self.contract.action.joint_names)
        self.next_tick_s = time.monotonic()
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "policy_runner.nodes.runner", *arguments(SETTINGS | parameters)],
                env=os.environ | ENVIRONMENT,
                cwd=ROOT,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def close(self):
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(HANG_S)
        finally:
            self.process.kill()
        self.executor.shutdown()
        self.node.destroy_node()

    def _obey(self, message):
        self.commands.append(message)
        if self.obeys:
            self.position = positions_of(message)

    def _set_status(self, message):
        self.status = message

    def _sense(self):
        stamp = self.stamp or self.node.get_clock().now().to_msg()
        if self.joints_on:
            message = JointState(name=self.joint_names, position=(self.position + self.sensor_fault).tolist())
            message.header.stamp = stamp
            self.joints_publisher.publish(message)
        if self.cloud_on:
            message = PointCloud2(
                height=1, width=len(self.cloud), point_step=12, row_step=12 * len(self.cloud)
            )
            message.fields = [
                PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
                for index, name in enumerate("xyz")
            ]
            message.data = array.array("B", self.cloud.tobytes())
            message.header.stamp, message.header.frame_id = stamp, "world"
            self.points_publisher.publish(message)

    def until(self, condition):
        """Sense at 60 Hz and listen until the condition holds."""
        deadline = time.monotonic() + HANG_S
        while not condition():
            assert time.monotonic() < deadline, self.status
            if time.monotonic() >= self.next_tick_s:
                self.next_tick_s = time.monotonic() + DT
                self._sense()
            self.executor.spin_once(timeout_sec=0.002)

    def pass_time(self, duration_s):
        end_s = time.monotonic() + duration_s
        self.until(lambda: time.monotonic() >= end_s)

    def call(self, service, **fields):
        self._meet()
        future = self.clients[service].call_async(SERVICES[service].Request(**fields))
        self.until(future.done)
        return future.result()

    def _meet(self):
        """Wait until the runner hears us too: a service may be in sight before it can send an answer back."""
        while not self.met:
            self.until(self.clients["get_state"].service_is_ready)
            future = self.clients["get_state"].call_async(GetState.Request())
            give_up_s = time.monotonic() + 2.0
            self.until(lambda: future.done() or time.monotonic() > give_up_s)  # noqa: B023
            self.met = future.done()

    def change_state(self, transition):
        return self.call("change_state", transition=Transition(id=transition)).success

    def state(self):
        return self.call("get_state").current_state.label

    def arm(self):
        """Arm as soon as inputs have come through."""
        while not self.call("arm", data=True).success:
            self.pass_time(0.05)

    def counter(self, name):
        """Value of a counter in the newest diagnostics; waits for the next ones."""
        seen = len(self.diagnostics)
        self.until(lambda: len(self.diagnostics) > seen)
        return int({kv.key: kv.value for kv in self.diagnostics[-1].status[0].values}[name])

    def held(self):
        """Wait until the commands that hold stand still, and return one."""

        def stands_still():
            last = self.commands[-10:]
            holding = all(command.header.stamp == Time() for command in last)
            return holding and all(command.position == last[0].position for command in last)

        self.until(lambda: len(self.commands) > 10 and stands_still())
        return self.commands[-1]


@pytest.fixture
def start(context, bundles, bundle, tmp_path):
    robots = []

    def start_robot(**parameters):
        robots.append(Robot(context, bundles, tmp_path / "log", **({"policy": bundle} | parameters)))
        return robots[-1]

    yield start_robot
    for robot in robots:
        robot.close()
    log = tmp_path / "log"
    print(log.read_text() if log.exists() else "")


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
    assert response.message.startswith("not armed: joint_state_stale; last dropped joint_state_bad:")
    assert "joint 'pin_y' is missing" in response.message
    assert robot.counter("dropped_joint_state_bad") > 0


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
    robot = start()
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_brings_the_robot_to_rest_and_ends_the_process_with_0(start, number):
    robot = start()
    robot.arm()
    robot.until(lambda: len(robot.commands) >= 30)
    robot.process.send_signal(number)
    robot.until(lambda: robot.process.poll() is not None)
    assert robot.process.returncode == 0
    robot.pass_time(0.1)
    assert robot.commands[-1].position == robot.commands[-2].position


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
        [sys.executable, "-m", "policy_runner.nodes.runner", *arguments(parameters), *words],
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
