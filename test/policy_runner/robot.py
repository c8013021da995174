"""The runner in a process of its own, and all that it meets over DDS: a robot, its sensors, an operator."""

from __future__ import annotations

import array
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rewarped_msgs.srv import LoadPolicy
from sensor_msgs.msg import JointState, PointCloud2, PointField
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

SENSOR_DT_S = 1.0 / 60.0
HANG_S = 60.0
ROOT = Path(__file__).parents[2]
DOMAIN = 1 + os.getpid() % 100
ENVIRONMENT = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_DOMAIN_ID": str(DOMAIN)}
RUNNER = (sys.executable, "-m", "policy_runner.nodes.runner")
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
    "inference_budget_s": 5.0,
    "vet_timeout_s": 60.0,
}


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A command of the stream, and when it was published."""

    positions: np.ndarray
    stamp_ns: int
    """Of the oldest input that it was computed from; 0 where it holds."""
    number: int
    """The publisher counts its messages: a gap is a command that was lost on the way here."""
    sent_ns: int
    """By the system clock."""


@contextlib.contextmanager
def ros():
    """A ROS context on a domain of this test session's own."""
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


def nanoseconds(stamp):
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def stamp_of(time_ns):
    return Time(sec=time_ns // 1_000_000_000, nanosec=time_ns % 1_000_000_000)


def positions_of(command):
    if isinstance(command, JointTrajectory):
        return np.array(command.points[0].positions)
    return np.array(command.data if isinstance(command, Float64MultiArray) else command.position)


def values_of(status):
    return {pair.key: pair.value for pair in status.values}


def arguments(parameters):
    values = [f"{name}:={str(v).lower() if isinstance(v, bool) else v}" for name, v in parameters.items()]
    return ["--ros-args", *(word for value in values for word in ("-p", value))]


def cloud_message(points):
    """Return points (n, 3) as an unorganised cloud of x, y, z."""
    points = np.ascontiguousarray(points, "<f4")
    return PointCloud2(
        height=1,
        width=len(points),
        point_step=12,
        row_step=12 * len(points),
        fields=[
            PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
            for index, name in enumerate("xyz")
        ],
        data=array.array("B", points.tobytes()),
    )


class Robot:
    """A robot that does as told, an operator beside it, and the runner's process."""

    def __init__(self, context, bundles, log: Path, *, robot_obeys=True, contract=None, **parameters):
        self.obeys = robot_obeys
        self.contract = contract or bundles.contract()
        self.context = context
        self.node = rclpy.create_node("robot", context=context)
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.node)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.points_publisher = self.node.create_publisher(PointCloud2, "points", best_effort)
        self.joints_publisher = self.node.create_publisher(JointState, "joint_states", best_effort)
        self.commands, self.status, self.diagnostics, self.policy_points = [], None, [], []
        self.stream: list[Sent] = []
        self.listen()
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
        self.drift: Callable[[], np.ndarray | float] = lambda: 0.0  # of the cloud, by now
        self.each_step: Callable[[], None] = lambda: None  # what else the world does
        self.clock_offset_s = 0  # of the sensors' clock
        self.next_tick_s = time.monotonic()
        self.mend()
        self.parameters = SETTINGS | parameters
        # under nohup the signal is ignored, and so would it be by the runner
        before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [*RUNNER, *arguments(self.parameters)],
                env=os.environ | ENVIRONMENT,
                cwd=ROOT,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        signal.signal(signal.SIGHUP, before)

    def mend(self):
        """Let all sensors be as they should be."""
        self.cloud = np.random.default_rng(0).uniform(0.2, 0.4, (40, 3)).astype("<f4")
        self.cloud_on = self.joints_on = True
        self.stamp = None  # of this moment
        self.sensor_fault = np.zeros(3)
        self.joint_names = list(self.contract.action.joint_names)
        self.sensor_dt_s = SENSOR_DT_S
        # what becomes of a message on its way: none, another one or several
        self.clouds_sent: Callable[[PointCloud2], list[PointCloud2]] = lambda cloud: [cloud]
        self.joints_sent: Callable[[JointState], list[JointState]] = lambda joints: [joints]

    def listen(self):
        """Have commands reach the robot."""
        self.ears = [
            self.node.create_subscription(kind, f"policy_runner/{name}", self._obey, 1000)
            for name, kind in COMMAND_TYPES.items()
        ]

    def close(self):
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(HANG_S)
        finally:
            self.process.kill()
        self.executor.shutdown()
        self.node.destroy_node()

    def stop_listening(self):
        """Let nobody be there for commands."""
        for subscription in self.ears:
            self.node.destroy_subscription(subscription)

    def _obey(self, message, info):
        self.commands.append(message)
        header = getattr(message, "header", None)
        sent = Sent(
            positions=positions_of(message),
            stamp_ns=nanoseconds(header.stamp) if header is not None else 0,
            number=info["publication_sequence_number"],
            sent_ns=info["source_timestamp"],
        )
        self.stream.append(sent)
        if self.obeys:
            self.position = sent.positions

    def _set_status(self, message):
        self.status = message

    def now_ns(self):
        """By the sensors' clock."""
        return time.time_ns() + self.clock_offset_s * 1_000_000_000

    def _sense(self):
        self.each_step()
        stamp = self.stamp or stamp_of(self.now_ns())
        if self.joints_on:
            message = JointState(
                name=self.joint_names,
                position=(self.position + self.sensor_fault).tolist(),
                velocity=[0.0] * len(self.position),
            )
            message.header.stamp = stamp
            for sent in self.joints_sent(message):
                self.joints_publisher.publish(sent)
        if self.cloud_on:
            message = cloud_message(self.cloud + self.drift())
            message.header.stamp, message.header.frame_id = stamp, "world"
            for sent in self.clouds_sent(message):
                self.points_publisher.publish(sent)

    def until(self, condition):
        """Sense, at 60 Hz where nothing else is said, and listen until the condition holds."""
        deadline = time.monotonic() + HANG_S
        while not condition():
            assert time.monotonic() < deadline, self.status
            if time.monotonic() >= self.next_tick_s:
                self.next_tick_s = time.monotonic() + self.sensor_dt_s
                self._sense()
            self.executor.spin_once(timeout_sec=0.002)

    def pass_time(self, duration_s):
        end_s = time.monotonic() + duration_s
        self.until(lambda: time.monotonic() >= end_s)

    def meanwhile(self, work):
        """Let the sensors go on during something that may take its time, as a disk may."""
        with ThreadPoolExecutor(max_workers=1) as pool:
            done = pool.submit(work)
            self.until(done.done)
        return done.result()

    def call(self, service, **fields):
        self._meet()
        future = self.clients[service].call_async(SERVICES[service].Request(**fields))
        self.until(future.done)
        return future.result()

    def _meet(self):
        """Wait until the runner hears us too: a service may be in sight before it can send an answer back."""
        deadline = time.monotonic() + HANG_S
        while not self.met:
            assert time.monotonic() < deadline, "the runner's services do not answer"
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
        deadline = time.monotonic() + HANG_S
        while not (answer := self.call("arm", data=True)).success:
            assert time.monotonic() < deadline, f"{answer.message}; {self._who_hears()}"
            self.pass_time(0.05)

    def _who_hears(self):
        """Say what the middleware knows, and have the runner log where its threads are."""
        self.process.send_signal(signal.SIGUSR1)
        publishers = {"points": self.points_publisher, "joint_states": self.joints_publisher}
        return {name: publisher.get_subscription_count() for name, publisher in publishers.items()}

    def diagnosis(self):
        """Values of the next diagnostics by name."""
        seen = len(self.diagnostics)
        self.until(lambda: len(self.diagnostics) > seen)
        return values_of(self.diagnostics[-1].status[0])

    def counter(self, name):
        """Value of a counter in the next diagnostics."""
        return int(self.diagnosis()[name])

    def rss_mb(self):
        """Memory that the runner holds."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE") / 1e6

    def held(self, commands=10):
        """Wait until so many commands in a row hold and stand still, and return one."""

        def stands_still():
            last = self.commands[-commands:]
            holding = all(command.header.stamp == Time() for command in last)
            return holding and all(command.position == last[0].position for command in last)

        self.until(lambda: len(self.commands) > commands and stands_still())
        return self.commands[-1]
