"""Clouds are processed beside the loop: the newest wins, bad ones are counted by reason and harm nothing."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from policy_runner import cloud_worker
from policy_runner.cloud_worker import CloudDrop, CloudWorker, pose_matrix


def cloud(points):
    points = np.asarray(points, "<f4")
    fields = [SimpleNamespace(name=n, offset=4 * i, datatype=7, count=1) for i, n in enumerate("xyz")]
    return SimpleNamespace(
        height=1,
        width=len(points),
        fields=fields,
        is_bigendian=False,
        point_step=12,
        row_step=12 * len(points),
        data=points.tobytes(),
    )


@pytest.fixture
def spec(bundles):
    return replace(bundles.contract().point_cloud, min_points=4)


@pytest.fixture
def worker(spec):
    worker = CloudWorker(spec, frame="world")
    yield worker
    worker.close()


def wait_for(condition):
    deadline = time.monotonic() + 30.0  # only against hanging
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def submit(worker, points, stamp_ns=1, frame="world"):
    worker.submit(cloud(points), frame=frame, stamp_ns=stamp_ns, arrival_s=stamp_ns * 1e-3)


def test_a_cloud_becomes_a_sample_with_its_own_times(worker):
    assert worker.newest() is None
    points = np.random.default_rng(0).uniform(0, 1, (24, 3)).astype(np.float32)
    submit(worker, points, stamp_ns=77)
    wait_for(lambda: worker.newest() is not None)
    sample = worker.newest()
    np.testing.assert_array_equal(sample.points, points[::3])
    assert (sample.stamp_ns, sample.arrival_s) == (77, 0.077)


def test_while_one_is_processed_only_the_newest_of_the_others_is_kept(worker, monkeypatch):
    started, go_on = [], []

    def slow_decode(message):
        started.append(message)
        wait_for(lambda: go_on)
        return np.frombuffer(message.data, "<f4").reshape(-1, 3)

    monkeypatch.setattr(cloud_worker, "decode", slow_decode)
    submit(worker, np.full((9, 3), 0.1), stamp_ns=1)
    wait_for(lambda: started)
    for stamp_ns in range(2, 12):
        submit(worker, np.full((9, 3), 0.05 * stamp_ns), stamp_ns=stamp_ns)
    assert worker.newest() is None
    go_on.append(True)
    wait_for(lambda: worker.newest() is not None and worker.newest().stamp_ns == 11)
    assert worker.drops == {CloudDrop.SUPERSEDED: 9}


@pytest.mark.parametrize(
    ("points", "frame", "reason", "text"),
    [
        (np.full((9, 3), 0.5), "camera", CloudDrop.WRONG_FRAME, "frame 'camera', expected 'world'"),
        (np.full((9, 3), np.nan), "world", CloudDrop.TOO_FEW_POINTS, "0 points inside the crop box"),
        (np.full((3, 3), 0.5), "world", CloudDrop.TOO_FEW_POINTS, "expected at least 4"),
        (np.empty((0, 3)), "world", CloudDrop.TOO_FEW_POINTS, "0 points"),
    ],
)
def test_a_bad_cloud_is_counted_by_reason_and_the_last_good_one_stays(worker, points, frame, reason, text):
    submit(worker, np.full((9, 3), 0.5), stamp_ns=1)
    wait_for(lambda: worker.newest() is not None)
    submit(worker, points, stamp_ns=2, frame=frame)
    wait_for(lambda: worker.drops[reason] == 1)
    assert worker.newest().stamp_ns == 1
    assert worker.last_drop.startswith(reason.value) and text in worker.last_drop
    submit(worker, np.full((9, 3), 0.5), stamp_ns=3)
    wait_for(lambda: worker.newest().stamp_ns == 3)


def test_a_malformed_cloud_is_counted(worker):
    message = cloud(np.full((9, 3), 0.5))
    message.data = message.data[:-1]
    worker.submit(message, frame="world", stamp_ns=1, arrival_s=0.0)
    wait_for(lambda: worker.drops[CloudDrop.MALFORMED] == 1)


def test_an_error_nobody_foresaw_does_not_end_the_thread(worker):
    worker.submit(None, frame="world", stamp_ns=1, arrival_s=0.0)
    wait_for(lambda: worker.drops[CloudDrop.MALFORMED] == 1)
    submit(worker, np.full((9, 3), 0.5), stamp_ns=2)
    wait_for(lambda: worker.newest() is not None)


def test_points_are_brought_into_the_contracts_frame(spec):
    half = np.sqrt(0.5)
    worker = CloudWorker(spec, frame="camera", transform=pose_matrix((0.5, 0.25, 0.0, 0.0, 0.0, half, half)))
    submit(worker, np.full((9, 3), [0.1, 0.2, 0.3]), frame="camera")
    wait_for(lambda: worker.newest() is not None)
    worker.close()
    # a quarter turn about z takes (x, y) to (-y, x)
    np.testing.assert_allclose(worker.newest().points, np.full((8, 3), [0.3, 0.35, 0.3]), atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_a_pose_turns_vectors_as_the_quaternion_product_does(seed):
    rng = np.random.default_rng(seed)
    quaternion, position, vector = rng.normal(size=4), rng.normal(size=3), rng.normal(size=3)
    matrix = pose_matrix((*position, *quaternion))
    u, w = quaternion[:3] / np.linalg.norm(quaternion), quaternion[3] / np.linalg.norm(quaternion)
    expected = vector + 2.0 * np.cross(u, np.cross(u, vector) + w * vector) + position
    np.testing.assert_allclose(matrix @ [*vector, 1.0], [*expected, 1.0], atol=1e-12)
