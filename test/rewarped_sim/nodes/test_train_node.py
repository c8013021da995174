import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.action import ActionClient
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rewarped_msgs.action import Train
from rewarped_msgs.msg import TrainingStatus
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import SetBool, Trigger
from visualization_msgs.msg import Marker, MarkerArray

from rewarped_sim import make
from rewarped_sim.nodes.train_node import TrainNode

MODULE = "rewarped_sim.nodes.train_node"
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


@pytest.fixture
def train(start, tiny_config, tmp_path):
    """Start a run that would go on for a very long time."""

    def begin(**parameters):
        return start(
            MODULE, **({"config": tiny_config, "out_dir": tmp_path / "run", "epochs": 100_000} | parameters)
        )

    return begin


def newest_checkpoint(folder):
    return max((folder / "checkpoints").glob("checkpoint_*.pt")).name


@pytest.mark.parametrize(
    "numbers",
    [[signal.SIGINT], [signal.SIGINT, signal.SIGINT], [signal.SIGTERM]],
    ids=["once", "twice", "term"],
)
def test_a_signal_saves_a_checkpoint_and_ends_well(train, probe, tmp_path, numbers):
    process = train()
    probe.listen(TrainingStatus, "/train_node/status")
    probe.wait_for_message("/train_node/status", lambda status: status.epoch >= 1)
    for number in numbers:
        process.send(number)
        time.sleep(0.05)
    assert process.wait() == 0
    assert "checkpoint saved" in process.log
    assert "Traceback" not in process.log
    last = process.log.split("stopped after epoch ")[1].split(";")[0]
    assert newest_checkpoint(tmp_path / "run") == f"checkpoint_{int(last):06d}.pt"


def test_a_run_can_be_watched_paused_saved_and_exported(train, probe, tmp_path):
    train()
    probe.listen(TrainingStatus, "/train_node/status")
    probe.listen(PointCloud2, "/train_node/particles", BEST_EFFORT)
    probe.listen(MarkerArray, "/train_node/shapes")
    probe.listen(DiagnosticArray, "/diagnostics")

    status = probe.wait_for_message("/train_node/status", lambda status: status.epoch >= 2)
    assert (status.task, status.algo, status.num_envs) == ("rolling_flat_small", "sapo", 2)
    assert status.out_dir == str(tmp_path / "run")
    assert status.env_steps == status.epoch * 5 * 2
    cloud = probe.wait_for_message("/train_node/particles")
    points = np.frombuffer(bytes(cloud.data), np.float32).reshape(cloud.width, 4)[:, :3]
    assert cloud.header.frame_id == "world"
    assert points.shape == (250, 3) and points.min() > 0.0 and points.max() < 1.0
    shapes = probe.wait_for_message("/train_node/shapes")
    added = {marker.ns for marker in shapes.markers if marker.action == Marker.ADD}
    assert added == {"pin", "handle", "floor"}
    health = probe.wait_for_message("/diagnostics", lambda message: message.status)
    assert health.status[0].name == "/train_node: training"

    assert probe.call(SetBool, "/train_node/pause", SetBool.Request(data=True)).success
    paused = probe.wait_for_message(
        "/train_node/status", lambda status: status.state == TrainingStatus.STATE_PAUSED
    )
    saved = probe.call(Trigger, "/train_node/checkpoint", Trigger.Request())
    assert saved.success and saved.message.endswith(f"checkpoint_{paused.epoch:06d}.pt")
    exported = probe.call(Trigger, "/train_node/export", Trigger.Request())
    assert exported.success and exported.message == str(tmp_path / "run" / "bundle")
    assert (tmp_path / "run" / "bundle" / "policy.onnx").is_file()
    assert probe.call(SetBool, "/train_node/pause", SetBool.Request(data=False)).success
    probe.wait_for_message("/train_node/status", lambda status: status.epoch > paused.epoch)


def test_what_the_last_run_showed_does_not_stay_among_the_next_ones(probe):
    """The second goal is of another task; RViz keeps markers until it is told not to."""
    node, shown = TrainNode(), []
    node._shapes_publisher = SimpleNamespace(publish=shown.append, get_subscription_count=lambda: 1)
    for task in ("rolling_flat_small", "cartpole"):
        env = make(task, requires_grad=False)
        env.reset()
        node.begin(SimpleNamespace(goal=None))
        for _ in range(2):
            node._scene_wanted.set()
            node.on_step(env)
            node._publish_scene()
    node.destroy_node()
    actions = [[marker.action for marker in message.markers] for message in shown]
    assert [action[0] for action in actions] == [Marker.DELETEALL, Marker.ADD, Marker.DELETEALL, Marker.ADD]
    assert all(set(action[1:]) == {Marker.ADD} for action in actions)


def test_a_node_that_was_destroyed_offers_no_action(probe):
    node = TrainNode()
    client = ActionClient(probe.node, Train, "/train_node/train")
    probe.wait_for(client.server_is_ready, "the action server")
    node.destroy_node()
    probe.wait_for(lambda: not client.server_is_ready(), "its end")


def test_a_run_shows_itself_also_where_others_follow_a_simulated_clock(train, probe):
    """Nobody publishes one: timers that followed it would never ring."""
    train(use_sim_time="true")
    probe.listen(PointCloud2, "/train_node/particles", BEST_EFFORT)
    probe.listen(DiagnosticArray, "/diagnostics")
    assert probe.wait_for_message("/train_node/particles").width == 250
    probe.wait_for_message("/diagnostics", lambda message: message.status)


def test_it_trains_for_goals_one_at_a_time(start, probe, tiny_config, tmp_path):
    process = start(MODULE, wait_for_goal="true")
    client = ActionClient(probe.node, Train, "/train_node/train")
    probe.wait_for(client.server_is_ready, "the action server")
    feedback = []

    def send(**fields):
        future = client.send_goal_async(
            Train.Goal(config=tiny_config, **fields), feedback_callback=feedback.append
        )
        probe.wait_for(future.done, "the answer to a goal")
        return future.result()

    assert not send(task="roling_flat").accepted
    handle = send(out_dir=str(tmp_path / "first"), epochs=100_000)
    assert handle.accepted
    assert not send(out_dir=str(tmp_path / "second")).accepted
    probe.wait_for(lambda: any(f.feedback.status.epoch >= 1 for f in feedback), "feedback")
    probe.wait_for(handle.cancel_goal_async().done, "the answer to a cancellation")
    outcome = handle.get_result_async()
    probe.wait_for(outcome.done, "the result")
    result = outcome.result().result
    assert not result.success
    assert result.checkpoint.startswith(str(tmp_path / "first" / "checkpoints"))

    handle = send(out_dir=str(tmp_path / "third"), epochs=1)
    assert handle.accepted
    outcome = handle.get_result_async()
    probe.wait_for(outcome.done, "the result")
    result = outcome.result().result
    assert result.success and result.epoch == 1
    assert result.bundle == str(tmp_path / "third" / "bundle")
    process.send(signal.SIGINT)
    assert process.wait() == 0


def test_a_goal_whose_paths_cannot_be_followed_is_refused_and_the_node_goes_on_listening(start, probe):
    process = start(MODULE, wait_for_goal="true")
    client = ActionClient(probe.node, Train, "/train_node/train")
    probe.wait_for(client.server_is_ready, "the action server")
    for resume, reason in (
        ("~no_such_user/run", "~no_such_user/run: there is no such user's home folder"),
        ("x" * 300, "cannot be read: File name too long"),
    ):
        future = client.send_goal_async(Train.Goal(resume=resume))
        probe.wait_for(future.done, "the answer to a goal")
        assert not future.result().accepted
        assert reason in process.log
    answer = probe.call(SetBool, "/train_node/pause", SetBool.Request(data=True))
    assert (answer.success, answer.message) == (False, "no run is training now")


def test_a_stopped_node_still_answers_its_goal(start, probe, tiny_config, tmp_path):
    process = start(MODULE, wait_for_goal="true")
    client = ActionClient(probe.node, Train, "/train_node/train")
    probe.wait_for(client.server_is_ready, "the action server")
    probe.listen(TrainingStatus, "/train_node/status")
    goal = Train.Goal(config=tiny_config, out_dir=str(tmp_path / "run"), epochs=100_000)
    future = client.send_goal_async(goal)
    probe.wait_for(future.done, "the answer to a goal")
    outcome = future.result().get_result_async()
    probe.wait_for_message("/train_node/status", lambda status: status.epoch >= 1)
    process.send(signal.SIGINT)
    probe.wait_for(outcome.done, "the result")
    assert outcome.result().status == GoalStatus.STATUS_ABORTED
    assert outcome.result().result.checkpoint.startswith(str(tmp_path / "run" / "checkpoints"))
    assert process.wait() == 0


@pytest.mark.parametrize(
    ("parameters", "code", "message"),
    [
        ({"task": "roling_flat"}, 2, "did you mean 'rolling_flat'"),
        ({"epoch": 3}, 2, "unknown parameter 'epoch'; did you mean 'epochs'"),
        ({"epochs": "many"}, 2, "parameter epochs: expected a whole number, got 'many'"),
        ({"publish_rate_hz": 0}, 2, "parameter publish_rate_hz: must be > 0"),
        ({"publish_rate_hz": ".nan"}, 2, "parameter publish_rate_hz: must be > 0 and at most 1000, got nan"),
        ({"device": "cuda:99"}, 3, "device 'cuda:99'"),
        ({"out_dir": "/proc/run"}, 2, "out_dir /proc/run cannot be written"),
        ({"resume": "true"}, 2, "no earlier run under"),
    ],
)
def test_bad_parameters_are_named_in_one_line(start, parameters, code, message):
    process = start(MODULE, **parameters)
    assert process.wait() == code
    assert message in process.log.splitlines()[-1]
    assert "Traceback" not in process.log
