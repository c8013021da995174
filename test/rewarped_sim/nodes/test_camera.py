"""The depth camera as ROS sees it: by itself, with stamps that the tests make, and through the runner over DDS."""

import math

import numpy as np
import pytest
import torch
import yaml
from builtin_interfaces.msg import Time
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, JointState, PointCloud2
from std_srvs.srv import SetBool
from untrained import untrained_bundle

import rewarped_sim
from policy_runner.pointcloud import decode
from rewarped_sim.nodes import camera
from rewarped_sim.nodes.commands import action_towards
from rewarped_sim.nodes.parameters import ParameterError
from rewarped_sim.sensor_model import SensorConfig

STEPS = 6
TASK = {
    "num_particles": 500,
    "num_substeps": 12,
    "max_episode_steps": STEPS,
    "cloud": "camera",
    "camera_cloud": {"crop_min": [0.0, 0.0, 0.105]},
}
EVERY_ONE = QoSProfile(depth=1000, reliability=ReliabilityPolicy.BEST_EFFORT)
HZ = 60.0
PATIENCE_S = 240.0


class FakeNode:
    """What a CameraPublisher needs of a node, of its publishers and of its logger."""

    def __init__(self):
        self.sent = {}
        self.said = []

    def create_publisher(self, message_type, topic, qos):
        self.sent[topic] = []

        class Publisher:
            publish = staticmethod(self.sent[topic].append)

        return Publisher()

    def get_logger(self):
        return self

    def info(self, text):
        self.said.append(text)


def filming(scene, **settings):
    """A camera and the clouds that it has published."""
    node = FakeNode()
    points = node.create_publisher(PointCloud2, "points", 1)
    config = SensorConfig(width=16, height=12, **settings)
    return camera.CameraPublisher(node, config, scene, points=points, device="cpu"), node


def stamped(step):
    nanoseconds = round(step * 1e9 / HZ)
    return Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def seconds(message):
    return message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec


@pytest.fixture(scope="module")
def scene():
    env = rewarped_sim.make("rolling_flat_small", requires_grad=False, num_particles=250)
    env.reset()
    return env.scene(0)


def test_clouds_come_at_the_cameras_rate_with_the_stamps_of_their_pictures(scene):
    filmed, node = filming(scene, rate_hz=15.0, latency_s=0.1)
    late = []
    for step in range(601, 1201):
        before = len(node.sent["points"])
        filmed.film(scene, stamped(step))
        late += [step / HZ - seconds(cloud) for cloud in node.sent["points"][before:]]
    clouds, infos = node.sent["points"], node.sent["~/camera_info"]
    assert np.diff([seconds(cloud) for cloud in clouds[1:]]) == pytest.approx(1.0 / 15.0, abs=1e-6)
    np.testing.assert_allclose(late, 0.1, atol=1e-6)
    assert [seconds(info) for info in infos] == [seconds(cloud) for cloud in clouds]


def test_no_picture_is_from_before_the_beginning_of_time(scene):
    filmed, node = filming(scene, rate_hz=15.0, latency_s=0.1)
    for step in range(1, 13):
        filmed.film(scene, stamped(step))
    assert [seconds(cloud) for cloud in node.sent["points"]] == pytest.approx([5 / HZ])


def test_while_the_world_waits_its_newest_picture_is_published_again_and_again(scene):
    filmed, node = filming(scene, rate_hz=30.0, latency_s=0.05)
    clouds = node.sent["points"]
    for show in range(1, 4):
        filmed.film_standing(scene, stamped(show), world_ns=0)
    assert [seconds(cloud) for cloud in clouds] == pytest.approx([1 / HZ, 2 / HZ, 3 / HZ])
    assert len({bytes(cloud.data) for cloud in clouds}) == 1
    pictures = [bytes(clouds[-1].data)]
    for step in range(1, 13):
        filmed.film_standing(scene, stamped(3 + step), world_ns=round(1e9 * step / HZ))
        pictures.append(bytes(clouds[-1].data))
    # taken every second step, published three steps later: the pictures of steps 0 (seen from the first), 2, 4, ...
    shown = [pictures.index(picture) for picture in pictures]
    assert shown == [0, 0, 0, 0, 0, 5, 5, 7, 7, 9, 9, 11, 11]


def test_a_picture_is_organised_and_true_to_its_intrinsics(scene):
    filmed, node = filming(scene, latency_s=0.0, depth_noise=0.0, dropout=0.0, edge_dropout=0.0)
    filmed.film(scene, Time(sec=7))
    (cloud,), (info,) = node.sent["points"], node.sent["~/camera_info"]
    assert (cloud.width, cloud.height, cloud.header.frame_id) == (16, 12, "camera_optical_frame")
    assert (info.width, info.height, info.header.frame_id) == (16, 12, "camera_optical_frame")
    points = decode(cloud).reshape(12, 16, 3)
    rows, columns = np.indices((12, 16))
    homogeneous = points @ np.reshape(info.k, (3, 3)).T
    np.testing.assert_allclose(homogeneous[..., 0] / points[..., 2], columns, atol=1e-4)
    np.testing.assert_allclose(homogeneous[..., 1] / points[..., 2], rows, atol=1e-4)


def test_without_tf_it_is_said_what_the_runner_must_be_told(scene):
    _, node = filming(scene)
    (line,) = node.said
    pose = yaml.safe_load(line.partition("cloud_extrinsics: ")[2])
    assert "cloud_frame: camera_optical_frame" in line
    assert pose == pytest.approx(SensorConfig().pose, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"camera": "dept"}, "unknown camera 'dept'; did you mean 'depth'"),
        ({"camera_width": 0}, "parameter camera_width: must be in"),
        ({"camera_max_range_m": 0.1}, "parameter camera_max_range_m: must exceed min_range_m"),
    ],
)
def test_a_camera_that_cannot_be_is_refused_by_the_name_of_its_parameter(changes, message):
    params = {param.name: param.default for param in camera.PARAMS}
    assert camera.camera_config(params) is None
    assert camera.camera_config(params | {"camera": "depth"}) == SensorConfig()
    with pytest.raises(ParameterError, match=message):
        camera.camera_config(params | {"camera": "depth"} | changes)


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ({"camera_position": "[0.0, 1.0]"}, "camera_position: expected a list of 3 numbers, got [0.0, 1.0]"),
        ({"camera_look_at": "there"}, "camera_look_at: expected a list of 3 numbers, got 'there'"),
        ({"camera_self_filter": "7"}, "camera_self_filter: expected true or false, got 7"),
        ({"camera_widht": 7}, "unknown parameter 'camera_widht'; did you mean 'camera_width'"),
    ],
)
def test_bad_parameters_end_the_node_with_a_line(start, parameter, message):
    process = start("rewarped_sim.nodes.sim_node", camera="depth", **parameter)
    assert process.wait() == 2
    assert message in process.log.splitlines()[-1]


def distance_to_surface(points, what):
    """How far points (n, 3) lie from what a camera can see of a scene: dough, table; the tool is filtered."""
    dough = np.linalg.norm(points[:, None] - what.particles, axis=2).min(axis=1)
    floor = points[:, 2] - what.shapes[-1].position[2]
    return np.minimum(np.abs(dough - SensorConfig.skin * what.particle_radius), np.abs(floor))


def test_the_points_of_the_policy_lie_on_the_scene_as_it_was_at_their_stamp(start, probe, tmp_path):
    """Robot, camera and runner in processes of their own; the scene is simulated a second time beside them."""
    (tmp_path / "task.yaml").write_text(yaml.safe_dump({"task": TASK}))
    bundle = untrained_bundle("rolling_flat_small", TASK, [0.0, -2.0, -1.5], tmp_path / "bundle")
    settings = SensorConfig(latency_s=0.0, rate_hz=0.0)
    probe.listen(PointCloud2, "/policy_runner/policy_points", EVERY_ONE)
    probe.listen(JointState, "/joint_states", EVERY_ONE)
    probe.listen(CameraInfo, "/sim_node/camera_info", EVERY_ONE)
    runner = start(
        "policy_runner.nodes.runner",
        policy=bundle,
        ramp_in_s=0.0,
        stamp_trajectory="true",
        cloud_timeout_s=10.0,
        joint_state_timeout_s=10.0,
        max_input_skew_s=0.0,
        deadline_miss_limit=1000,
        inference_budget_s=10.0,
        vet_timeout_s=60.0,
        cloud_frame=settings.frame,
        cloud_extrinsics=list(settings.pose),
    )
    robot = start(
        "rewarped_sim.nodes.sim_node",
        "~/joint_trajectory:=policy_runner/joint_trajectory",
        config=str(tmp_path / "task.yaml"),
        episodes=1,
        lockstep="true",
        lockstep_timeout_s=PATIENCE_S,  # before the runner is armed the world stands still
        camera="depth",
        camera_position=list(settings.position),
        camera_self_filter="true",
        camera_latency_s=settings.latency_s,
        camera_rate_hz=settings.rate_hz,
    )
    for topic in list(probe.heard):
        probe.wait_for_message(topic)
    arm = probe.call(SetBool, "/policy_runner/arm", SetBool.Request(data=True))
    assert arm.success, arm.message
    probe.wait_for(lambda: robot.popen.poll() is not None, "the end of the episode")
    assert robot.popen.returncode == 0, robot.log + runner.log

    env = rewarped_sim.make("rolling_flat_small", requires_grad=False, **TASK)
    env.reset()
    joints, seen = probe.heard["/joint_states"], probe.heard["/policy_runner/policy_points"]
    where = [tuple(state.position) for state in joints]
    steps = sorted(set(where), key=where.index)
    assert len(steps) == STEPS
    sigma = settings.depth_noise * 1.3**2  # of the depths around the dough
    off = []
    for step, position in enumerate(steps):
        if step:
            joint_q = env.joint_q[0].double().numpy()
            action = action_towards(np.array(position), joint_q, env.task.action)
            env.step(torch.from_numpy(action)[None])
        stamps = {seconds(state) for state in joints if tuple(state.position) == position}
        clouds = [decode(cloud) for cloud in seen if seconds(cloud) in stamps]
        assert clouds, f"the runner saw step {step}"
        off += [distance_to_surface(cloud, env.scene(0)) for cloud in clouds]
    off = np.concatenate(off)
    assert off.max() < 5.0 * sigma
    assert 0.2 * sigma < math.sqrt((off**2).mean()) < sigma
