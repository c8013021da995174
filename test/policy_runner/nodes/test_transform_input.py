"""What /tf and /tf_static say goes into the tree; a message is a list of transforms, whatever package it is from."""

from __future__ import annotations

import sys
import types

import pytest
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from rclpy.qos import DurabilityPolicy
from std_msgs.msg import Header

from policy_runner.frames import FrameTree, NoTransformError, StaleTransformError
from policy_runner.nodes.messages import to_time
from policy_runner.nodes.transform_input import TransformInput, tf_message_type

SECOND = 1_000_000_000


class Listener:
    """What TransformInput needs of a node."""

    def __init__(self):
        self.callbacks, self.qos, self.said = {}, {}, []

    def create_subscription(self, kind, topic, callback, qos):
        self.callbacks[topic], self.qos[topic] = callback, qos

    def get_logger(self):
        return self

    def warning(self, text, **_):
        self.said.append(text)


@pytest.fixture
def listener(monkeypatch):
    module = types.ModuleType("tf2_msgs.msg")
    module.TFMessage = object
    monkeypatch.setitem(sys.modules, "tf2_msgs", types.ModuleType("tf2_msgs"))
    monkeypatch.setitem(sys.modules, "tf2_msgs.msg", module)
    return Listener()


def told(child, parent, x, at_s=0.0, w=1.0):
    return TransformStamped(
        header=Header(frame_id=parent, stamp=to_time(round(at_s * SECOND))),
        child_frame_id=child,
        transform=Transform(translation=Vector3(x=x), rotation=Quaternion(w=w)),
    )


def message(*transforms):
    return types.SimpleNamespace(transforms=list(transforms))


def test_moving_and_static_frames_are_told_apart_by_their_topics(listener):
    tree = FrameTree(timeout_s=0.05)
    TransformInput(listener, tree)
    listener.callbacks["/tf"](
        message(told("hand", "arm", 1.0, at_s=5.0), told("arm", "world", 2.0, at_s=5.0))
    )
    listener.callbacks["/tf_static"](message(told("camera", "hand", 4.0, at_s=0.0)))
    assert tree.lookup("camera", "world", 5 * SECOND)[0, 3] == 7.0
    with pytest.raises(StaleTransformError):
        tree.lookup("camera", "world", 6 * SECOND)
    assert tree.lookup("camera", "hand", 6 * SECOND)[0, 3] == 4.0


def test_those_who_come_late_hear_of_static_frames(listener):
    TransformInput(listener, FrameTree(timeout_s=0.05))
    assert listener.qos["/tf_static"].durability is DurabilityPolicy.TRANSIENT_LOCAL
    assert listener.qos["/tf"].durability is DurabilityPolicy.VOLATILE


def test_topics_are_renamed_as_the_runner_is(listener):
    TransformInput(listener, FrameTree(timeout_s=0.05), lambda topic: f"/left{topic}")
    assert set(listener.callbacks) == {"/left/tf", "/left/tf_static"}


def test_a_transform_that_says_nothing_is_counted_and_named_and_the_others_are_taken(listener):
    tree = FrameTree(timeout_s=0.05)
    frames = TransformInput(listener, tree)
    bad = (
        told("a", "world", 1.0, w=0.0),
        told("b", "world", float("nan")),
        told("c", "c", 1.0),
        told("", "world", 1.0),
    )
    listener.callbacks["/tf_static"](message(*bad, told("good", "world", 3.0)))
    assert frames.refused == 4
    assert listener.said[0].startswith(
        "refused: transform of 'a' in 'world': expected a position and a quaternion"
    )
    assert tree.lookup("good", "world", 0)[0, 3] == 3.0
    with pytest.raises(NoTransformError):
        tree.lookup("a", "world", 0)


def test_the_message_type_is_found_where_it_is_installed_and_only_there(listener, monkeypatch):
    assert tf_message_type() is object
    monkeypatch.setitem(sys.modules, "tf2_msgs.msg", None)
    assert tf_message_type() is None
