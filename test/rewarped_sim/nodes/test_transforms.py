"""Link frames: they chain up to where the shapes are, and go to /tf where its message type is installed."""

import sys
import types

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from rclpy.qos import DurabilityPolicy

import rewarped_sim
from rewarped_sim.engine.kinematics import rotation_matrix
from rewarped_sim.nodes import transforms


class Recorder:
    """What TransformPublisher needs of a node and of a publisher."""

    def __init__(self, listeners=1):
        self.sent, self.said, self.topics, self.qos, self.listeners = [], [], [], [], listeners

    def create_publisher(self, message_type, topic, qos):
        self.topics.append(topic)
        self.qos.append(qos)
        return self

    def get_clock(self):
        return self

    def now(self):
        return self

    def to_msg(self):
        return Time(sec=1)

    def get_subscription_count(self):
        return self.listeners

    def publish(self, message):
        self.sent.append(message)

    def get_logger(self):
        return self

    def info(self, text, *, once):
        assert once
        self.said.append(text)


@pytest.fixture
def with_tf2_msgs(monkeypatch):
    module = types.ModuleType("tf2_msgs.msg")
    module.TFMessage = lambda transforms: list(transforms)
    monkeypatch.setitem(sys.modules, "tf2_msgs", types.ModuleType("tf2_msgs"))
    monkeypatch.setitem(sys.modules, "tf2_msgs.msg", module)


def ant_scene():
    env = rewarped_sim.make("ant", requires_grad=False)
    env.reset()
    return env.scene(0)


def test_frames_chain_up_to_the_world():
    scene = ant_scene()
    frames = {t.child_frame_id: t for t in transforms.transforms_of(scene, Time(sec=3))}
    assert frames["torso"].header.frame_id == "world"
    assert frames["torso"].header.stamp.sec == 3
    position, name = np.zeros(3), "foot_3"
    while name != "world":
        pose = frames[name].transform
        turn, move = pose.rotation, pose.translation
        position = rotation_matrix((turn.x, turn.y, turn.z, turn.w)) @ position + (move.x, move.y, move.z)
        name = frames[name].header.frame_id
    (foot,) = (shape for shape in scene.shapes if shape.name.startswith("foot_3/"))
    # The foot's capsule runs from its frame's origin outwards: its upper end is there.
    axis = rotation_matrix(foot.quaternion)[:, 2]
    ends = [foot.position + side * foot.size[1] * axis for side in (-1.0, 1.0)]
    assert min(np.linalg.norm(end - position) for end in ends) < 1e-6


def test_what_runs_away_has_a_frame_to_follow():
    scene = ant_scene()
    *_, followed = transforms.transforms_of(scene, Time())
    assert (followed.header.frame_id, followed.child_frame_id) == ("world", "focus")
    move = followed.transform.translation
    assert (move.x, move.y, move.z) == scene.focus
    assert followed.transform.rotation.w == 1.0


def test_frames_are_published_where_somebody_listens(with_tf2_msgs):
    node, scene = Recorder(), ant_scene()
    transforms.TransformPublisher(node).publish(scene, Time())
    assert node.topics == ["/tf"]
    assert [t.child_frame_id for t in node.sent[0]] == [*(link.name for link in scene.links), "focus"]
    deaf = Recorder(listeners=0)
    transforms.TransformPublisher(deaf).publish(scene, Time())
    assert not deaf.sent


def test_a_frame_that_does_not_move_is_published_once_for_all_who_ever_ask(with_tf2_msgs):
    node = Recorder()
    pose = (1.0, 2.0, 3.0, 0.0, 0.6, 0.0, 0.8)
    assert transforms.StaticTransform(node, child="camera", parent="world", pose=pose).sent
    assert node.topics == ["/tf_static"]
    ((transform,),) = node.sent
    assert (transform.header.frame_id, transform.child_frame_id) == ("world", "camera")
    move, turn = transform.transform.translation, transform.transform.rotation
    assert (move.x, move.y, move.z, turn.x, turn.y, turn.z, turn.w) == pose
    assert node.qos[0].durability is DurabilityPolicy.TRANSIENT_LOCAL


def test_without_the_message_type_a_frame_that_does_not_move_is_not_sent(monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2_msgs.msg", None)
    node = Recorder()
    pose = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    assert not transforms.StaticTransform(node, child="camera", parent="world", pose=pose).sent
    assert not node.topics


def test_without_the_message_type_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2_msgs.msg", None)
    node = Recorder()
    transforms.TransformPublisher(node).publish(ant_scene(), Time())
    assert node.said == ["no link frames on /tf: tf2_msgs is not installed"]
    assert not node.topics


def test_a_scene_without_links_says_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2_msgs.msg", None)
    env = rewarped_sim.make("rolling_flat_small", requires_grad=False)
    node = Recorder()
    transforms.TransformPublisher(node).publish(env.scene(0), Time())
    assert not node.said
