"""Clouds are processed beside the loop: the newest wins, bad ones are counted by reason and harm nothing."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from policy_runner import cloud_worker
from policy_runner.cloud_frames import FixedFrame, TransformJumpError
from policy_runner.cloud_worker import REASONS, CloudDrop, CloudWorker
from policy_runner.frames import FrameError, NoTransformError, StaleTransformError
from policy_runner.stamp_order import StampOrder


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
    worker = CloudWorker(spec, FixedFrame("world"), order=StampOrder(settle_s=1.0))
    yield worker
    worker.close()


def wait_for(condition):
    deadline = time.monotonic() + 30.0  # only against hanging
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def submit(worker, points, stamp_ns=1, frame="world", arrival_s=None):
    arrival_s = stamp_ns * 1e-3 if arrival_s is None else arrival_s
    worker.submit(cloud(points), frame=frame, stamp_ns=stamp_ns, arrival_s=arrival_s)


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

    def slow_decode(message, max_points):
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
    wait_for(lambda: worker.drops[CloudDrop.FAILED] == 1)
    assert worker.last_drop.startswith("cloud_failed: AttributeError")
    submit(worker, np.full((9, 3), 0.5), stamp_ns=2)
    wait_for(lambda: worker.newest() is not None)


def test_points_are_brought_into_the_contracts_frame(spec):
    half = np.sqrt(0.5)
    frames = FixedFrame("camera", (0.5, 0.25, 0.0, 0.0, 0.0, half, half))
    worker = CloudWorker(spec, frames, order=StampOrder(settle_s=1.0))
    submit(worker, np.full((9, 3), [0.1, 0.2, 0.3]), frame="camera")
    wait_for(lambda: worker.newest() is not None)
    worker.close()
    # a quarter turn about z takes (x, y) to (-y, x)
    np.testing.assert_allclose(worker.newest().points, np.full((8, 3), [0.3, 0.35, 0.3]), atol=1e-6)


@pytest.mark.parametrize("error", [NoTransformError, StaleTransformError, TransformJumpError])
def test_where_a_cloud_is_not_known_it_is_dropped_undecoded_and_the_frame_is_named(spec, error, monkeypatch):
    class Nowhere:
        def matrix(self, frame, *, stamp_ns, arrival_s):
            raise error(f"frame {frame!r} at {stamp_ns} ns, {arrival_s} s")

    monkeypatch.setattr(cloud_worker, "decode", lambda *_, **__: pytest.fail("decoded"))
    worker = CloudWorker(spec, Nowhere(), order=StampOrder(settle_s=1.0))
    submit(worker, np.full((9, 3), 0.5), stamp_ns=7, frame="camera")
    wait_for(lambda: worker.drops[REASONS[error]] == 1)
    worker.close()
    assert worker.last_drop == f"{REASONS[error].value}: frame 'camera' at 7 ns, 0.007 s"
    assert worker.newest() is None


def test_late_repeated_and_absurd_stamps_are_counted_and_never_stand_in_for_a_newer_cloud(worker):
    for stamp_ns, value in ((50, 0.5), (50, 0.6), (49, 0.7), (-1, 0.8), (3_600_000_000_000, 0.9)):
        submit(worker, np.full((9, 3), value), stamp_ns=stamp_ns, arrival_s=0.5)
    wait_for(lambda: worker.newest() is not None)
    assert worker.newest().points.max() == 0.5
    assert worker.drops == {CloudDrop.OUT_OF_ORDER: 2, CloudDrop.BAD_STAMP: 2}


def test_a_large_cloud_is_thinned_before_it_is_processed(spec):
    worker = CloudWorker(spec, FixedFrame("world"), order=StampOrder(settle_s=1.0), max_points=8)
    points = np.linspace(0.0, 1.0, 24)[:, None].repeat(3, axis=1).astype(np.float32)
    submit(worker, points)
    wait_for(lambda: worker.newest() is not None)
    worker.close()
    np.testing.assert_array_equal(worker.newest().points, points[::3])


def test_each_dropped_cloud_is_reported_with_its_reason_but_not_one_that_a_newer_one_replaced(
    spec, monkeypatch
):
    lines, go_on = [], []
    slow = cloud_worker.decode

    def slow_decode(message, max_points):
        wait_for(lambda: go_on)
        return slow(message, max_points=max_points)

    monkeypatch.setattr(cloud_worker, "decode", slow_decode)
    worker = CloudWorker(spec, FixedFrame("world"), order=StampOrder(settle_s=1.0), report=lines.append)
    for stamp_ns in range(1, 5):
        submit(worker, np.empty((0, 3)), stamp_ns=stamp_ns)
    go_on.append(True)
    wait_for(lambda: worker.drops[CloudDrop.SUPERSEDED] + worker.drops[CloudDrop.TOO_FEW_POINTS] == 4)
    worker.close()
    assert worker.drops[CloudDrop.SUPERSEDED] > 0
    expected = "cloud_too_few_points: 0 points inside the crop box, expected at least 4"
    assert lines == [expected] * worker.drops[CloudDrop.TOO_FEW_POINTS]


def test_every_frame_error_has_a_reason_of_its_own():
    def leaves(kind):
        return {kind} if not kind.__subclasses__() else set().union(*map(leaves, kind.__subclasses__()))

    assert leaves(FrameError) <= set(REASONS)
    assert len(set(REASONS.values())) == len(REASONS)


def test_ending_it_ends_its_thread_even_while_it_works(spec):
    before = set(threading.enumerate())
    for stamp_ns in range(1, 101):
        worker = CloudWorker(spec, FixedFrame("world"), order=StampOrder(settle_s=1.0))
        submit(worker, np.full((9, 3), 0.5), stamp_ns=stamp_ns)
        worker.close()
    assert set(threading.enumerate()) <= before
