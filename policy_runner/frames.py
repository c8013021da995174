"""Where one frame is in another: a tree of transforms, as /tf and /tf_static tell it.

There is no fallback: where a frame is not known, or not at the moment in question, there is an error and no pose.
Between two transforms of a moving frame its pose is interpolated; beyond the last one it is not extrapolated.
"""

from __future__ import annotations

import bisect
import difflib
import math
import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

HISTORY_NS = 10_000_000_000
"""How far back a moving frame is remembered."""
MAX_SAMPLES = 1000
"""Of a moving frame: 10 s of one that is told at 100 Hz, 1 s at 1 kHz."""
MAX_FRAMES = 1000
"""Of a tree; what else is told is refused."""
MAX_POSITION_M = 1e8
"""Beyond the earth, and far below what overflows."""
MIN_NORM = 1e-6
"""A quaternion shorter than this is one that nobody filled in."""


class TransformError(ValueError):
    """A transform that says nothing about where a frame is."""


class FrameError(LookupError):
    """Why it is not known where a frame is."""


class NoTransformError(FrameError):
    """A frame is unknown, or no chain of transforms leads from it to the other one."""


class StaleTransformError(FrameError):
    """A transform was told too long before or after the moment in question."""


@dataclass(frozen=True, kw_only=True)
class StampedTransform:
    """Pose of `child` in `parent` at one moment."""

    parent: str
    child: str
    stamp_ns: int
    position: Float64
    """(3,) [m]."""
    quaternion: Float64
    """(4,) x y z w; normalised here."""

    def __post_init__(self) -> None:
        what = f"transform of {self.child!r} in {self.parent!r}"
        if not self.parent or not self.child or self.parent == self.child:
            raise TransformError(f"{what}: expected two different frames")
        position, quaternion = np.asarray(self.position, float), np.asarray(self.quaternion, float)
        with np.errstate(over="ignore"):
            norm = float(np.linalg.norm(quaternion))
        if not ((np.abs(position) < MAX_POSITION_M).all() and MIN_NORM < norm < math.inf):
            raise TransformError(
                f"{what}: expected a position and a quaternion that are finite, the latter not zero, "
                f"got {position.tolist()}, {quaternion.tolist()}"
            )
        object.__setattr__(self, "position", position)
        object.__setattr__(self, "quaternion", quaternion / norm)


class FrameTree:
    """A tree of frames, static and moving ones; transforms may come from one thread while another one asks."""

    def __init__(self, *, timeout_s: float) -> None:
        """Start without frames.

        timeout_s: how far from the moment asked for the nearest transform of a moving frame may be.
        """
        self._timeout_ns = round(timeout_s * 1e9)
        self._links: dict[str, _Link] = {}
        self._lock = threading.Lock()

    def add(self, transform: StampedTransform, *, static: bool) -> None:
        """Take what was told of a frame; a frame that was told to be in two others is of no use from then on.

        Raises:
            TransformError: there are too many frames already.
        """
        with self._lock:
            link = self._links.get(transform.child)
            if link is None:
                if len(self._links) >= MAX_FRAMES:
                    raise TransformError(f"frame {transform.child!r}: expected at most {MAX_FRAMES} frames")
                link = self._links[transform.child] = _Link(transform.parent)
            link.add(transform, static=static)

    def lookup(self, source: str, target: str, stamp_ns: int) -> Float64:
        """Return the (4, 4) transform that takes points from `source` into `target`, as of a moment.

        stamp_ns: the moment; 0, which is none, will do for frames that do not move against each other.

        Raises:
            NoTransformError: a frame is unknown, is in two others, or nothing connects the two.
            StaleTransformError: no transform of a moving frame between them is near enough to that moment.
        """
        with self._lock:
            up, down = self._ancestors(source), self._ancestors(target)
            common = next((frame for frame in up if frame in down), None)
            if common is None:
                raise NoTransformError(self._unconnected(source, target))
            into_common = self._into_ancestor(up[: up.index(common)], stamp_ns)
            from_target = self._into_ancestor(down[: down.index(common)], stamp_ns)
        return _inverse(from_target) @ into_common

    def _ancestors(self, frame: str) -> list[str]:
        """A frame and those above it, as far as they are known; a loop is gone round once."""
        found = [frame]
        while (link := self._links.get(found[-1])) is not None and link.parent not in found:
            found.append(link.parent)
        return found

    def _into_ancestor(self, frames: list[str], stamp_ns: int) -> Float64:
        """Transform from the first of a chain of frames into the parent of the last one."""
        matrix = np.eye(4)
        for frame in frames:
            matrix = self._links[frame].matrix(frame, stamp_ns, self._timeout_ns) @ matrix
        return matrix

    def _unconnected(self, source: str, target: str) -> str:
        known = sorted({*self._links, *(link.parent for link in self._links.values())})
        for frame in (source, target):
            if frame not in known:
                nearest = difflib.get_close_matches(frame, known, n=1)
                hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {known[:10]}"
                return f"no transform of frame {frame!r}; {hint}"
        return f"no transform from frame {source!r} into {target!r}: nothing connects them"


class _Link:
    """How one frame hangs from its parent: a history, or a single transform where it does not move."""

    def __init__(self, parent: str) -> None:
        self.parent = parent
        self._other_parent = ""
        self._static = False
        self._stamps: list[int] = []
        self._poses: list[StampedTransform] = []

    def add(self, transform: StampedTransform, *, static: bool) -> None:
        if transform.parent != self.parent:
            self._other_parent = transform.parent
            return
        stamp_ns = transform.stamp_ns
        if static or self._static or (self._stamps and stamp_ns < self._stamps[-1] - HISTORY_NS):
            self._stamps, self._poses = (
                [],
                [],
            )  # the last kind counts; and a clock that was set back starts anew
        self._static = static
        index = bisect.bisect_left(self._stamps, stamp_ns)
        replaces = index < len(self._stamps) and self._stamps[index] == stamp_ns
        self._stamps[index : index + replaces] = [stamp_ns]
        self._poses[index : index + replaces] = [transform]
        outdated = bisect.bisect_left(self._stamps, self._stamps[-1] - HISTORY_NS)
        outdated = max(outdated, len(self._stamps) - MAX_SAMPLES)
        del self._stamps[:outdated], self._poses[:outdated]

    def matrix(self, frame: str, stamp_ns: int, timeout_ns: int) -> Float64:
        if self._other_parent:
            raise NoTransformError(
                f"frame {frame!r} is told to be in two others: {self.parent!r} and {self._other_parent!r}"
            )
        if self._static:
            return pose_matrix(self._poses[0].position, self._poses[0].quaternion)
        if stamp_ns == 0:
            raise StaleTransformError(f"frame {frame!r} moves in {self.parent!r}, but the cloud has no stamp")
        after = bisect.bisect_left(self._stamps, stamp_ns)
        near = range(max(after - 1, 0), min(after + 1, len(self._stamps)))
        apart_ns = min((self._stamps[index] - stamp_ns for index in near), key=abs)
        if abs(apart_ns) > timeout_ns:
            raise StaleTransformError(
                f"transform of frame {frame!r} in {self.parent!r}: the nearest is {abs(apart_ns) * 1e-9:.3f} s "
                f"{'newer' if apart_ns > 0 else 'older'} than the cloud; expected at most {timeout_ns * 1e-9} s"
            )
        first, last = self._poses[near[0]], self._poses[near[-1]]
        if first is last:
            return pose_matrix(first.position, first.quaternion)
        share = (stamp_ns - first.stamp_ns) / (last.stamp_ns - first.stamp_ns)
        position = (1.0 - share) * first.position + share * last.position
        return pose_matrix(position, _slerp(first.quaternion, last.quaternion, share))


def pose_matrix(position: Float64, quaternion: Float64) -> Float64:
    """Return the (4, 4) transform of a pose: x y z [m] and a quaternion x y z w, normalised here."""
    x, y, z, w = np.asarray(quaternion, np.float64) / np.linalg.norm(quaternion)
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, 3] = position
    return matrix


def _slerp(first: Float64, last: Float64, share: float) -> Float64:
    """Turn at constant speed, the shorter way, from one unit quaternion to another. Shoemake 1985."""
    cosine = float(first @ last)
    if cosine < 0.0:  # the same rotation the other way round
        last, cosine = -last, -cosine
    angle = math.acos(min(cosine, 1.0))
    if angle < 1e-6:  # below it, the sines' ratio is the share itself to double precision
        return (1.0 - share) * first + share * last
    return (math.sin((1.0 - share) * angle) * first + math.sin(share * angle) * last) / math.sin(angle)


def _inverse(matrix: Float64) -> Float64:
    inverse = np.eye(4)
    inverse[:3, :3] = matrix[:3, :3].T
    inverse[:3, 3] = -matrix[:3, :3].T @ matrix[:3, 3]
    return inverse


def pose_distance(first: Float64, last: Float64) -> tuple[float, float]:
    """Return how far apart two poses (4, 4) are: [m] and [rad]."""
    turn = first[:3, :3].T @ last[:3, :3]
    sine = 0.5 * np.linalg.norm([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])
    cosine = 0.5 * (np.trace(turn) - 1.0)
    return float(np.linalg.norm(last[:3, 3] - first[:3, 3])), math.atan2(sine, cosine)
