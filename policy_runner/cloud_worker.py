"""Process clouds beside the control loop, in a thread of their own: the newest wins, no tick ever waits."""

from __future__ import annotations

import threading
from collections import Counter
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from policy_runner.contract import PointCloudSpec
from policy_runner.inputs import CloudSample
from policy_runner.pointcloud import CloudLike, TooFewPointsError, decode, preprocess


class CloudDrop(Enum):
    """Why a cloud gave no sample."""

    SUPERSEDED = "cloud_superseded"
    """A newer one came before this one's turn."""
    WRONG_FRAME = "cloud_wrong_frame"
    MALFORMED = "cloud_malformed"
    TOO_FEW_POINTS = "cloud_too_few_points"


class CloudWorker:
    """A thread that turns the newest cloud into the points of the network."""

    def __init__(
        self, spec: PointCloudSpec, *, frame: str, transform: NDArray[np.float64] | None = None
    ) -> None:
        """Start the thread.

        frame: the `frame_id` that clouds must have; transform: (4, 4), from there into `spec.frame`.
        """
        self._spec, self._frame, self._transform = spec, frame, transform
        self._wake = threading.Condition()
        self._waiting: tuple[CloudLike, str, int, float] | None = None
        self._newest: CloudSample | None = None
        self._closed = False
        self.drops: Counter[CloudDrop] = Counter()
        self.last_drop = ""
        """What was wrong with the last cloud that was wrong; empty if none was."""
        self._thread = threading.Thread(target=self._work, name="cloud_worker", daemon=True)
        self._thread.start()

    def submit(self, cloud: CloudLike, *, frame: str, stamp_ns: int, arrival_s: float) -> None:
        """Hand over a cloud and return at once; a cloud that still waits is dropped for it."""
        with self._wake:
            if self._waiting is not None:
                self.drops[CloudDrop.SUPERSEDED] += 1
            self._waiting = (cloud, frame, stamp_ns, arrival_s)
            self._wake.notify()

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
            if frame != self._frame:
                self._drop(CloudDrop.WRONG_FRAME, f"frame {frame!r}, expected {self._frame!r}")
                continue
            try:
                points = preprocess(decode(cloud), self._spec, self._transform)
            except TooFewPointsError as error:
                self._drop(CloudDrop.TOO_FEW_POINTS, str(error))
            except Exception as error:  # not only MalformedCloudError: no message may end this thread
                self._drop(CloudDrop.MALFORMED, str(error))
            else:
                sample = CloudSample(points=points, stamp_ns=stamp_ns, arrival_s=arrival_s)
                with self._wake:
                    self._newest = sample

    def _drop(self, reason: CloudDrop, what: str) -> None:
        with self._wake:
            self.drops[reason] += 1
            self.last_drop = f"{reason.value}: {what}"


def pose_matrix(pose: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the (4, 4) transform of a pose: x y z [m] and a quaternion x y z w, normalised here."""
    x, y, z, w = np.asarray(pose[3:], np.float64) / np.linalg.norm(pose[3:])
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, 3] = pose[:3]
    return matrix
