"""Raw clouds of a recording go through the cloud chain again and give the points that were recorded."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from recorded_run import Clock, wild_networks

from policy_runner.bag import message_types, read_bag
from policy_runner.bag_writer import BagWriter, Entry
from policy_runner.cloud_frames import FixedFrame
from policy_runner.cloud_replay import make_again
from policy_runner.inputs import CloudSample
from policy_runner.journal import CLOUD_TYPE, Journal, read_journal
from policy_runner.pointcloud import decode, preprocess
from policy_runner.recording import RecordedController
from policy_runner.settings import RunnerSettings

POSE = (0.1, 0.0, 0.0, 0.0, 0.0, 0.1, 0.995)


def raw_message(points, *, stamp_ns, frame):
    """A cloud with 4 bytes of something else in front of each point."""
    types = message_types().types
    data = np.zeros(len(points), np.dtype([("other", "<u4"), ("xyz", "<f4", 3)]))
    data["xyz"] = points
    sec, nanosec = divmod(stamp_ns, 10**9)
    field = types["sensor_msgs/msg/PointField"]
    return types[CLOUD_TYPE](
        header=types["std_msgs/msg/Header"](
            stamp=types["builtin_interfaces/msg/Time"](sec=sec, nanosec=nanosec), frame_id=frame
        ),
        height=1,
        width=len(points),
        fields=[field(name=n, offset=4 + 4 * i, datatype=7, count=1) for i, n in enumerate("xyz")],
        is_bigendian=False,
        point_step=16,
        row_step=16 * len(points),
        data=np.frombuffer(data.tobytes(), np.uint8),
        is_dense=True,
    )


def stamp_of(cloud):
    return cloud.header.stamp.sec * 10**9 + cloud.header.stamp.nanosec


def record_clouds(bundles, path, count=20, *, pose=None, unstamped=False):
    """Record raw clouds and, a little later, the samples that were made of them; every second one is superseded."""
    rng, clock = np.random.default_rng(0), Clock()
    network = wild_networks(bundles)[0]
    spec = network.contract.point_cloud
    settings = (
        RunnerSettings() if pose is None else RunnerSettings(cloud_frame="camera", cloud_extrinsics=pose)
    )
    bag = BagWriter(path, max_bytes=1 << 30, on_end=pytest.fail)
    journal = Journal(bag, node="/runner", frame=spec.frame, clock=clock)
    network.ready = True
    controller = RecordedController(network, settings, journal=journal, clock=clock)
    frame = "world" if pose is None else "camera"
    matrix = FixedFrame(frame, pose).matrix(frame, stamp_ns=0, arrival_s=0.0)
    for number in range(count):
        clock.now_s += 0.03
        arrival_s, stamp_ns = clock(), 0 if unstamped else 10**18 + number
        points = rng.uniform(0.3, 0.6, (100, 3)).astype(np.float32)
        points[rng.integers(100, size=20)] = np.nan
        message = raw_message(points, stamp_ns=stamp_ns, frame=frame)
        encode = partial(message_types().serialize_cdr, message, CLOUD_TYPE)
        journal.message("/points", CLOUD_TYPE, encode, at_s=arrival_s, size=message.data.nbytes, bulky=True)
        if number % 2:
            sample = preprocess(decode(message), spec, matrix)
            clock.now_s += 0.02
            controller.set_cloud(CloudSample(points=sample, stamp_ns=stamp_ns, arrival_s=arrival_s))
    journal.close()
    bag.close()
    return path


def changed(source, target, change):
    """Copy a bag with its raw clouds changed; change: called with a message, may return None."""
    bag = BagWriter(target, max_bytes=1 << 30, on_end=pytest.fail)
    for message in read_bag(source):
        data = message.data
        if message.topic == "/points":
            if (cloud := change(message_types().deserialize_cdr(data, CLOUD_TYPE))) is None:
                continue
            data = bytes(message_types().serialize_cdr(cloud, CLOUD_TYPE))
        encode = partial(bytes, data)
        bag.put(Entry(topic=message.topic, type=message.type, log_time_ns=message.log_time_ns, encode=encode))
    bag.close()
    return target


@pytest.mark.parametrize("pose", [None, POSE])
@pytest.mark.parametrize("unstamped", [False, True])
def test_all_samples_come_out_again_to_the_bit(bundles, tmp_path, pose, unstamped):
    bag = record_clouds(bundles, tmp_path / "bag", pose=pose, unstamped=unstamped)
    outcome = make_again(read_journal(bag))
    assert (outcome.equal, outcome.different, outcome.without_raw, outcome.moved) == (10, 0, 0, 0)
    assert str(outcome) == "10 made again from raw clouds, all equal to the bit"


def test_a_raw_cloud_that_was_changed_is_found_with_the_distance(bundles, tmp_path):
    def move(cloud):
        xyz = cloud.data.view(np.dtype([("other", "<u4"), ("xyz", "<f4", 3)]))["xyz"].copy()
        return raw_message(xyz + np.float32(0.01), stamp_ns=stamp_of(cloud), frame=cloud.header.frame_id)

    bag = record_clouds(bundles, tmp_path / "bag")
    outcome = make_again(read_journal(changed(bag, tmp_path / "moved", move)))
    assert (outcome.equal, outcome.different) == (0, 10)
    assert outcome.largest_m == pytest.approx(0.01, rel=1e-4)
    assert "10 NOT as recorded, by up to 0.01" in str(outcome)


def test_raw_clouds_that_are_not_there_or_were_moved_by_tf_are_counted(bundles, tmp_path):
    bag = record_clouds(bundles, tmp_path / "bag")
    missing = changed(
        bag, tmp_path / "missing", lambda cloud: cloud if stamp_of(cloud) > 10**18 + 10 else None
    )
    outcome = make_again(read_journal(missing))
    assert (outcome.equal, outcome.without_raw) == (5, 5)
    assert str(outcome).endswith("; 5 without raw cloud")

    def elsewhere(cloud):
        cloud.header.frame_id = "wrist"
        return cloud

    outcome = make_again(read_journal(changed(bag, tmp_path / "elsewhere", elsewhere)))
    assert (outcome.equal, outcome.moved) == (0, 10)
