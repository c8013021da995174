"""Rows 1 to 10 of docs/faults.md: what can be wrong with clouds."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import big_camera
import numpy as np
from builtin_interfaces.msg import Time
from cloud_layouts import CONTRADICTIONS, LEGAL, UNREADABLE, encode, in_place_of
from command_stream import by_policy
from injection import PROFILE, TIMEOUT_S
from robot import ENVIRONMENT, nanoseconds

HOUR_S = 3600
stale = {"reason": "cloud_stale", "timeout_s": TIMEOUT_S}


def points_of(message):
    return np.frombuffer(message.data, "<f4").reshape(-1, 3)


def shifted(stamp, seconds):
    return Time(sec=stamp.sec + seconds, nanosec=stamp.nanosec)


def seen_by_the_network(robot, send, *, clouds, shown):
    """Send clouds through `send(cloud) -> message` until so many were sent, and the network was seen to see so many.

    Returns the points that were handed to `send`, beside those that the network saw of them.
    """
    sent, first = {}, len(robot.policy_points)

    def note(cloud):
        sent[nanoseconds(cloud.header.stamp)] = points_of(cloud)
        return [send(cloud)]

    def pairs():
        stamped = ((nanoseconds(message.header.stamp), message) for message in robot.policy_points[first:])
        return [(sent[stamp_ns], points_of(message)) for stamp_ns, message in stamped if stamp_ns in sent]

    robot.clouds_sent = note
    robot.until(lambda: len(sent) >= clouds and len(pairs()) >= shown)
    robot.clouds_sent = lambda cloud: [cloud]
    return pairs()


# 1: values that are no coordinates


def test_a_thousand_mixes_with_values_that_are_no_coordinates_give_commands_all_the_same(faults):
    robot, chance = faults.robot, np.random.default_rng(1)

    def spoilt(cloud):
        points = points_of(cloud).copy()
        share = chance.uniform(0.0, 1.0)
        bad = chance.choice([np.nan, np.inf, -np.inf, 1e30, -1e30], points.shape)
        rows = chance.random((len(points), 1)) < share
        points = np.where(rows & (chance.random(points.shape) < 0.7), bad, points).astype("<f4")
        return in_place_of(cloud, encode(points, point_step=16))

    with faults.goes_on(drops=["cloud_too_few_points"]):
        robot.sensor_dt_s = 1e-3
        mixes = seen_by_the_network(robot, spoilt, clouds=1000, shown=50)
    for healthy, seen in mixes:
        assert np.isfinite(seen).all()
        assert {point.tobytes() for point in seen} <= {point.tobytes() for point in healthy}


def test_clouds_of_nothing_but_nan_infinity_and_huge_values_are_no_observation(faults):
    with faults.holds(**stale, drops=["cloud_too_few_points"]):
        faults.robot.cloud = np.resize([np.nan, np.inf, -np.inf, 1e30, -1e30], (40, 3))


# 2: nothing at all


def test_clouds_without_points_are_no_observation_and_are_not_shown(faults):
    sizes = itertools.cycle([{"width": 0}, {"height": 0}, {"width": 0, "point_step": 0}])

    def empty(cloud):
        for name, value in next(sizes).items():
            setattr(cloud, name, value)
        cloud.row_step, cloud.data = 0, b""
        return [cloud]

    with faults.holds(**stale, drops=["cloud_too_few_points"]):
        faults.robot.clouds_sent = empty
    shown = faults.robot.policy_points
    assert all(message.point_step == 12 and message.width == 8 for message in shown)  # else RViz dies of it


# 3: sizes that contradict each other


def test_ten_thousand_clouds_of_contradictory_sizes_are_dropped_and_take_no_memory(faults):
    robot, breaks, sent = faults.robot, itertools.cycle(CONTRADICTIONS.values()), itertools.count()

    def broken(cloud):
        messages = []
        for _ in range(100):
            message = encode(points_of(cloud)[:20])
            message.header.frame_id, message.header.stamp = "world", robot.node.get_clock().now().to_msg()
            messages.append(next(breaks)(message))
            next(sent)
        return messages

    rss_mb = robot.rss_mb()
    with faults.holds(**stale, drops=["cloud_malformed"]):
        robot.clouds_sent = broken
        robot.until(lambda: next(sent) >= 10_000)
    assert robot.rss_mb() - rss_mb < 10.0


# 4: fields


def test_coordinates_that_cannot_be_read_are_dropped(faults):
    breaks = itertools.cycle(UNREADABLE.values())
    with faults.holds(**stale, drops=["cloud_malformed"]):
        faults.robot.clouds_sent = lambda cloud: [next(breaks)(cloud)]


def test_every_datatype_is_read_exactly(faults):
    """Whole numbers of metres, as every datatype holds them: corners of the crop box."""
    corners = np.array(list(itertools.product((0, 1), repeat=3)) * 5, "<f4")
    sizes = itertools.cycle(enumerate((1, 1, 2, 2, 4, 4, 4, 8), start=1))

    def of_next_datatype(cloud):
        datatype, size = next(sizes)
        layout = {"datatype": datatype, "offsets": (0, size, 2 * size), "point_step": 3 * size}
        return in_place_of(cloud, encode(corners, **layout))

    with faults.goes_on():
        mixes = seen_by_the_network(faults.robot, of_next_datatype, clouds=32, shown=24)
    for _, seen in mixes:
        np.testing.assert_array_equal(seen, corners[::5])


# 5: layouts


def test_every_legal_layout_is_read_exactly(faults):
    layouts = itertools.cycle(LEGAL.values())
    with faults.goes_on():
        mixes = seen_by_the_network(
            faults.robot,
            lambda cloud: in_place_of(cloud, encode(points_of(cloud), **next(layouts))),
            clouds=100,
            shown=3 * len(LEGAL),
        )
    for healthy, seen in mixes:
        np.testing.assert_array_equal(seen, healthy[::5])


# 6: size


def test_clouds_of_millions_of_points_cost_no_tick_and_little_memory(faults):
    """As many as pass from process to process here; in test_pointcloud.py, the decoder alone is given 50 million."""
    robot, clouds = faults.robot, 10
    camera = subprocess.Popen(
        [sys.executable, big_camera.__file__, str(clouds)],
        env=os.environ | ENVIRONMENT | PROFILE | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert camera.stdout.readline() == "ready\n"
    shown, rss_mb = len(robot.policy_points), robot.rss_mb()
    with faults.goes_on():
        robot.clouds_sent = lambda cloud: []  # else the small ones would take the place of the big ones
        camera.stdin.write("go\n")
        camera.stdin.flush()
        robot.until(
            lambda: sum(not points_of(seen).any() for seen in robot.policy_points[shown:]) >= clouds // 2
        )
        robot.clouds_sent = lambda cloud: [cloud]
    camera.communicate()
    assert camera.returncode == 0
    assert robot.rss_mb() - rss_mb < 10 * big_camera.BYTES / 1e6


# 7: rates and order


def test_clouds_that_stop_are_not_used_for_longer_than_the_timeout(faults):
    with faults.holds(**stale):
        faults.robot.cloud_on = False


def test_clouds_at_less_than_the_rate_of_the_timeout_hold(faults):
    comes = itertools.cycle([False] * 59 + [True])
    with faults.holds(**stale):
        faults.robot.clouds_sent = lambda cloud: [cloud] if next(comes) else []


def test_of_a_burst_with_duplicates_the_newest_cloud_wins(faults):
    robot = faults.robot
    with faults.goes_on(drops=["cloud_out_of_order"]):
        robot.sensor_dt_s = 0.005
        robot.clouds_sent = lambda cloud: [cloud] * 3
        first = len(robot.stream)
        robot.until(lambda: len(robot.stream) >= first + 25)


def test_clouds_out_of_order_are_never_used(faults):
    robot, far_away = faults.robot, np.full((40, 3), 0.9, "<f4")
    is_late = itertools.cycle([False, True])

    def every_other_one_late(cloud):
        if not next(is_late):
            return [cloud]
        late = in_place_of(cloud, encode(far_away))
        late.header.stamp = shifted(cloud.header.stamp, -1)
        return [late]

    with faults.goes_on(drops=["cloud_out_of_order"]):
        robot.clouds_sent, shown = every_other_one_late, len(robot.policy_points)
        first = len(robot.stream)
        robot.until(lambda: len(robot.stream) >= first + 25)
    assert not any((points_of(message) == 0.9).any() for message in robot.policy_points[shown:])
    stamps = [sent.stamp_ns for sent in by_policy(robot.stream[first:])]
    assert (np.diff(stamps) >= 0).all()


# 8: stamps


def test_stamps_an_hour_off_hold(faults):
    hours = itertools.cycle([1, -1])

    def off(cloud):
        cloud.header.stamp = shifted(cloud.header.stamp, next(hours) * HOUR_S)
        return [cloud]

    with faults.holds(**stale, drops=["cloud_bad_stamp"]):
        faults.robot.clouds_sent = off


def test_clouds_without_a_stamp_are_watched_by_their_arrival(faults):
    """Their commands have no stamp either, which in the stream is that of a hold: so these are told by their motion."""
    robot = faults.robot

    def unstamped(cloud):
        cloud.header.stamp = Time()
        return [cloud]

    faults.move()
    held, first = robot.counter("held_cloud_stale"), len(robot.stream)
    robot.clouds_sent = unstamped
    robot.until(lambda: len(robot.stream) >= first + 30)
    assert robot.status.message == "active: running"
    assert np.diff([sent.positions for sent in robot.stream[-5:]], axis=0).any(axis=1).all()
    robot.cloud_on = False
    robot.until(lambda: robot.status.message == "active: holding: cloud_stale")
    robot.held(commands=5)
    assert robot.counter("held_cloud_stale") == held + 1
    faults.observe(robot.stream[first:], held_for="cloud_stale")
    faults.move()


def test_stamps_that_stand_still_hold(faults):
    stamp = faults.robot.node.get_clock().now().to_msg()

    def frozen(cloud):
        cloud.header.stamp = stamp
        return [cloud]

    with faults.holds(**stale, drops=["cloud_out_of_order"]):
        faults.robot.clouds_sent = frozen


# 9: frames


def test_clouds_in_an_unknown_frame_are_never_taken_as_they_are(faults):
    frames = itertools.cycle(["camera", "", "World"])

    def elsewhere(cloud):
        cloud.header.frame_id = next(frames)
        return [cloud]

    with faults.holds(**stale, drops=["cloud_wrong_frame"]):
        faults.robot.clouds_sent = elsewhere


# 10: scenes that are none


def test_clouds_outside_the_crop_box_are_no_observation(faults):
    with faults.holds(**stale, drops=["cloud_too_few_points"]):
        faults.robot.cloud = np.full((40, 3), 5.0)


def test_poor_scenes_are_padded_as_the_contract_says(faults):
    points = np.random.default_rng(2).uniform(0.2, 0.4, (40, 3)).astype("<f4")
    plane, one_point, fewest = points * [1, 1, 0], np.repeat(points[:1], 40, axis=0), points[:5]
    scenes = itertools.cycle([plane.astype("<f4"), one_point, fewest])
    expected = [plane.astype("<f4")[::5], one_point[::5], points[[0, 1, 2, 3, 4, 0, 1, 2]]]
    with faults.goes_on():
        mixes = seen_by_the_network(
            faults.robot, lambda cloud: in_place_of(cloud, encode(next(scenes))), clouds=30, shown=20
        )
    found = {seen.tobytes() for _, seen in mixes}
    assert found == {points.tobytes() for points in expected}
