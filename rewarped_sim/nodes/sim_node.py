"""The node `sim_node`: one simulated environment that speaks ROS like a robot with a depth camera.

It publishes joint states and clouds, of all that is soft or of what a simulated depth camera sees, and moves its
joints towards what it is commanded, at most as far in one control step as the task allows; where the task's actions
are efforts, commands are efforts too, and without one the joints are limp. Where commands cease, it holds. Simulation
and callbacks share one thread: between two steps, it listens.
"""

from __future__ import annotations

import faulthandler
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
import torch
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import get_rmw_implementation_identifier
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import JointState, PointCloud2
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory
from visualization_msgs.msg import MarkerArray

from policy_runner.transport import transport_of
from rewarped_sim.env import DeviceError, Env
from rewarped_sim.make import make
from rewarped_sim.nodes import camera, messages
from rewarped_sim.nodes.command_watchdog import CommandWatchdog
from rewarped_sim.nodes.commands import (
    CommandError,
    Targets,
    action_towards,
    duration_of,
    holding_target,
    target_of,
)
from rewarped_sim.nodes.lifetime import ignore_stop_signals, on_stop_signal
from rewarped_sim.nodes.parameters import Param, ParameterError, declare_params
from rewarped_sim.nodes.transforms import TransformPublisher
from rewarped_sim.registry import ConfigError, UnknownTaskError
from rewarped_sim.scene import Scene
from rewarped_sim.train import show_log
from rewarped_sim.train_config import DEFAULT_TASK, read_train_config

PARAMS = (
    Param("task", DEFAULT_TASK, "Registered name of the task."),
    Param("seed", 0, "Decides the start of every episode."),
    Param("device", "cpu", "cpu, cuda or cuda:N."),
    Param("config", "", "YAML file of differences; its section task applies."),
    Param("episodes", 0, "End after so many episodes, with their mean return; 0 goes on until stopped."),
    Param("real_time_factor", 1.0, "Simulated control steps per real one; 0 runs as fast as possible."),
    Param(
        "lockstep",
        False,
        "Let the world wait for the answer to its state; commands without a stamp may be a step late.",
    ),
    Param("lockstep_timeout_s", 2.0, "Step without a command when no answer comes for so long [s]."),
    Param(
        "command_timeout_s",
        0.5,
        "Hold when no command has come for so long, of simulated time, after the end of the last one [s]; "
        "0 follows the last one for ever.",
    ),
    Param(
        "runner",
        "",
        "Node name of a policy_runner to arm at the start of every episode; empty: nobody is armed.",
    ),
    Param("publish_clock", False, "Publish simulated time on /clock, and stamp everything with it."),
    *camera.PARAMS,
)
NEWEST = QoSProfile(depth=1)
NEWEST_BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
ARM_RETRY_S = 0.05
REPEAT_S = 0.02
"""While the world stands still its state is published again and again: sensors do not fall silent."""


class Stopped(Exception):  # noqa: N818 (asked for, so not an error)
    """The node was asked to end."""


class SimNode(Node):
    """A simulated robot; `run` is its main loop."""

    def __init__(self, stop: threading.Event) -> None:
        """Build the simulation. Raises ParameterError, UnknownTaskError, ConfigError, DeviceError."""
        super().__init__("sim_node", automatically_declare_parameters_from_overrides=True)
        self._params = declare_params(self, PARAMS)
        for name in ("episodes", "real_time_factor", "lockstep_timeout_s", "command_timeout_s"):
            if not self._params[name] >= 0:
                raise ParameterError(f"parameter {name}: must be >= 0, got {self._params[name]}")
        self._stop = stop
        self._env = self._make_env()
        self._action_spec = self._env.task.action
        self._target: Targets | None = None
        self._last_q: Targets | None = None
        """Where the joints stood before the last control step of this episode."""
        self._watchdog = CommandWatchdog(
            timeout_s=self._params["command_timeout_s"], control_dt_s=self._env.control_dt_s
        )
        self._answered_ns = -1
        """Stamp of the state that the newest command answers; of its arrival where it has none."""
        self._reset_asked = False
        self._sim_time_s = 0.0
        self._num_steps = 0

        self._cloud_publisher = self.create_publisher(PointCloud2, "points", NEWEST_BEST_EFFORT)
        self._camera = self._make_camera()
        self._joints_publisher = self.create_publisher(JointState, "joint_states", NEWEST_BEST_EFFORT)
        self._transforms = TransformPublisher(self)
        self._goal_publisher = self.create_publisher(PoseStamped, "~/goal", NEWEST)
        self._shapes_publisher = self.create_publisher(MarkerArray, "~/shapes", NEWEST)
        self._clock_publisher = (
            self.create_publisher(ClockMessage, "/clock", NEWEST_BEST_EFFORT)
            if self._params["publish_clock"]
            else None
        )
        self.create_subscription(JointTrajectory, "~/joint_trajectory", self._on_command, NEWEST)
        self.create_subscription(Float64MultiArray, "~/commands", self._on_command, NEWEST)
        self.create_subscription(JointState, "~/joint_command", self._on_command, NEWEST)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(1.0, self._publish_diagnostics, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.create_service(Trigger, "~/reset", self._on_reset)
        runner = self._params["runner"]
        self._arm_client = self.create_client(SetBool, f"{runner}/arm") if runner else None
        transport = transport_of(get_rmw_implementation_identifier(), os.environ)
        if transport.warning:
            self.get_logger().warning(transport.warning)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)

    def run(self) -> list[float]:
        """Play episodes until enough were played or the node is stopped; returns their returns."""
        returns: list[float] = []
        self._env.reset()
        try:
            while not self._params["episodes"] or len(returns) < self._params["episodes"]:
                if self._camera is not None:
                    self._camera.cut()
                if self._arm_client is not None:
                    self._arm(self._arm_client)
                episode_return = self._play_episode()
                if episode_return is not None:
                    returns.append(episode_return)
                    self.get_logger().info(f"episode {len(returns)}: return {episode_return:.3f}")
        except Stopped:
            pass
        if returns:
            mean = sum(returns) / len(returns)
            self.get_logger().info(f"mean return {mean:.3f} over {len(returns)} episodes")
        return returns

    def _make_env(self) -> Env:
        config = read_train_config({"task": self._params["task"]}, config_path=self._params["config"])
        return make(
            config.task,
            seed=self._params["seed"],
            device=self._params["device"],
            requires_grad=False,
            **config.task_options,
        )

    def _make_camera(self) -> camera.CameraPublisher | None:
        config = camera.camera_config(self._params)
        if config is None:
            return None
        scene, device = self._env.scene(0), str(self._env.device)
        return camera.CameraPublisher(self, config, scene, points=self._cloud_publisher, device=device)

    # ---- the world -----------------------------------------------------------------------------------------

    def _play_episode(self) -> float | None:
        """Step until the episode ends and return its return, or None when it was reset before."""
        self._target, self._last_q, self._reset_asked = None, None, False
        self._watchdog.rest()
        period_s = self._period_s()
        episode_return, next_step_s = 0.0, time.monotonic()
        waits_for_runner = self._arm_client is not None  # an episode begins with its first command
        while True:
            shown_ns = self._show_state()
            next_step_s = max(next_step_s + period_s, time.monotonic() - period_s)  # no burst after a stall
            if self._params["lockstep"] or waits_for_runner:
                self._await_answer(shown_ns)
                waits_for_runner = False
            self._listen(until_s=next_step_s)
            if self._reset_asked:
                self._env.reset()
                return None
            reward, done = self._step()
            episode_return += reward
            if done:
                return episode_return

    @torch.no_grad()
    def _step(self) -> tuple[float, bool]:
        """Move towards the target, or hold without one."""
        env, spec = self._env, self._action_spec
        joint_q = env.joint_q[0].cpu().double().numpy()
        if self._watchdog.step():
            self._target = holding_target(joint_q, spec)
            self.get_logger().warning(
                f"no command for {self._params['command_timeout_s']:g} s: holding; "
                f"{self._watchdog.timeouts} times so far"
            )
        target = holding_target(joint_q, spec) if self._target is None else self._target
        action = torch.from_numpy(action_towards(target, joint_q, spec))
        result = env.step(action[None].to(env.device))
        self._num_steps += 1
        self._last_q = joint_q
        return float(result.reward[0]), bool(result.terminated[0] | result.truncated[0])

    def _period_s(self) -> float:
        """Wall time of one control step; none when as fast as possible."""
        factor = self._params["real_time_factor"]
        return self._env.control_dt_s / factor if factor > 0 else 0.0

    # ---- what others see of it -----------------------------------------------------------------------------

    def _show_state(self) -> int:
        """Publish goal, joints and cloud with one stamp and return it [ns]."""
        stamp = self._next_stamp()
        scene = self._env.scene(0)
        joint_q = self._env.joint_q[0].cpu().numpy()
        goal = self._env.goal_position
        if goal is not None:  # first: what follows asks for an answer
            self._goal_publisher.publish(messages.goal_message(goal[0].cpu().numpy(), scene.frame, stamp))
        joints = messages.joint_state_message(
            self._env.joint_names, joint_q, self._joint_velocity(joint_q), stamp
        )
        self._joints_publisher.publish(joints)
        self._transforms.publish(scene, stamp)
        self._show_cloud(scene, stamp)
        if self._shapes_publisher.get_subscription_count() > 0:
            self._shapes_publisher.publish(messages.shapes_message(scene, stamp))
        if self._clock_publisher is not None:  # last: whose timer it wakes finds the new state
            self._clock_publisher.publish(ClockMessage(clock=stamp))
        return _nanoseconds(stamp)

    def _joint_velocity(self, joint_q: NDArray[np.float32]) -> NDArray[np.float32]:
        """What physics says; of joints that actions displace, evenly within a step, by how much that was."""
        if self._action_spec.mode != "delta_position":
            return self._env.joint_qd[0].cpu().numpy()
        if self._last_q is None:
            return np.zeros_like(joint_q)
        return ((joint_q - self._last_q) / self._env.control_dt_s).astype(np.float32)

    def _show_cloud(self, scene: Scene, stamp: Time) -> None:
        if self._camera is None:
            cloud = messages.cloud_message(scene, stamp)
            if cloud.width:
                self._cloud_publisher.publish(cloud)
        elif self._params["lockstep"]:
            self._camera.film_standing(scene, stamp, round(1e9 * self._num_steps * self._env.control_dt_s))
        else:
            self._camera.film(scene, stamp)

    def _publish_diagnostics(self) -> None:
        timeouts = self._watchdog.timeouts
        status = DiagnosticStatus(
            level=DiagnosticStatus.WARN if timeouts else DiagnosticStatus.OK,
            name=f"{self.get_fully_qualified_name()}: commands",
            message=f"held {timeouts} times for want of a command",
            hardware_id=self._params["task"],
            values=[KeyValue(key="command_timeouts", value=str(timeouts))],
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics_publisher.publish(message)

    def _next_stamp(self) -> Time:
        if self._clock_publisher is None:
            return self.get_clock().now().to_msg()
        self._sim_time_s += self._env.control_dt_s
        seconds = math.floor(self._sim_time_s)
        return Time(sec=seconds, nanosec=int(1e9 * (self._sim_time_s - seconds)))

    # ---- what others say -----------------------------------------------------------------------------------

    def _on_command(self, message: JointTrajectory | Float64MultiArray | JointState) -> None:
        try:
            self._target = target_of(message, self._action_spec)
        except CommandError as error:
            self.get_logger().warning(f"command ignored: {error}", throttle_duration_sec=1.0)
            return
        self._watchdog.heard(lasts_s=duration_of(message))
        header = getattr(message, "header", None)
        stamp_ns = _nanoseconds(header.stamp) if header is not None else 0
        self._answered_ns = stamp_ns or self.get_clock().now().nanoseconds

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._reset_asked = True
        response.success, response.message = True, "a new episode begins"
        return response

    def _await_answer(self, shown_ns: int) -> None:
        """Let time pass but nothing move until a command answers the state that was shown at `shown_ns`."""
        deadline_s = time.monotonic() + self._params["lockstep_timeout_s"]
        self._target = None

        def answered() -> bool:
            return (self._target is not None and self._answered_ns >= shown_ns) or self._reset_asked

        while not answered():
            if time.monotonic() > deadline_s:
                self._target = None
                self.get_logger().warning(
                    "no command came in time; going on without one", throttle_duration_sec=5.0
                )
                return
            self._listen(until_s=time.monotonic() + REPEAT_S, enough=answered)
            if not answered():
                self._show_state()

    def _arm(self, client: Any) -> None:
        """Have the runner take command of the robot as it stands: first away from the last episode's end."""
        self.get_logger().info(f"waiting for {client.srv_name}", once=True)
        for wanted in (False, True):
            while not self._call_arm(client, wanted):
                self._pass_time(ARM_RETRY_S)

    def _call_arm(self, client: Any, wanted: bool) -> bool:
        if not client.service_is_ready():
            return False
        future = client.call_async(SetBool.Request(data=wanted))
        give_up_s = time.monotonic() + 2.0
        while not future.done() and time.monotonic() < give_up_s:
            self._pass_time(REPEAT_S)
        return future.done() and future.result().success

    def _pass_time(self, duration_s: float) -> None:
        self._show_state()
        self._listen(until_s=time.monotonic() + duration_s)

    def _listen(self, *, until_s: float, enough: Callable[[], bool] = lambda: False) -> None:
        """Answer callbacks until the time has come or `enough` turns true, and one that waits in any case."""
        self._executor.spin_once(timeout_sec=0.0)
        while not enough() and (left_s := until_s - time.monotonic()) > 0.0:
            self._raise_if_stopped()
            self._executor.spin_once(timeout_sec=min(left_s, 0.1))
        self._raise_if_stopped()

    def _raise_if_stopped(self) -> None:
        if self._stop.is_set():
            raise Stopped


def _nanoseconds(stamp: Time) -> int:
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def main(args: list[str] | None = None) -> int:
    """Run the node until a signal or the last episode; returns 0.

    Returns 2 for bad input, 3 without the device, 1 where the system refuses a file.
    """
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    faulthandler.register(signal.SIGUSR1)  # `kill -USR1` tells where every thread is
    show_log()
    stop = threading.Event()
    on_stop_signal(stop.set)
    code = 0
    try:
        node = SimNode(stop)
        node.run()
        node.destroy_node()
    except (ParameterError, UnknownTaskError, ConfigError) as error:
        sys.stderr.write(f"sim_node: {error}\n")
        code = 2
    except DeviceError as error:
        sys.stderr.write(f"sim_node: {error}\n")
        code = 3
    except OSError as error:
        sys.stderr.write(f"sim_node: {error}\n")
        code = 1
    ignore_stop_signals()
    rclpy.try_shutdown()
    return code


if __name__ == "__main__":
    sys.exit(main())
