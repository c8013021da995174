"""Process clouds beside the control loop, in a thread of their own: the newest wins, no tick ever waits."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from enum import Enum

from policy_runner.cloud_frames import CloudFrames, TransformJumpError, WrongFrameError
from policy_runner.contract import PointCloudSpec
from policy_runner.frames import NoTransformError, StaleTransformError
from policy_runner.inputs import CloudSample
from policy_runner.pointcloud import (
    MAX_POINTS,
    CloudLike,
    MalformedCloudError,
    TooFewPointsError,
    decode,
    load_sampler,
    preprocess,
)
from policy_runner.stamp_order import BadStampError, OutOfOrderError, StampError, StampOrder


class CloudDrop(Enum):
    """Why a cloud gave no sample."""

    SUPERSEDED = "cloud_superseded"
    """A newer one came before this one's turn."""
    OUT_OF_ORDER = "cloud_out_of_order"
    BAD_STAMP = "cloud_bad_stamp"
    WRONG_FRAME = "cloud_wrong_frame"
    NO_TRANSFORM = "cloud_no_transform"
    TRANSFORM_STALE = "cloud_transform_stale"
    TRANSFORM_JUMP = "cloud_transform_jump"
    MALFORMED = "cloud_malformed"
    TOO_FEW_POINTS = "cloud_too_few_points"
    FAILED = "cloud_failed"
    """For a reason that nobody foresaw."""


REASONS: dict[type[Exception], CloudDrop] = {
    OutOfOrderError: CloudDrop.OUT_OF_ORDER,
    BadStampError: CloudDrop.BAD_STAMP,
    WrongFrameError: CloudDrop.WRONG_FRAME,
    NoTransformError: CloudDrop.NO_TRANSFORM,
    StaleTransformError: CloudDrop.TRANSFORM_STALE,
    TransformJumpError: CloudDrop.TRANSFORM_JUMP,
    MalformedCloudError: CloudDrop.MALFORMED,
    TooFewPointsError: CloudDrop.TOO_FEW_POINTS,
}


class CloudWorker:
    """A thread that turns the newest cloud into the points of the network."""

    def __init__(
        self,
        spec: PointCloudSpec,
        frames: CloudFrames,
        *,
        order: StampOrder,
        max_points: int = MAX_POINTS,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Start the thread.

        frames: bring clouds into `spec.frame`; order: tells which clouds are news; max_points: larger clouds
        are thinned; report: called with a line about each cloud that is dropped, from whatever thread.
        """
        self._spec, self._frames, self._order = spec, frames, order
        self._max_points, self._report = max_points, report
        self._wake = threading.Condition()
        self._waiting: tuple[CloudLike, str, int, float] | None = None
        self._newest: CloudSample | None = None
        self._closed = False
        self.drops: Counter[CloudDrop] = Counter()
        self.last_drop = ""
        """What was wrong with the last cloud that was wrong; empty if none was."""
        load_sampler(spec)
        self._thread = threading.Thread(target=self._work, name="cloud_worker", daemon=True)
        self._thread.start()

    def submit(self, cloud: CloudLike, *, frame: str, stamp_ns: int, arrival_s: float) -> None:
        """Hand over a cloud and return at once; a cloud that still waits is dropped for it. Call from one thread."""
        try:
            self._order.check(stamp_ns, arrival_s)
        except StampError as error:
            self.drop(error)
            return
        with self._wake:
            if self._waiting is not None:
                self.drops[CloudDrop.SUPERSEDED] += 1
            self._waiting = (cloud, frame, stamp_ns, arrival_s)
            self._wake.notify()

    def drop(self, error: Exception) -> None:
        """Count a cloud that gives no sample, and say why."""
        reason = REASONS.get(type(error), CloudDrop.FAILED)
        what = str(error) if reason is not CloudDrop.FAILED else repr(error)
        with self._wake:
            self.drops[reason] += 1
            self.last_drop = f"{reason.value}: {what}"
            line = self.last_drop
        self._report(line)

    def newest(self) -> CloudSample | None:
        """Return the newest sample, or None while there is none."""
        with self._wake:
            return self._newest

    def close(self) -> None:
        """End the thread and wait for it."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._closed or self._waiting is not None)
                if self._closed or self._waiting is None:
                    return
                cloud, frame, stamp_ns, arrival_s = self._waiting
                self._waiting = None
            try:
                matrix = self._frames.matrix(frame, stamp_ns=stamp_ns, arrival_s=arrival_s)
                points = preprocess(decode(cloud, max_points=self._max_points), self._spec, matrix)
            except Exception as error:  # whatever it is, no message may end this thread
                self.drop(error)
            else:
                sample = CloudSample(points=points, stamp_ns=stamp_ns, arrival_s=arrival_s)
                with self._wake:
                    self._newest = sample
