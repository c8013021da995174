"""The lifecycle node `policy_runner`: messages in, `Controller` in the middle, messages out.

    unconfigured   no policy
    inactive       the policy is vetted and loaded, inputs are received, nothing is commanded
    active         the control loop ticks; commands flow once `~/arm` was called

The executor is single-threaded: callbacks and ticks never overlap. Clouds are processed, and bundles are
vetted, in threads beside it; the network runs in another one, for which a tick waits no longer than its
budget. Ticks come by a clock that nobody sets, or by /clock where `use_sim_time` says so; staleness is judged
by the former alone.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, JumpThreshold, TimeJump
from rclpy.clock_type import ClockType
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import get_rmw_implementation_identifier
from rewarped_msgs.srv import LoadPolicy
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import SetBool, Trigger

from policy_runner.bundle import BundleError
from policy_runner.contract import ContractError
from policy_runner.controller import Controller
from policy_runner.inference import InferenceThread
from policy_runner.inputs import CloudSample
from policy_runner.limiter import LimitError
from policy_runner.nodes import messages
from policy_runner.nodes.cloud_input import CloudInput
from policy_runner.nodes.command_output import CommandOutput
from policy_runner.nodes.debug_output import DebugOutput
from policy_runner.nodes.parameters import (
    declare_settings,
    read_home_position,
    read_limits,
    read_settings,
)
from policy_runner.nodes.policy_loader import PolicyLoader
from policy_runner.nodes.recorder import NoRecorder, Recorder, open_recorder
from policy_runner.nodes.robot_input import RobotInput
from policy_runner.nodes.status import runner_status
from policy_runner.quiet_process import keep_ticks_short
from policy_runner.realtime import go_first, take_turns
from policy_runner.safety import ArmError, Mode
from policy_runner.settings import RunnerSettings, SettingsError
from policy_runner.transport import transport_of
from policy_runner.urdf import UrdfError

NEWEST = QoSProfile(depth=1)
NEWEST_BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)

CLOCK_JUMP_S = 1.0
"""/clock may skip this much before that is a jump [s]; going back at all is one."""

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class PolicyRunner(LifecycleNode):
    """Runs a policy bundle on live clouds and joint states; see the module for its states."""

    def __init__(self, **node_options: Any) -> None:
        """Declare parameters and offer services; nothing is loaded before `configure`.

        node_options: as for `rclpy.node.Node`.

        Raises:
            SettingsError: a parameter is unknown or has a bad value.
        """
        super().__init__(
            "policy_runner", automatically_declare_parameters_from_overrides=True, **node_options
        )
        declare_settings(self)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._settings = read_settings(self)
        self._transport = transport_of(get_rmw_implementation_identifier(), os.environ)
        self._state = "unconfigured"
        self._problem = ""
        self._controller: Controller | None = None
        self._network: InferenceThread | None = None
        self._clouds: CloudInput | None = None
        self._robot: RobotInput | None = None
        self._commands: CommandOutput | None = None
        self._debug: DebugOutput | None = None
        self._recorder: Recorder = NoRecorder()
        self._timer: Any = None
        self._shown_cloud: CloudSample | None = None
        self._shown_status: tuple[object, ...] = ()
        self._arm_pending = False
        self._stop_latched = False
        self._loader = PolicyLoader(self._settings)
        self._loading = False
        self._status_publisher = self.create_publisher(DiagnosticStatus, "~/status", LATCHED)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._points_publisher = self.create_publisher(PointCloud2, "~/policy_points", NEWEST_BEST_EFFORT)
        self._steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._publish_diagnostics, clock=self._steady_clock)
        jumps = JumpThreshold(
            min_forward=Duration(seconds=CLOCK_JUMP_S), min_backward=Duration(nanoseconds=-1)
        )
        self._jump_handle = self.get_clock().create_jump_callback(jumps, post_callback=self._on_clock_jump)
        self.create_service(SetBool, "~/arm", self._on_arm)
        self.create_service(Trigger, "~/stop", self._on_stop)
        self.create_service(Trigger, "~/reset_stop", self._on_reset_stop)
        load_policy: Any = self._on_load_policy  # rclpy awaits coroutines, though its types do not say so
        beside = ReentrantCallbackGroup()  # while one is being loaded, others are called and refused
        self.create_service(LoadPolicy, "~/load_policy", load_policy, callback_group=beside)
        self._publish_status()

    def start(self) -> bool:
        """Configure and activate, where `autostart` says so; return whether that went well."""
        if not self._settings.autostart:
            return True
        return self.trigger_configure() == SUCCESS and self.trigger_activate() == SUCCESS

    def finish(self) -> None:
        """Bring the robot to rest and forget the policy, unless somebody had the node shut down already."""
        if self._state != "finalized":
            self.trigger_shutdown()

    # lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Vet and load the policy and subscribe to its inputs; fails with the reason in `~/status`."""
        try:
            self._settings = read_settings(self)
            self._configure(self._settings)
        except (SettingsError, LimitError, UrdfError, BundleError, ContractError) as error:
            self._take_down()
            self._enter("unconfigured", problem=str(error))
            self.get_logger().error(f"not configured: {error}")
            return FAILURE
        self._enter("inactive")
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the control loop; nothing is commanded before `~/arm`."""
        assert self._controller is not None
        # nor does it, after a stop, once that is reset: then it takes a call of ~/arm
        self._arm_pending = self._settings.arm_on_activate and not self._stopped
        if denied := go_first(self._settings.realtime_priority):
            self.get_logger().info(denied, once=True)
        # the system's clock may be set at any time: back, and a timer that follows it would be silent for long
        by_sim_time = self.get_parameter("use_sim_time").value
        self._timer = self.create_timer(
            self._settings.control_dt_s(self._controller.contract),
            self._tick,
            clock=self.get_clock() if by_sim_time else self._steady_clock,
        )
        self._enter("active")
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Bring the robot to rest, then end the control loop."""
        self._come_to_rest()
        self._enter("inactive")
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Forget the policy."""
        self._take_down()
        self._enter("unconfigured")
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Bring the robot to rest and forget the policy."""
        self._come_to_rest()
        self._take_down()
        self._enter("finalized")
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Bring the robot to rest after an unforeseen error in a transition, and begin anew."""
        self._come_to_rest()
        self._take_down()
        self._enter("unconfigured", problem=f"an error in state {state.label!r}")
        return super().on_error(state)

    def _configure(self, settings: RunnerSettings) -> None:
        self._network = self._loader.load(settings.policy, settings)
        contract = self._network.contract
        self._commands = CommandOutput(self, contract, settings)
        self._debug = DebugOutput(self) if settings.debug_topics else None
        self._recorder = open_recorder(self, contract, settings)
        self._controller = self._recorder.controller(
            self._network,
            settings,
            user_limits=read_limits(self, settings, contract.action.joint_names),
            home_position=read_home_position(self),
        )
        if self._stop_latched:
            self._controller.stop()
        self._robot = RobotInput(self, self._controller, self._recorder)
        if contract.point_cloud is not None:
            self._clouds = CloudInput(self, contract, settings, self._recorder)
            if self._transport.warning:
                self.get_logger().warning(self._transport.warning, once=True)
        self.get_logger().info(f"loaded policy {contract.policy_name!r} for task {contract.task!r}")

    def _come_to_rest(self) -> None:
        """Publish at the control rate until the command holds and is one of rest, then end the control loop."""
        if self._timer is None or self._controller is None:
            return
        self._timer.cancel()
        self._arm_pending = False
        self._controller.disarm()
        period_s = self._settings.control_dt_s(self._controller.contract)
        self._tick()  # so that the last command holds, also where the policy stood still anyway
        time.sleep(period_s)
        while not self._controller.at_rest:
            self._tick()
            time.sleep(period_s)
        assert self._commands is not None
        self._commands.wait_until_delivered()
        self._controller.release()
        self.destroy_timer(self._timer)
        self._timer = None
        take_turns()

    def _take_down(self) -> None:
        inputs, outputs = (self._robot, self._clouds), (self._commands, self._debug)
        for part in (*inputs, *outputs, self._network, self._recorder):
            if part is not None:
                part.close()
        self._robot = self._clouds = self._commands = self._debug = self._network = None
        self._recorder = NoRecorder()
        self._stop_latched, self._controller = self._stopped, None

    def _enter(self, state: str, *, problem: str = "") -> None:
        self._state, self._problem = state, problem
        self._publish_status()

    # control loop

    def _tick(self) -> None:
        controller = self._controller
        assert controller is not None and self._commands is not None
        cloud = self._look_around(controller)
        if self._arm_pending:
            self._try_pending_arm(controller)
        command = controller.tick()
        if command is not None:
            self._recorder.message(self._commands.name, self._commands.publish(command))
        if cloud is not None and cloud is not self._shown_cloud:
            self._show_cloud(cloud, controller)
        if self._debug is not None and controller.mode is Mode.RUNNING:
            self._debug.show(controller.acting)
        self._publish_status()

    def _look_around(self, controller: Controller) -> CloudSample | None:
        """Give the controller what it does not get by messages of this thread; return the newest cloud."""
        if self._commands is not None:
            controller.set_topic(self._commands.topic())
        cloud = self._clouds.newest() if self._clouds is not None else None
        if cloud is not None:
            controller.set_cloud(cloud)
        return cloud

    def _on_clock_jump(self, _: TimeJump) -> None:
        if self._controller is not None:
            self._controller.note_clock_jump()

    def _try_pending_arm(self, controller: Controller) -> None:
        try:
            controller.arm()
        except ArmError:
            return  # inputs are not there yet; the next tick tries again
        self._arm_pending = False

    def _show_cloud(self, cloud: CloudSample, controller: Controller) -> None:
        self._shown_cloud = cloud
        spec = controller.contract.point_cloud
        if spec is not None and self._points_publisher.get_subscription_count() > 0:
            message = messages.point_cloud(cloud.points, frame=spec.frame, stamp_ns=cloud.stamp_ns)
            self._points_publisher.publish(message)

    # services

    def _on_arm(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._arm_pending = False
        if self._controller is None or self._state != "active":
            response.success, response.message = False, f"the node is {self._state}, not active"
        elif request.data:
            self._look_around(self._controller)  # simulated time may stand still, and no tick have come
            try:
                self._controller.arm()
                response.success, response.message = True, "armed"
            except ArmError as error:
                response.success, response.message = False, f"not armed: {error}{self._input_problems()}"
        else:
            self._controller.disarm()
            response.success, response.message = True, "disarmed; holding"
        self.get_logger().info(response.message)
        self._publish_status()
        return response

    @property
    def _stopped(self) -> bool:
        return self._stop_latched if self._controller is None else self._controller.mode is Mode.STOPPED

    def _on_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._arm_pending, self._stop_latched = False, True
        if self._controller is not None:
            self._controller.stop()
        response.success, response.message = True, "stopped"
        self.get_logger().warning(response.message)
        self._publish_status()
        return response

    def _on_reset_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._stopped
        response.message = "may be armed again" if response.success else "not stopped"
        self._stop_latched = False
        if self._controller is not None:
            self._controller.reset_stop()
        self._publish_status()
        return response

    async def _on_load_policy(
        self, request: LoadPolicy.Request, response: LoadPolicy.Response
    ) -> LoadPolicy.Response:
        """Vet a bundle beside the control loop; exchange the policy between two ticks if all is well."""
        if self._loading or self._controller is None:
            response.success = False
            response.message = "already loading a policy" if self._loading else "not configured"
        else:
            self._loading, controller = True, self._controller
            outcome = await self._loader.load_beside(request.path, self._settings, self.executor)
            self._loading = False
            response.success, response.message = self._exchange(outcome, controller)
        self._loader.note(response.success, response.message)
        self._recorder.remark(
            "load_policy", path=request.path, success=response.success, message=response.message
        )
        response.policy_name = self._controller.contract.policy_name if self._controller is not None else ""
        self.get_logger().info(f"load_policy {request.path[:200]!r}: {response.message}")
        return response

    def _exchange(
        self, outcome: InferenceThread | Exception | None, controller: Controller
    ) -> tuple[bool, str]:
        if not isinstance(outcome, InferenceThread):
            return False, f"refused: {outcome}"
        if self._controller is not controller:  # for which it was asked
            outcome.close()
            return False, "refused: the node was cleaned up meanwhile"
        try:
            controller.swap(outcome)
        except ContractError as error:
            outcome.close()
            return False, f"refused: {error}"
        if self._network is not None:
            self._network.close()
        self._network = outcome
        self._publish_status()
        return True, f"running {outcome.contract.policy_name!r}"

    def _on_set_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        """Refuse values that make no sense, and changes that could not take effect now."""
        ours = {p.name: p.value for p in parameters if p.name != "use_sim_time"}
        if ours and self._controller is not None:
            return SetParametersResult(successful=False, reason="read on configure: clean up first")
        try:
            read_settings(self, changes=ours)
        except SettingsError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    # status

    def _input_problems(self) -> str:
        """Say what often is why an input is stale: nobody sends it, or what was sent was dropped."""
        sources = [source for source in (self._clouds, self._robot) if source is not None]
        topics = (source.topic for source in sources)
        silent = [f"; nobody publishes {topic}" for topic in topics if not self.count_publishers(topic)]
        drops = [f"; last dropped {source.last_drop}" for source in sources if source.last_drop]
        return "".join(silent + drops)

    def _status(self) -> DiagnosticStatus:
        return runner_status(
            name=self.get_fully_qualified_name(),
            state=self._state,
            problem=self._problem,
            controller=self._controller,
            clouds=self._clouds,
            robot=self._robot,
            loads=self._loader.diagnosis,
            transport=self._transport.found,
            recording=self._recorder.status(),
        )

    def _publish_status(self) -> None:
        """Publish `~/status` where it says something new, and diagnostics without waiting for their second."""
        controller = self._controller
        news = (self._state, self._problem, *((controller.mode, controller.reason) if controller else ()))
        if news != self._shown_status:
            self._shown_status = news
            status = self._status()
            self._status_publisher.publish(status)
            self._recorder.message("~/status", status)
            self._publish_diagnostics()
            self.get_logger().info(status.message)

    def _publish_diagnostics(self) -> None:
        message = DiagnosticArray(status=[self._status()])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics_publisher.publish(message)


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT, SIGTERM, SIGHUP or an unforeseen error; all bring the robot to rest first.

    Returns 0, 1 where the policy was refused at start, 2 where a parameter is wrong, or 4 after such an error.
    """
    denied = keep_ticks_short()
    stop = threading.Event()
    endings = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # else nohup says that terminals may close
        endings.append(signal.SIGHUP)
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    faulthandler.register(signal.SIGUSR1)  # `kill -USR1` tells where every thread is
    for number in endings:  # rclpy's own handlers would end publishing at once
        signal.signal(number, lambda *_: stop.set())
    try:
        node = PolicyRunner()
    except SettingsError as error:
        print(f"policy_runner: {error}", file=sys.stderr)
        rclpy.shutdown()
        return 2
    if denied:
        node.get_logger().info(denied)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        code = 0 if node.start() else 1
        while code == 0 and not stop.is_set():
            executor.spin_once(timeout_sec=0.1)
    except Exception:
        node.get_logger().fatal(traceback.format_exc())
        code = 4
    node.finish()
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown()
    for number in endings:  # else a late one kills the interpreter while it ends
        signal.signal(number, signal.SIG_IGN)
    return code


if __name__ == "__main__":
    sys.exit(main())
