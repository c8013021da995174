"""When a camera takes pictures, and when others get them: at a rate of its own, and late."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

Picture = TypeVar("Picture")

NANOSECONDS = 1_000_000_000
SLACK_NS = 1_000
"""Latencies are often multiples of a control period, which is no whole number of nanoseconds."""


class Shot(NamedTuple, Generic[Picture]):
    """A picture and when it was taken."""

    picture: Picture
    taken_ns: int


class Shutter(Generic[Picture]):
    """Takes pictures at the first moment at or after every period that it is asked, and holds each back for a while.

    The clock is the caller's, so that it can be a real one or that of a simulated world.
    """

    def __init__(self, *, rate_hz: float, latency_s: float) -> None:
        """rate_hz: 0 takes a picture whenever asked."""
        self._period_ns = int(NANOSECONDS / rate_hz) if rate_hz > 0.0 else 1
        self._latency_ns = round(latency_s * NANOSECONDS)
        self._waiting: deque[Shot[Picture]] = deque()
        self._start_ns: int | None = None
        self._now_ns = self._period = 0
        self._taken = 0

    def cut(self) -> None:
        """Forget what was seen: the scene is another one, and it will have stood there for long."""
        self._waiting.clear()
        self._start_ns = None

    def open(self, now_ns: int, take: Callable[[int], Picture]) -> Shot[Picture] | None:
        """Take a picture if it is time for one; return the newest that is due, or None where none has become so.

        take: called with the number of the picture. Right after a cut, a picture is due at once: one of the same scene
        was taken long enough ago.
        """
        if now_ns < self._now_ns:  # the clock was set back, and would be long in coming to where it was
            self.cut()
        if self._start_ns is None:
            self._start_ns, self._period = now_ns, 0
            self._take(now_ns - self._latency_ns, take)
        elif (period := (now_ns - self._start_ns) // self._period_ns) > self._period:
            self._period = period
            self._take(now_ns, take)
        self._now_ns = now_ns
        due = None
        while self._waiting and now_ns - self._waiting[0].taken_ns >= self._latency_ns - SLACK_NS:
            due = self._waiting.popleft()
        return due

    def _take(self, now_ns: int, take: Callable[[int], Picture]) -> None:
        self._waiting.append(Shot(take(self._taken), now_ns))
        self._taken += 1
