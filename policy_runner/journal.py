"""The journal of a run: what a controller was told and answered, exactly, as one topic of a bag.

Each event is a `diagnostic_msgs/KeyValue`: its key says what happened, its value is JSON with a number `seq` that
counts the events. The first, `begin`, holds the bundle's digest and contract and all settings; `end` is the last
of a run that was not cut short; the others are the calls that `recording.RecordedController` writes down. Clouds
are messages of their own, each directly before its event. All numbers are read back bit for bit.

The log time of a message is when it came, by the clock that judges ages, moved to the time of day of the run's
beginning: no step of the machine's clock changes their order or distance.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy_runner.bag import BagError, BagMessage, message_types, read_bag
from policy_runner.bag_writer import BagWriter, Entry
from policy_runner.clock import now_s

FORMAT = 1
"""Version of the journal; other versions are refused."""
JOURNAL, POLICY_POINTS = "journal", "policy_points"
"""Topics below the name of the node."""
EVENT_TYPE, CLOUD_TYPE = "diagnostic_msgs/msg/KeyValue", "sensor_msgs/msg/PointCloud2"
FLOAT32 = 7
"""`sensor_msgs/PointField.FLOAT32`."""
NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class Event:
    """One event of a journal, as it is read back."""

    kind: str
    seq: int
    log_time_ns: int
    values: Mapping[str, Any]
    """What the event says, without `seq`."""
    points: BagMessage | None
    """The message that it speaks of, for `cloud`."""
    raw_clouds: tuple[BagMessage, ...]
    """Clouds as they came, since the last event."""


class Journal:
    """Writes events and messages of one run into a bag; from any thread, and without ever waiting."""

    def __init__(
        self, bag: BagWriter, *, node: str, frame: str = "", clock: Callable[[], float] = now_s
    ) -> None:
        """Begin an empty journal.

        node: full name of the node whose topics these are; frame: of the points that the network sees; clock: by
        which arrivals are given [s].
        """
        self.bag = bag
        self._node, self._frame, self._clock = node, frame, clock
        self.offset_ns = time.time_ns() - _nanoseconds(clock())
        """Log time less the time by `clock`."""
        self._lock = threading.Lock()
        self._seq = 0

    def event(
        self,
        kind: str,
        values: Mapping[str, Any],
        *,
        at_s: float | None = None,
        points: NDArray[np.float32] | None = None,
    ) -> None:
        """Write an event and, before it, the points that it speaks of.

        values: by name, of what JSON knows, and NumPy arrays; nobody may change them any more.
        at_s: when it was, by the journal's clock [s]; None is now.
        points: (n, 3) [m], as the network sees them.
        """
        log_time_ns = self._log_time_ns(at_s)
        with self._lock:
            numbered = {"seq": self._seq, **values}
            self._seq += 1  # whether there is room or not: a missing number is a missing event
            entry = Entry(
                topic=f"{self._node}/{JOURNAL}",
                type=EVENT_TYPE,
                log_time_ns=log_time_ns,
                encode=lambda: _encode_event(kind, numbered),
            )
            if points is None:
                self.bag.put(entry)
            else:
                self.bag.put(self._policy_points(points, values["stamp_ns"], log_time_ns), entry)

    def message(
        self,
        topic: str,
        type_: str,
        encode: Callable[[], bytes | memoryview],
        *,
        at_s: float | None = None,
        size: int = 0,
        bulky: bool = False,
    ) -> None:
        """Write a message that replay does not need; see `bag.Entry` and `BagWriter.put`."""
        entry = Entry(topic=topic, type=type_, log_time_ns=self._log_time_ns(at_s), encode=encode, size=size)
        self.bag.put(entry, bulky=bulky)

    def close(self) -> None:
        """Write `end`; without it, a reader knows that the run was cut short."""
        self.event("end", {})

    def _policy_points(self, points: NDArray[np.float32], stamp_ns: int, log_time_ns: int) -> Entry:
        return Entry(
            topic=f"{self._node}/{POLICY_POINTS}",
            type=CLOUD_TYPE,
            log_time_ns=log_time_ns,
            encode=lambda: _encode_points(points, self._frame, stamp_ns),
            size=points.nbytes,
        )

    def _log_time_ns(self, at_s: float | None) -> int:
        return self.offset_ns + _nanoseconds(self._clock() if at_s is None else at_s)


def read_journal(path: str | os.PathLike[str]) -> Iterator[Event]:
    """Read the events of a bag's journal in order, beginning with `begin`.

    Raises:
        BagError: the bag cannot be read, holds no journal from its beginning, or one of another format.
    """
    points, raw_clouds, begun = None, [], False
    for message in read_bag(path):
        topic = message.topic.rpartition("/")[2]
        if message.type == CLOUD_TYPE and topic == POLICY_POINTS:
            points = message
        elif message.type == CLOUD_TYPE:
            raw_clouds.append(message)
        if message.type != EVENT_TYPE or topic != JOURNAL:
            continue
        event = _decode_event(path, message, points, tuple(raw_clouds))
        if not begun and (event.kind, event.seq) != ("begin", 0):
            raise BagError(f"{path}: the journal does not start at its beginning, but with {event.kind!r}")
        if event.kind == "begin" and event.values.get("format") != FORMAT:
            raise BagError(
                f"{path}: journal: this build reads format {FORMAT}, the bag has {event.values.get('format')!r}"
            )
        points, raw_clouds, begun = None, [], True
        yield event
    if not begun:
        raise BagError(f"{path}: the bag holds no journal of a policy runner")


def points_of(message: BagMessage) -> NDArray[np.float32]:
    """Return the points (n, 3) [m] of a message that `Journal.policy_points` made."""
    cloud: Any = message_types().deserialize_cdr(message.data, message.type)
    return np.frombuffer(cloud.data.tobytes(), "<f4").reshape(-1, 3)


def _encode_event(kind: str, values: Mapping[str, Any]) -> memoryview:
    text = json.dumps(values, default=_plain)
    return message_types().serialize_cdr(message_types().types[EVENT_TYPE](kind, text), EVENT_TYPE)


def _decode_event(
    path: object, message: BagMessage, points: BagMessage | None, raw_clouds: tuple[BagMessage, ...]
) -> Event:
    try:
        pair: Any = message_types().deserialize_cdr(message.data, message.type)
        values = json.loads(pair.value)
        return Event(
            kind=pair.key,
            seq=values.pop("seq"),
            log_time_ns=message.log_time_ns,
            values=values,
            points=points,
            raw_clouds=raw_clouds,
        )
    except Exception as error:  # bytes that are not what was written fail in many ways
        raise BagError(
            f"{path}: journal: the event at log time {message.log_time_ns} is damaged: {error}"
        ) from error


def _encode_points(points: NDArray[np.float32], frame: str, stamp_ns: int) -> memoryview:
    types = message_types().types
    sec, nanosec = divmod(stamp_ns, NANOSECONDS)
    field = types["sensor_msgs/msg/PointField"]
    cloud = types[CLOUD_TYPE](
        header=types["std_msgs/msg/Header"](
            stamp=types["builtin_interfaces/msg/Time"](sec=sec, nanosec=nanosec), frame_id=frame
        ),
        height=1,
        width=len(points),
        fields=[
            field(name=name, offset=4 * index, datatype=FLOAT32, count=1) for index, name in enumerate("xyz")
        ],
        is_bigendian=False,
        point_step=12,
        row_step=12 * len(points),
        data=np.frombuffer(np.ascontiguousarray(points, "<f4").tobytes(), np.uint8),
        is_dense=True,
    )
    return message_types().serialize_cdr(cloud, CLOUD_TYPE)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"cannot be written to a journal: {value!r}")


def _nanoseconds(time_s: float) -> int:
    return round(time_s * NANOSECONDS)
