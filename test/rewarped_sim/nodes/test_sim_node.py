import signal

import numpy as np
import pytest
import torch
import yaml
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState, PointCloud2
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint
from untrained import untrained_bundle
from visualization_msgs.msg import MarkerArray

from policy_runner.bundle import load_bundle
from policy_runner.inference import Policy
from rewarped_sim import make
from sapo_learner.evaluate import Zero, evaluate

MODULE = "rewarped_sim.nodes.sim_node"
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
JOINTS = ["pin_x", "pin_z", "pin_yaw"]
START = [0.5, 0.2875, 0.0]
EPISODES = 3
PATIENCE = {
    "joint_state_timeout_s": 10.0,
    "cloud_timeout_s": 10.0,
    "inference_budget_s": 10.0,
    "deadline_miss_limit": 1000,
}
"""Settings of a runner for which a busy machine is no fault."""
TASK = {"num_particles": 500, "num_substeps": 12, "max_episode_steps": 60}


@pytest.fixture(scope="module")
def task_config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "task.yaml"
    path.write_text(yaml.safe_dump({"task": TASK}))
    return str(path)


@pytest.fixture(scope="module")
def restless_bundle(tmp_path_factory):
    """Down, sideways, and by what it sees."""
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    return untrained_bundle("rolling_flat_small", TASK, [0.0, -2.0, -1.5], folder)


class RunnerInProcess:
    """The exported policy without any message in between."""

    def __init__(self, bundle):
        bundle = load_bundle(bundle)
        self._contract, self._policy = bundle.contract, Policy(bundle)

    def act(self, obs, deterministic):
        state = torch.cat([obs[term.name] for term in self._contract.state_terms], dim=1)
        (cloud,) = self._contract.cloud_terms
        inputs = {"obs": state.numpy(), cloud.name: obs[cloud.name].numpy()}
        return torch.from_numpy(self._policy.act(inputs)).reshape(1, -1)

    def begin(self, started):
        pass


def command(kind, positions):
    if kind == "commands":
        return Float64MultiArray, Float64MultiArray(data=positions)
    if kind == "joint_command":
        return JointState, JointState(name=JOINTS, position=positions)
    return JointTrajectory, JointTrajectory(
        joint_names=JOINTS, points=[JointTrajectoryPoint(positions=positions)]
    )


@pytest.mark.parametrize("kind", ["joint_trajectory", "commands", "joint_command"])
def test_it_goes_where_it_is_commanded_as_fast_as_it_may(start, probe, task_config, kind):
    start(MODULE, config=task_config, real_time_factor=0.2)
    probe.listen(JointState, "/joint_states", BEST_EFFORT)
    probe.listen(PointCloud2, "/points", BEST_EFFORT)
    target = [0.53, 0.27, 0.1]
    message_type, message = command(kind, target)
    publisher = probe.node.create_publisher(message_type, f"/sim_node/{kind}", 1)
    probe.wait_for(lambda: publisher.get_subscription_count() > 0, "the robot to listen")
    first = probe.wait_for_message("/joint_states")
    assert list(first.name) == JOINTS
    assert list(first.position) == pytest.approx(START)
    publisher.publish(message)
    probe.wait_for_message(
        "/joint_states", lambda state: np.allclose(state.position, target, atol=1e-5, rtol=0)
    )
    positions = np.array([state.position for state in probe.heard["/joint_states"]])
    assert len({round(x, 4) for x in positions[:, 0]}) >= 4  # three centimetres take three steps
    assert list(first.velocity) == [0.0] * 3
    fastest = max(state.velocity[0] for state in probe.heard["/joint_states"])
    assert fastest == pytest.approx(0.6, rel=1e-3)  # a centimetre in a sixtieth of a second
    probe.heard["/joint_states"].clear()
    probe.wait_for_message("/joint_states", lambda state: np.allclose(state.velocity, 0.0, atol=1e-4))
    cloud = probe.wait_for_message("/points")
    assert (cloud.header.frame_id, cloud.width, cloud.point_step) == ("world", 500, 12)


def test_cloud_and_joint_states_of_one_instant_bear_one_stamp(start, probe, tiny_config):
    start(MODULE, config=tiny_config)
    probe.listen(JointState, "/joint_states", BEST_EFFORT)
    probe.listen(PointCloud2, "/points", BEST_EFFORT)

    def stamps(topic):
        return {(m.header.stamp.sec, m.header.stamp.nanosec) for m in probe.heard[topic]}

    probe.wait_for(lambda: len(stamps("/points") & stamps("/joint_states")) >= 3, "common stamps")


def test_bad_commands_are_ignored_with_a_reason(start, probe, tiny_config):
    process = start(MODULE, config=tiny_config)
    probe.listen(JointState, "/joint_states", BEST_EFFORT)
    publisher = probe.node.create_publisher(Float64MultiArray, "/sim_node/commands", 1)
    probe.wait_for(lambda: publisher.get_subscription_count() > 0, "the robot to listen")
    publisher.publish(Float64MultiArray(data=[float("nan"), 0.2, 0.0]))
    probe.wait_for(
        lambda: "command ignored: joint 'pin_x': position must be finite" in process.log, "a reason"
    )
    assert list(probe.wait_for_message("/joint_states").position) == pytest.approx(START)


def test_a_robot_of_motors_takes_efforts_and_is_limp_without(start, probe):
    """The pole, nearly at rest, moves its cart at 0.2 m/s at most; 200 N soon make it faster."""
    process = start(MODULE, task="cartpole", real_time_factor=0.5)
    probe.listen(JointState, "/joint_states", BEST_EFFORT)
    probe.listen(PointCloud2, "/points", BEST_EFFORT)
    probe.listen(MarkerArray, "/sim_node/shapes")
    publisher = probe.node.create_publisher(JointState, "/sim_node/joint_command", 1)
    probe.wait_for(lambda: publisher.get_subscription_count() > 0, "the robot to listen")
    publisher.publish(JointState(name=["cart"], position=[0.5]))
    probe.wait_for(lambda: "joints take efforts; the command has only positions" in process.log, "a reason")
    probe.wait_for(lambda: len(probe.heard["/joint_states"]) > 10, "some steps without a command")
    assert max(abs(state.velocity[0]) for state in probe.heard["/joint_states"]) < 0.4
    publisher.publish(JointState(name=["cart"], effort=[200.0]))
    moving = probe.wait_for_message("/joint_states", lambda state: state.velocity[0] > 1.0)
    assert list(moving.name) == ["cart"]
    shapes = probe.wait_for_message("/sim_node/shapes")
    assert {marker.ns.split("/")[0] for marker in shapes.markers} >= {"cart", "pole"}
    assert not probe.heard["/points"]  # nothing that a depth camera is simulated for


def test_a_reset_begins_a_new_episode(start, probe, task_config):
    start(MODULE, config=task_config, real_time_factor=0.2)
    probe.listen(JointState, "/joint_states", BEST_EFFORT)
    publisher = probe.node.create_publisher(Float64MultiArray, "/sim_node/commands", 1)
    probe.wait_for(lambda: publisher.get_subscription_count() > 0, "the robot to listen")
    publisher.publish(Float64MultiArray(data=[0.8, 0.2875, 0.0]))
    probe.wait_for_message("/joint_states", lambda state: state.position[0] > 0.52)
    probe.heard["/joint_states"].clear()
    assert probe.call(Trigger, "/sim_node/reset", Trigger.Request()).success
    probe.wait_for_message("/joint_states", lambda state: np.allclose(state.position, START))


def test_the_clock_advances_by_control_periods(start, probe, tiny_config):
    start(MODULE, config=tiny_config, publish_clock="true", real_time_factor=0.0)
    probe.listen(Clock, "/clock", BEST_EFFORT)
    probe.wait_for(lambda: len(probe.heard["/clock"]) > 20, "the clock")
    times = np.array([c.clock.sec + 1e-9 * c.clock.nanosec for c in probe.heard["/clock"]])
    periods = np.diff(times) * 60.0
    assert periods == pytest.approx(np.round(periods), abs=1e-4)
    assert periods.min() >= 1.0 - 1e-4


def test_lockstep_without_a_commander_holds_and_goes_on(start, tiny_config):
    process = start(MODULE, config=tiny_config, lockstep="true", lockstep_timeout_s=0.05, episodes=1)
    assert process.wait() == 0
    assert "no command came in time; going on without one" in process.log
    assert "mean return" in process.log


@pytest.mark.parametrize(
    ("command_type", "lockstep"),
    [
        ("joint_trajectory", "true"),
        ("joint_command", "true"),
        ("joint_trajectory", "false"),
        ("commands", "false"),  # without a stamp, lockstep cannot tell an answer to an earlier state
    ],
)
def test_over_dds_the_policy_earns_what_it_earns_in_process(
    start, task_config, restless_bundle, command_type, lockstep
):
    runner = start(
        "policy_runner.nodes.runner",
        policy=restless_bundle,
        command_type=command_type,
        stamp_trajectory="true",
        ramp_in_s=0.0,
        **PATIENCE,
    )
    robot = start(
        MODULE,
        f"~/{command_type}:=policy_runner/{command_type}",
        config=task_config,
        episodes=EPISODES,
        runner="policy_runner",
        lockstep=lockstep,
        lockstep_timeout_s=60.0,  # a loaded machine is slow
        real_time_factor=1.0 if lockstep == "true" else 0.2,  # a loaded machine is late at full speed
    )
    assert robot.wait() == 0, robot.log
    over_dds = [float(line.split("return ")[1]) for line in robot.log.splitlines() if "]: episode " in line]
    assert len(over_dds) == EPISODES

    env = make("rolling_flat_small", requires_grad=False, **TASK)
    in_process = evaluate(env, RunnerInProcess(restless_bundle), episodes_per_env=EPISODES).returns[:, 0]
    assert np.mean(over_dds) == pytest.approx(float(in_process.mean()), rel=0.02)
    if lockstep == "true":
        assert over_dds == pytest.approx(in_process.tolist(), rel=2e-3), robot.log + runner.log
    runner.send(signal.SIGINT)
    assert runner.wait() == 0


def test_a_policy_with_a_goal_is_told_it_over_dds(start, tmp_path):
    task = {"num_particles": 250, "grid_size": 40, "num_substeps": 16, "max_episode_steps": 40}
    config = tmp_path / "task.yaml"
    config.write_text(yaml.safe_dump({"task": task}))
    bundle = untrained_bundle("fluid_move_small", task, [0.0, 0.0, 0.0], tmp_path / "bundle")
    start("policy_runner.nodes.runner", policy=bundle, ramp_in_s=0.0, stamp_trajectory="true", **PATIENCE)
    robot = start(
        MODULE,
        "~/joint_trajectory:=policy_runner/joint_trajectory",
        "~/goal:=policy_runner/goal",
        task="fluid_move_small",
        config=str(config),
        episodes=EPISODES,
        runner="policy_runner",
        lockstep="true",
        lockstep_timeout_s=60.0,
    )
    assert robot.wait() == 0, robot.log
    over_dds = [float(line.split("return ")[1]) for line in robot.log.splitlines() if "]: episode " in line]
    env = make("fluid_move_small", requires_grad=False, **task)
    in_process = evaluate(env, RunnerInProcess(bundle), episodes_per_env=EPISODES).returns[:, 0]
    assert over_dds == pytest.approx(in_process.tolist(), rel=2e-3)  # each episode has another goal


def test_the_restless_policy_is_a_fair_test(restless_bundle):
    env = make("rolling_flat_small", requires_grad=False, **TASK)
    actions = []

    class Watched(RunnerInProcess):
        def act(self, obs, deterministic):
            actions.append(super().act(obs, deterministic))
            return actions[-1]

    moving = evaluate(env, Watched(restless_bundle)).mean
    assert torch.cat(actions).abs().mean() > 0.3
    still = evaluate(env, Zero(3)).mean
    assert abs(moving - still) > 0.05 * abs(still)


@pytest.mark.parametrize(
    ("parameters", "code", "message"),
    [
        ({"task": "roling_flat"}, 2, "did you mean 'rolling_flat'"),
        ({"episode": 3}, 2, "unknown parameter 'episode'; did you mean 'episodes'"),
        ({"real_time_factor": -1.0}, 2, "parameter real_time_factor: must be >= 0"),
        ({"device": "cuda:99"}, 3, "device 'cuda:99'"),
    ],
)
def test_bad_parameters_are_named_in_one_line(start, parameters, code, message):
    process = start(MODULE, **parameters)
    assert process.wait() == code
    assert message in process.log.splitlines()[-1]
    assert "Traceback" not in process.log


def test_without_a_place_for_compiled_kernels_it_says_what_to_do(start, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/proc")
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path))  # what ROS itself wants to write
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/cache")
    monkeypatch.delenv("WARP_CACHE_PATH", raising=False)
    process = start(MODULE, task="cartpole")
    assert process.wait() == 1
    last = process.log.splitlines()[-1]
    assert "cannot be made" in last and "set WARP_CACHE_PATH to a folder that can be written" in last
    assert "Traceback" not in process.log
