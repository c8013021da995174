"""Row 31 of the fault table: whoever commands the robot is killed in the middle of a motion, and the robot stops."""

import subprocess
import sys

import numpy as np
import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from untrained import untrained_bundle

ROBOT = "rewarped_sim.nodes.sim_node"
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
DT_S = 1.0 / 60.0
TASK = {"num_particles": 250, "num_substeps": 12, "max_episode_steps": 100_000}
TIMEOUT_STEPS = 12
SLOW = 0.25
"""Real time factor: a loaded machine keeps up."""
FAR = [0.8, 0.2875, 0.0]
"""From where the joints start, [0.5, 0.2875, 0], it takes 30 steps or more to get there."""

STREAM = f"""
import rclpy
from rclpy.qos import QoSProfile
from std_msgs.msg import Float64MultiArray
rclpy.init()
node = rclpy.create_node("commander")
publisher = node.create_publisher(Float64MultiArray, "/sim_node/commands", QoSProfile(depth=1))
node.create_timer(0.02, lambda: publisher.publish(Float64MultiArray(data={FAR})))
rclpy.spin(node)
"""


@pytest.fixture(scope="module")
def task_config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "task.yaml"
    path.write_text(yaml.safe_dump({"task": TASK}))
    return str(path)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Of a policy that moves sideways, and by what it sees."""
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    return untrained_bundle("rolling_flat_small", TASK, [0.5, 0.0, 1.0], folder)


@pytest.fixture
def start_robot(start, task_config):
    """Start the robot; its clock is that of the simulated world, so stamps count control steps."""

    def start_robot(*remappings, timeout_s, **parameters):
        settings = {"publish_clock": "true", "real_time_factor": SLOW, "command_timeout_s": timeout_s}
        return start(ROBOT, *remappings, config=task_config, **(settings | parameters))

    return start_robot


def step_of(state):
    return round((state.header.stamp.sec + 1e-9 * state.header.stamp.nanosec) / DT_S)


def kill(probe, process):
    """Kill it in the middle of a motion; return number and positions of a state that is shown after its death."""
    states = probe.heard["/joint_states"]

    def moving():
        return len(states) > 3 and not np.allclose(states[-1].position, states[-2].position, atol=1e-5)

    probe.wait_for(moving, "a motion")
    process.kill()
    process.wait()
    seen = step_of(states[-1])  # the next one may have been on its way
    probe.wait_for(lambda: step_of(states[-1]) > seen + 1, "a state after the death")
    return step_of(states[-1]), np.array(states[-1].position)


def positions_from(probe, step, count):
    """Positions (n, joints) of the robot from a step on, over `count` steps, with the numbers of the steps (n,)."""
    states = probe.heard["/joint_states"]
    probe.wait_for(lambda: step_of(states[-1]) >= step + count, f"{count} steps")
    later = [state for state in states if step_of(state) >= step]
    return np.array([step_of(state) for state in later]), np.array([state.position for state in later])


def timeouts(probe):
    """Newest count of the robot's diagnostics."""
    probe.heard["/diagnostics"].clear()

    def of_the_robot(message):
        return message.status[0].name == "/sim_node: commands"

    values = probe.wait_for_message("/diagnostics", of_the_robot).status[0].values
    return int({pair.key: pair.value for pair in values}["command_timeouts"])


def listen(probe):
    probe.listen(JointState, "/joint_states", BEST_EFFORT)
    probe.listen(DiagnosticArray, "/diagnostics")


@pytest.fixture
def start_stream(probe):
    """Start a process that commands the far target again and again, as a forward controller is commanded."""
    processes = []

    def start_stream():
        probe.wait_for_message("/joint_states")
        processes.append(subprocess.Popen([sys.executable, "-c", STREAM]))
        return processes[-1]

    yield start_stream
    for process in processes:
        process.kill()
        process.wait()


def test_a_robot_whose_commander_is_killed_rests_after_the_timeout_and_a_step(
    start_robot, probe, start_stream
):
    start_robot(timeout_s=TIMEOUT_STEPS * DT_S)
    listen(probe)
    death, then = kill(probe, start_stream())
    steps, positions = positions_from(probe, death, TIMEOUT_STEPS + 10)
    resting = positions[steps > death + TIMEOUT_STEPS]
    assert len(resting) >= 5
    np.testing.assert_allclose(resting, np.broadcast_to(resting[0], resting.shape), atol=1e-6)
    assert then[0] < resting[0][0] < FAR[0] - 0.02  # it was on its way, went on a little, and did not arrive
    assert timeouts(probe) == 1


def test_without_a_timeout_it_follows_the_last_command_to_its_end(start_robot, probe, start_stream):
    start_robot(timeout_s=0.0)
    listen(probe)
    kill(probe, start_stream())
    probe.wait_for_message("/joint_states", lambda state: np.allclose(state.position, FAR, atol=1e-4))
    assert timeouts(probe) == 0


def test_a_robot_whose_runner_is_killed_rests_after_the_timeout_and_a_step(start, start_robot, probe, bundle):
    runner = start("policy_runner.nodes.runner", policy=bundle, ramp_in_s=0.0, inference_budget_s=10.0)
    start_robot(
        "~/joint_trajectory:=policy_runner/joint_trajectory",
        timeout_s=TIMEOUT_STEPS * DT_S,
        runner="policy_runner",
    )
    listen(probe)
    death, _ = kill(probe, runner.popen)
    steps, positions = positions_from(probe, death, TIMEOUT_STEPS + 10)
    resting = positions[steps > death + 1 + TIMEOUT_STEPS]  # the last trajectory ends one control step later
    assert len(resting) >= 5
    np.testing.assert_allclose(resting, np.broadcast_to(resting[0], resting.shape), atol=1e-6)
    assert timeouts(probe) == 1
