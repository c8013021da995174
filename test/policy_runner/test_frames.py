"""Chains of poses agree with rotation matrices and closed forms; what is not known is an error, never a pose."""

from __future__ import annotations

import math
import random
import threading

import numpy as np
import pytest

from policy_runner import frames
from policy_runner.frames import (
    FrameTree,
    NoTransformError,
    StaleTransformError,
    StampedTransform,
    TransformError,
    pose_distance,
    pose_matrix,
)

SECOND = 1_000_000_000
HALF = math.sqrt(0.5)


def transform(child, parent="world", position=(0.0, 0.0, 0.0), quaternion=(0.0, 0.0, 0.0, 1.0), at_s=1.0):
    return StampedTransform(
        parent=parent,
        child=child,
        stamp_ns=round(at_s * SECOND),
        position=np.array(position),
        quaternion=np.array(quaternion),
    )


def tree(*transforms, static=True, timeout_s=0.05):
    found = FrameTree(timeout_s=timeout_s)
    for each in transforms:
        found.add(each, static=static)
    return found


def turn_about(axis, angle):
    """Rotation matrix, after Rodrigues."""
    x, y, z = np.asarray(axis) / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * k + (1 - math.cos(angle)) * k @ k


def quaternion_about(axis, angle):
    return [*(math.sin(angle / 2) * np.asarray(axis) / np.linalg.norm(axis)), math.cos(angle / 2)]


@pytest.mark.parametrize("seed", range(5))
def test_a_pose_turns_vectors_as_the_quaternion_product_does(seed):
    rng = np.random.default_rng(seed)
    quaternion, position, vector = rng.normal(size=4), rng.normal(size=3), rng.normal(size=3)
    matrix = pose_matrix(position, quaternion)
    u, w = quaternion[:3] / np.linalg.norm(quaternion), quaternion[3] / np.linalg.norm(quaternion)
    expected = vector + 2.0 * np.cross(u, np.cross(u, vector) + w * vector) + position
    np.testing.assert_allclose(matrix @ [*vector, 1.0], [*expected, 1.0], atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_in_a_random_tree_every_pair_of_frames_agrees_with_their_poses_in_the_world(seed):
    rng, names = np.random.default_rng(seed), [f"f{i}" for i in range(12)]
    in_world, told = {"world": np.eye(4)}, []
    for name in names:
        parent = rng.choice(list(in_world))
        axis, angle, position = rng.normal(size=3), rng.uniform(-3, 3), rng.normal(size=3)
        scale = rng.uniform(0.1, 10)  # not normalised
        told.append(transform(name, parent, position, scale * np.array(quaternion_about(axis, angle))))
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = turn_about(axis, angle), position
        in_world[name] = in_world[parent] @ pose
    rng.shuffle(told)
    found = tree(*told)
    for source in in_world:
        for target in in_world:
            expected = np.linalg.inv(in_world[target]) @ in_world[source]
            np.testing.assert_allclose(found.lookup(source, target, SECOND), expected, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_between_two_transforms_a_frame_moves_and_turns_evenly(seed):
    rng = np.random.default_rng(seed)
    axis, rate, velocity, start = (
        rng.normal(size=3),
        rng.uniform(-8, 8),
        rng.normal(size=3),
        rng.normal(size=3),
    )
    times = np.cumsum(rng.uniform(0.05, 0.2, 30))
    told = []
    for at_s in times:
        sign = rng.choice([-1, 1])  # both are the same rotation
        told.append(
            transform(
                "hand",
                position=start + velocity * at_s,
                quaternion=sign * np.array(quaternion_about(axis, rate * at_s)),
                at_s=at_s,
            )
        )
    rng.shuffle(told)  # messages may come in any order
    found = tree(*told, static=False, timeout_s=0.2)
    for at_s in [*rng.uniform(times[0], times[-1], 50), *times]:
        matrix = found.lookup("hand", "world", round(at_s * SECOND))
        np.testing.assert_allclose(matrix[:3, :3], turn_about(axis, rate * at_s), atol=1e-6)
        np.testing.assert_allclose(matrix[:3, 3], start + velocity * at_s, atol=1e-6)


@pytest.mark.parametrize(
    ("at_s", "age"), [(0.94, "0.060 s newer"), (1.16, "0.060 s older"), (3601.1, "3600.000 s older")]
)
def test_nothing_is_extrapolated_further_than_the_timeout(at_s, age):
    found = tree(transform("hand", at_s=1.0), transform("hand", position=(1.0, 0, 0), at_s=1.1), static=False)
    for near_s, expected in ((0.96, 0.0), (1.0, 0.0), (1.05, 0.5), (1.1, 1.0), (1.14, 1.0)):
        assert found.lookup("hand", "world", round(near_s * SECOND))[0, 3] == pytest.approx(expected)
    with pytest.raises(
        StaleTransformError, match=f"frame 'hand' in 'world': the nearest is {age} than the cloud"
    ):
        found.lookup("hand", "world", round(at_s * SECOND))


def test_in_a_gap_only_moments_near_one_of_its_ends_are_known():
    found = tree(transform("hand", at_s=1.0), transform("hand", at_s=5.0), static=False)
    for at_s in (1.04, 4.96):
        found.lookup("hand", "world", round(at_s * SECOND))
    with pytest.raises(StaleTransformError):
        found.lookup("hand", "world", 3 * SECOND)


def test_a_static_transform_is_never_too_old_and_the_last_one_told_counts():
    found = tree(
        transform("camera", position=(1.0, 0, 0), at_s=1.0),
        transform("camera", position=(2.0, 0, 0), at_s=0.0),
    )
    for stamp_ns in (0, SECOND, 10**6 * SECOND):
        assert found.lookup("camera", "world", stamp_ns)[0, 3] == 2.0


def test_without_a_stamp_only_what_does_not_move_is_known():
    found = tree(transform("camera", "hand"))
    found.add(transform("hand", at_s=1.0), static=False)
    assert found.lookup("camera", "hand", 0)[0, 0] == 1.0
    with pytest.raises(
        StaleTransformError, match="frame 'hand' moves in 'world', but the cloud has no stamp"
    ):
        found.lookup("camera", "world", 0)


def test_the_moment_counts_for_every_moving_frame_on_the_way():
    found = tree(transform("wrist", "arm", at_s=1.0), static=False)
    found.add(transform("arm", at_s=0.9), static=False)
    with pytest.raises(StaleTransformError, match="frame 'arm' in 'world'"):
        found.lookup("wrist", "world", SECOND)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("camra", "no transform of frame 'camra'; did you mean 'camera'"),
        ("", r"no transform of frame ''; known: \['camera', 'lonely', 'mast', 'world'\]"),
        ("/camera", "no transform of frame '/camera'; did you mean 'camera'"),
        ("lonely", "no transform from frame 'lonely' into 'world': nothing connects them"),
    ],
)
def test_an_unknown_or_unconnected_frame_is_named(source, message):
    found = tree(transform("camera"), transform("lonely", "mast"))
    with pytest.raises(NoTransformError, match=message):
        found.lookup(source, "world", SECOND)


def test_an_empty_tree_knows_nothing_not_even_the_identity():
    with pytest.raises(NoTransformError, match=r"no transform of frame 'camera'; known: \[\]"):
        tree().lookup("camera", "world", SECOND)


def test_a_frame_with_two_parents_is_of_no_use():
    found = tree(transform("hand"), transform("camera", "hand"), transform("camera", "world"))
    found.add(transform("camera", "hand"), static=True)
    with pytest.raises(
        NoTransformError, match="frame 'camera' is told to be in two others: 'hand' and 'world'"
    ):
        found.lookup("camera", "world", SECOND)
    found.lookup("hand", "world", SECOND)  # others are not touched


def test_frames_in_a_loop_lead_nowhere_and_end():
    found = tree(transform("a", "b"), transform("b", "c"), transform("c", "a"))
    with pytest.raises(NoTransformError, match="no transform of frame 'world'"):
        found.lookup("a", "world", SECOND)
    found.add(transform("d"), static=True)
    with pytest.raises(NoTransformError, match="from frame 'a' into 'world'"):
        found.lookup("a", "world", SECOND)


@pytest.mark.parametrize(
    "changes",
    [
        {"quaternion": (0.0, 0.0, 0.0, 0.0)},
        {"quaternion": (0.0, math.nan, 0.0, 1.0)},
        {"quaternion": (0.0, 0.0, math.inf, 1.0)},
        {"quaternion": (1e200, 1e200, 0.0, 1.0)},
        {"position": (math.nan, 0.0, 0.0)},
        {"position": (0.0, -math.inf, 0.0)},
        {"position": (0.0, 1e30, 0.0)},
        {"child": ""},
        {"parent": ""},
        {"parent": "camera"},
    ],
)
def test_a_transform_that_says_nothing_is_refused_by_its_frames(changes):
    with pytest.raises(TransformError, match=f"transform of '{changes.get('child', 'camera')}' in"):
        transform(**({"child": "camera"} | changes))


def test_a_clock_that_is_set_back_starts_a_new_history():
    found = tree(transform("hand", position=(5.0, 0, 0), at_s=3600.0), static=False)
    found.add(transform("hand", position=(1.0, 0, 0), at_s=10.0), static=False)
    assert found.lookup("hand", "world", 10 * SECOND)[0, 3] == 1.0
    with pytest.raises(StaleTransformError, match="older"):
        found.lookup("hand", "world", 3600 * SECOND)


def test_one_transform_from_the_future_does_no_lasting_harm():
    found = tree(transform("hand", position=(1.0, 0, 0), at_s=10.0), static=False)
    found.add(transform("hand", position=(9.0, 0, 0), at_s=3610.0), static=False)
    with pytest.raises(StaleTransformError):
        found.lookup("hand", "world", 3000 * SECOND)
    found.add(transform("hand", position=(2.0, 0, 0), at_s=10.1), static=False)
    assert found.lookup("hand", "world", round(10.1 * SECOND))[0, 3] == 2.0


def test_history_and_number_of_frames_are_bounded(monkeypatch):
    monkeypatch.setattr(frames, "MAX_FRAMES", 3)
    found = tree(*(transform(f"f{i}") for i in range(3)))
    with pytest.raises(TransformError, match="frame 'f3': expected at most 3 frames"):
        found.add(transform("f3"), static=True)
    for step in range(3000):
        found.add(transform("f0", at_s=1.0 + 1e-3 * step), static=False)
    with pytest.raises(StaleTransformError):
        found.lookup("f0", "world", round(2.9 * SECOND))  # of 1 kHz, the last second is kept
    found.lookup("f0", "world", round(3.1 * SECOND))


def test_a_thousand_random_trees_give_a_pose_that_is_one_or_a_frame_error():
    chance = random.Random(0)
    outcomes = set()
    for _ in range(1000):
        found = FrameTree(timeout_s=0.1)
        for _ in range(chance.randrange(20)):
            child, parent = chance.choices("abcdef", k=2)
            numbers = [
                chance.choice([0.0, 1.0, -1e-9, 1e7, math.nan, math.inf, chance.gauss(0, 1)])
                for _ in range(7)
            ]
            try:
                told = transform(
                    child, parent, numbers[:3], numbers[3:], at_s=chance.choice([0, 1, 1.05, 3600])
                )
                found.add(told, static=chance.random() < 0.5)
            except TransformError:
                outcomes.add("refused")
        try:
            matrix = found.lookup(
                *chance.choices("abcdef", k=2), chance.choice([0, SECOND, -SECOND, 3600 * SECOND])
            )
        except frames.FrameError as error:
            outcomes.add(type(error))
        else:
            outcomes.add("pose")
            np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-9)
            assert np.isfinite(matrix).all()
    assert outcomes == {"refused", "pose", NoTransformError, StaleTransformError}


def test_transforms_may_come_while_another_thread_asks():
    found, done, failures = tree(transform("hand"), static=False, timeout_s=1e6), threading.Event(), []

    def ask():
        while not done.is_set():
            try:
                found.lookup("hand", "world", 2 * SECOND)
            except Exception as error:
                failures.append(error)
                return

    asking = threading.Thread(target=ask)
    asking.start()
    for step in range(2000):
        found.add(transform("hand", at_s=1.0 + 1e-2 * step), static=False)
    done.set()
    asking.join()
    assert not failures


@pytest.mark.parametrize("angle", [0.0, 1e-8, 0.3, 3.0, math.pi])
def test_the_distance_of_two_poses_is_that_of_their_origins_and_the_angle_between(angle):
    axis, at = [1.0, -2.0, 0.5], pose_matrix(np.array([1.0, 2.0, 3.0]), np.array([0.1, 0.7, -0.2, 0.4]))
    moved = at @ pose_matrix(np.array([0.3, 0.0, 0.4]), np.array(quaternion_about(axis, angle)))
    distance_m, angle_rad = pose_distance(at, moved)
    assert distance_m == pytest.approx(0.5) and angle_rad == pytest.approx(angle, abs=1e-7)
