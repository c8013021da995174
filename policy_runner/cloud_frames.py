"""How clouds come into the frame of the policy: from one frame whose pose is given, or from any that a tree knows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from policy_runner.frames import Float64, FrameError, FrameTree, pose_distance, pose_matrix


class WrongFrameError(FrameError):
    """The cloud is in another frame than the one whose pose was given."""


class TransformJumpError(FrameError):
    """A frame is somewhere else all of a sudden."""


class CloudFrames(Protocol):
    """Says how clouds come into the policy's frame."""

    def matrix(self, frame: str, *, stamp_ns: int, arrival_s: float) -> Float64 | None:
        """Return the (4, 4) transform of points in `frame`; None where they are in the policy's frame already.

        stamp_ns: of the cloud, 0 where it has none; arrival_s: by the monotonic clock.

        Raises:
            FrameError: it is not known; the message names the frame.
        """
        ...


class FixedFrame:
    """The one frame that clouds may have, and its pose."""

    def __init__(self, frame: str, pose: Sequence[float] | None = None) -> None:
        """Take the `frame_id` of clouds, and the pose of that frame: x y z [m] and a quaternion x y z w; None: none."""
        self._frame = frame
        self._matrix = None if pose is None else pose_matrix(np.asarray(pose[:3]), np.asarray(pose[3:]))

    def matrix(self, frame: str, *, stamp_ns: int, arrival_s: float) -> Float64 | None:
        """Return the transform; see `CloudFrames`."""
        if frame != self._frame:
            raise WrongFrameError(f"frame {frame!r}, expected {self._frame!r}")
        return self._matrix


class TrackedFrames:
    """Frames that a tree knows. A jump is an error for a while, so that whoever acts on clouds is sure to notice."""

    def __init__(
        self, tree: FrameTree, target: str, *, max_jump_m: float, max_jump_rad: float, settle_s: float
    ) -> None:
        """Follow `tree` into the frame `target`.

        max_jump_m, max_jump_rad: by which a cloud's frame may move from one cloud to the next; 0: by any.
        settle_s: for which it must then have moved by less before it is used again.
        """
        self._tree, self._target = tree, target
        self._max_jump_m, self._max_jump_rad = max_jump_m or math.inf, max_jump_rad or math.inf
        self._settle_s = settle_s
        self._last: Float64 | None = None
        self._jumped_at_s = -math.inf
        self._jump = ""

    def matrix(self, frame: str, *, stamp_ns: int, arrival_s: float) -> Float64 | None:
        """Return the transform; see `CloudFrames`."""
        if frame == self._target:
            return None
        matrix = self._tree.lookup(frame, self._target, stamp_ns)
        last, self._last = self._last, matrix
        if last is not None:
            moved_m, turned_rad = pose_distance(last, matrix)
            if moved_m > self._max_jump_m or turned_rad > self._max_jump_rad:
                self._jumped_at_s = arrival_s
                self._jump = f"frame {frame!r} jumped by {moved_m:.3f} m, {turned_rad:.3f} rad"
        if arrival_s - self._jumped_at_s < self._settle_s:
            raise TransformJumpError(
                f"{self._jump}; expected at most {self._max_jump_m} m, {self._max_jump_rad} rad"
            )
        return matrix
