"""The node `train_node`: one training run, or one for each action goal, seen and steered through ROS.

Training runs in the main thread, the executor in a second one. Nothing that ROS does makes a training step
wait: scenes are copied only when somebody subscribes, at most at the publish rate, and sent by the executor.

Under torchrun, rank 0 is the node; the others take part in its run and know no ROS.
"""

from __future__ import annotations

import faulthandler
import logging
import queue
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.action.server import ActionServer, CancelResponse, GoalResponse, ServerGoalHandle
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from rewarped_msgs.action import Train
from rewarped_msgs.msg import TrainingStatus
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import SetBool, Trigger
from visualization_msgs.msg import MarkerArray

from rewarped_sim.device_failure import DeviceLostError
from rewarped_sim.env import DeviceError, Env
from rewarped_sim.nodes import messages
from rewarped_sim.nodes.lifetime import ignore_stop_signals, on_stop_signal, spinning
from rewarped_sim.nodes.parameters import Param, ParameterError, declare_params
from rewarped_sim.nodes.transforms import TransformPublisher
from rewarped_sim.render import height_range
from rewarped_sim.run_control import RunControl, RunState, RunStatus
from rewarped_sim.scene import Scene
from rewarped_sim.train import BAD_INPUT, TrainResult, show_log, train
from rewarped_sim.train_config import TrainConfig, read_train_config
from sapo_learner.checkpoint import NotSavedError
from sapo_learner.parallel import Ranks, joined

PARAMS = (
    Param(
        "task",
        "",
        "Registered name of the task; empty means that of config or resume, else rolling_flat_small.",
    ),
    Param("algo", "", "Learning algorithm; empty means that of config or resume, else sapo."),
    Param("num_envs", 0, "Environments simulated side by side; 0 means the task's own number."),
    Param("seed", -1, "Of every random number generator; -1 means that of config or resume, else 0."),
    Param("device", "", "cpu, cuda or cuda:N; empty or auto means cuda where there is one, else cpu."),
    Param(
        "epochs", 0, "Epoch at which to end, those before a resume included; 0 means the task's own number."
    ),
    Param(
        "out_dir", "", "Folder for everything the run writes; empty means a new runs/<task>_<algo>_<seed>."
    ),
    Param(
        "resume",
        "",
        "true or latest continues the newest run, or the one in out_dir; or the folder of a run, or its checkpoint.",
    ),
    Param(
        "config",
        "",
        "YAML file of differences from the defaults, with sections run, task and one per algorithm.",
    ),
    Param("publish_rate_hz", 10.0, "Rate of ~/particles and ~/shapes, while somebody subscribes [Hz]."),
    Param("wait_for_goal", False, "Train for each goal of ~/train, until stopped, instead of once at start."),
)
MAX_PUBLISH_RATE_HZ = 1000.0
"""A timer without a period would take a core from the training."""
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
NEWEST_BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


@dataclass(frozen=True)
class Job:
    """A goal that was accepted, where its result goes, and the switches of its run."""

    goal: ServerGoalHandle
    result: Future
    control: RunControl


class TrainNode(Node):
    """Shows a training run on topics and takes orders for it from services; a `RunObserver`."""

    def __init__(self) -> None:
        """Declare parameters and offer everything; training starts elsewhere. Raises ParameterError."""
        super().__init__("train_node", automatically_declare_parameters_from_overrides=True)
        self.params = declare_params(self, PARAMS)
        if not 0.0 < self.params["publish_rate_hz"] <= MAX_PUBLISH_RATE_HZ:
            raise ParameterError(
                f"parameter publish_rate_hz: must be > 0 and at most {MAX_PUBLISH_RATE_HZ:g}, "
                f"got {self.params['publish_rate_hz']}"
            )
        self.control = RunControl()
        # no SimpleQueue: where a signal's handler outlasts the timeout of its `get`, that waits for ever
        self.jobs: queue.Queue[Job] = queue.Queue()
        self._accepting = bool(self.params["wait_for_goal"])
        self._goal: ServerGoalHandle | None = None
        self._status: RunStatus | None = None
        self._scene: Scene | None = None
        self._scene_wanted = threading.Event()
        self._color_range_m: tuple[float, float] | None = None

        self._status_publisher = self.create_publisher(TrainingStatus, "~/status", LATCHED)
        self._particles_publisher = self.create_publisher(PointCloud2, "~/particles", NEWEST_BEST_EFFORT)
        self._shapes_publisher = self.create_publisher(MarkerArray, "~/shapes", QoSProfile(depth=1))
        self._transforms = TransformPublisher(self)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Not the node's own clock: others may want it to follow a simulated one, which stands still without them.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0 / self.params["publish_rate_hz"], self._publish_scene, clock=steady)
        self.create_timer(1.0, self._publish_diagnostics, clock=steady)
        self.create_service(SetBool, "~/pause", self._on_pause)
        on_checkpoint: Any = self._on_checkpoint  # rclpy awaits coroutines, though its types do not say so
        on_export: Any = self._on_export
        self.create_service(Trigger, "~/checkpoint", on_checkpoint)
        self.create_service(Trigger, "~/export", on_export)
        on_accepted, on_goal, on_cancel = cast(
            "list[Any]", [self._on_accepted, self._on_goal, self._on_cancel]
        )
        self._action_server = ActionServer(
            self, Train, "~/train", on_accepted, goal_callback=on_goal, cancel_callback=on_cancel
        )

    def destroy_node(self) -> None:
        """Destroy the node and its action, which rclpy would go on offering to clients that nobody answers."""
        self._action_server.destroy()
        super().destroy_node()

    # ---- from the thread that trains -----------------------------------------------------------------------

    def on_status(self, status: RunStatus) -> None:
        """Publish a status, and give it as feedback of the goal in work."""
        self._status = status
        message = messages.status_message(status, self.get_clock().now().to_msg())
        self._status_publisher.publish(message)
        if self._goal is not None and self._goal.is_active:
            feedback: Any = Train.Feedback(status=message)
            self._goal.publish_feedback(feedback)

    def on_step(self, env: Env) -> None:
        """Copy the scene if the executor's thread has asked for one."""
        if self._scene_wanted.is_set():
            self._scene_wanted.clear()
            self._scene = env.scene(0)

    def begin(self, job: Job) -> None:
        """Show a goal's run from now on."""
        self._goal = job.goal
        self._scene = self._color_range_m = None

    def end(self, job: Job, result: Train.Result) -> None:
        """Answer a goal and accept the next one."""
        self._goal = None
        job.result.set_result(result)
        self._accepting = True

    def end_all(self) -> None:
        """Accept no more goals, and answer those that nobody will train for."""
        self._accepting = False
        while not self.jobs.empty():
            stopped = Train.Result(success=False, message="the node was stopped")
            self.jobs.get().result.set_result(stopped)

    # ---- from the executor's thread ------------------------------------------------------------------------

    def _publish_scene(self) -> None:
        scene, self._scene = self._scene, None
        if scene is not None:
            stamp = self.get_clock().now().to_msg()
            first = self._color_range_m is None
            self._color_range_m = self._color_range_m or height_range([scene])
            cloud = messages.colored_cloud_message(scene, stamp, self._color_range_m)
            self._particles_publisher.publish(cloud)
            self._transforms.publish(scene, stamp)
            self._shapes_publisher.publish(messages.shapes_message(scene, stamp, first=first))
        publishers = (self._particles_publisher, self._shapes_publisher)
        heard = any(publisher.get_subscription_count() > 0 for publisher in publishers)
        if heard or self._transforms.heard:
            self._scene_wanted.set()

    def _publish_diagnostics(self) -> None:
        if self._status is not None:
            stamp = self.get_clock().now().to_msg()
            name = self.get_fully_qualified_name()
            self._diagnostics_publisher.publish(messages.diagnostics_message(name, self._status, stamp))

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if not self._has_epochs_left():
            response.success, response.message = False, "no run is training now"
            return response
        (self.control.paused.set if request.data else self.control.paused.clear)()
        response.success = True
        response.message = "pausing after this epoch" if request.data else "training"
        return response

    def _has_epochs_left(self) -> bool:
        """Whether a run can pause, as far as is known: it is about to begin, or has not come to its results."""
        status = self._status
        if self._accepting:
            return False
        return status is None or status.state in (RunState.STARTING, RunState.TRAINING, RunState.PAUSED)

    async def _on_checkpoint(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return await self._ask("checkpoint", response)

    async def _on_export(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return await self._ask("export", response)

    async def _ask(self, job: str, response: Trigger.Response) -> Trigger.Response:
        """Hand a job to the run, which does it between two epochs, and wait without blocking the executor."""
        if self._status is None or self._status.state not in (RunState.TRAINING, RunState.PAUSED):
            response.success, response.message = False, "no run is training now"
            return response
        done: Future = Future(executor=self.executor)
        self.control.request(job).add_done_callback(done.set_result)
        answer: Any = await done
        error = answer.exception()
        response.success = error is None
        response.message = answer.result() if error is None else str(error)
        return response

    def _on_goal(self, goal: Train.Goal) -> GoalResponse:
        try:
            config_of_goal(goal)
        except Exception as error:  # whatever it was, the goal must be answered
            self.get_logger().error(f"goal rejected: {error}")
            return GoalResponse.REJECT
        if not self._accepting:
            self.get_logger().warning("goal rejected: a run is going on, or wait_for_goal is false")
            return GoalResponse.REJECT
        self._accepting = False
        return GoalResponse.ACCEPT

    def _on_cancel(self, _: ServerGoalHandle) -> CancelResponse:
        self.control.stop.set()
        return CancelResponse.ACCEPT

    async def _on_accepted(self, goal: ServerGoalHandle) -> Train.Result:
        job = Job(goal, Future(executor=self.executor), RunControl())
        # Here and not where the run begins: this thread hears of a cancellation, too, and after this.
        self.control, self._status = job.control, None
        self.jobs.put(job)
        result: Any = await job.result
        if goal.is_cancel_requested:
            goal.canceled()
        elif result.success:
            goal.succeed()
        else:
            goal.abort()
        return result


def config_of_goal(goal: Train.Goal) -> TrainConfig:
    """Read a goal as a configuration; empty and zero fields mean "not given". Raises what `train` raises."""
    return _config_of({**_fields_of(goal), "seed": goal.seed or None})


def _config_of(values: Mapping[str, Any]) -> TrainConfig:
    names = {field.name for field in fields(TrainConfig)} - {"resume"}
    known = {name: value for name, value in values.items() if name in names}
    return read_train_config(known, config_path=values["config"], resume=values["resume"])


def result_message(result: TrainResult) -> Train.Result:
    """Say how a run ended."""
    return Train.Result(
        success=not result.interrupted,
        message=result.message,
        out_dir=str(result.out_dir),
        checkpoint=str(result.checkpoint),
        bundle=str(result.bundle or ""),
        epoch=result.epoch,
        env_steps=result.env_steps,
        mean_return=result.policy_return,
        do_nothing_return=result.do_nothing_return,
    )


def _fields_of(message: Any) -> dict[str, Any]:
    return {name: getattr(message, name) for name in message.get_fields_and_field_types()}


def _train_once(node: TrainNode, control: RunControl, ranks: Ranks) -> int:
    seed = node.params["seed"]
    values = {**node.params, "seed": None if seed == -1 else seed}
    config = ranks.on_first(lambda: _config_of(values))
    train(config, observer=node, control=control, ranks=ranks)
    return 0


def _take_part(ranks: Ranks) -> int:
    """Train what rank 0 says, without a node; returns what `main` does."""
    show_log(logging.ERROR)
    control = RunControl()
    on_stop_signal(control.stop.set)

    def run() -> int:
        train(ranks.on_first(TrainConfig), control=control, ranks=ranks)
        return 0

    return _exit_code(run)


def _serve_goals(node: TrainNode, quit_: threading.Event) -> int:
    """Train for one goal after the other until asked to quit; a failure fails the goal, not the node."""
    node.get_logger().info("waiting for goals of ~/train")
    while not quit_.is_set():
        try:
            job = node.jobs.get(timeout=0.1)
        except queue.Empty:
            continue
        node.begin(job)
        if quit_.is_set():
            job.control.stop.set()
        try:
            config = config_of_goal(job.goal.request)
            result = result_message(train(config, observer=node, control=job.control))
        except Exception as error:  # whatever it was, the goal must be answered
            node.get_logger().error(f"{type(error).__name__}: {error}")
            result = Train.Result(success=False, message=f"{type(error).__name__}: {error}")
        node.end(job, result)
    node.end_all()
    return 0


def main(args: list[str] | None = None) -> int:
    """Run the node; SIGINT and SIGTERM save a checkpoint.

    Returns 0 when done or stopped, 2 for bad input, 3 for a missing device, 4 for one lost on the way, 1 when training
    failed otherwise.
    """
    with joined() as ranks:
        return _run_node(args, ranks) if ranks.is_first else _take_part(ranks)


def _run_node(args: list[str] | None, ranks: Ranks) -> int:
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    faulthandler.register(signal.SIGUSR1)  # `kill -USR1` tells where every thread is
    show_log()
    quit_ = threading.Event()
    try:
        node = TrainNode()
        if node.params["wait_for_goal"] and ranks.size > 1:
            raise ParameterError("parameter wait_for_goal: one run after the other takes one process")
    except ParameterError as error:
        return _end(error, 2)

    def stop() -> None:
        quit_.set()
        node.control.stop.set()

    on_stop_signal(stop)
    with spinning(node):
        code = _exit_code(
            lambda: (
                _serve_goals(node, quit_)
                if node.params["wait_for_goal"]
                else _train_once(node, node.control, ranks)
            )
        )
    ignore_stop_signals()
    rclpy.try_shutdown()
    return code


def _exit_code(run: Callable[[], int]) -> int:
    try:
        return run()
    except DeviceLostError as error:
        return _end(error, 4)
    except NotSavedError as error:
        return _end(error, 1)
    except BAD_INPUT as error:
        return _end(error, 2)
    except DeviceError as error:
        return _end(error, 3)
    except (RuntimeError, OSError) as error:
        return _end(error, 1)


def _end(error: Exception, code: int) -> int:
    sys.stderr.write(f"train_node: {error}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
