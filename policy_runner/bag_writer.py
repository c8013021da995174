"""Writing a bag beside the control loop.

A bag is a folder: one `.mcap` file and, once it was closed, `metadata.yaml`. The file is a row of uncompressed chunks,
and one is closed every `SYNC_S`: a process that is killed loses what it had not handed to the file system until then.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.storage_mcap import McapWriter

from policy_runner.bag import message_types, read_bag

SYNC_S = 1.0
"""How often everything recorded is handed to the file system [s]."""
POLL_S = 0.05
"""How often the writing thread looks for messages [s]: waking it for each would cost the control loop more."""
CLOSE_S = 10.0
"""How long closing may take [s]."""
ROOM_BYTES = 64 << 20
"""How much may wait to be written; raw clouds may take half of it."""
ENTRY_BYTES = 500
"""What an entry occupies beyond the payload that it names."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A message on its way into a bag."""

    topic: str
    type: str
    """As in `sensor_msgs/msg/JointState`."""
    log_time_ns: int
    encode: Callable[[], bytes | memoryview]
    """Gives the message as CDR bytes; called in the writing thread."""
    size: int = 0
    """Bytes of payload that wait with it, where they are many."""


class BagWriter:
    """Writes a bag in a thread of its own; nobody who hands it messages ever waits."""

    def __init__(self, folder: Path, *, max_bytes: int, on_end: Callable[[str], None]) -> None:
        """Create the folder and start the thread.

        max_bytes: of the file; the recording ends when it is reached. on_end: told, in the writing thread, why
        the recording ended before it was closed.

        Raises:
            OSError: the folder cannot be created.
            rosbags.rosbag2.WriterError: it exists.
        """
        self._writer = _Writer(folder, version=Writer.VERSION_LATEST, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self.folder = folder
        self._max_bytes, self._on_end = max_bytes, on_end
        self._wake = threading.Condition()
        self._waiting: list[Entry] = []
        self._waiting_bytes = 0
        self._newest_ns = 0
        self._closed = False
        self._written_bytes = 0
        self.written = 0
        """Messages in the bag."""
        self.dropped = 0
        """Messages that did not get into the bag."""
        self.problem = ""
        """Why the recording ended early; empty if it did not."""
        self._thread = threading.Thread(target=self._work, name="bag_writer", daemon=True)
        self._thread.start()

    def put(self, *entries: Entry, bulky: bool = False) -> bool:
        """Hand over messages, all or none, and return at once; False: there was no room, or recording has ended.

        bulky: such messages leave half of the room to the others.
        """
        size = sum(ENTRY_BYTES + entry.size for entry in entries)
        with self._wake:
            room = ROOM_BYTES // 2 if bulky else ROOM_BYTES
            if self._closed or self.problem or self._waiting_bytes + size > room:
                self.dropped += len(entries)
                return False
            self._waiting.extend(entries)
            self._waiting_bytes += size
        return True

    def close(self) -> None:
        """Write what waits, close the bag and end the thread; a disk that hangs is not waited for."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            self._end(f"it could not be closed within {CLOSE_S:g} s")

    def _work(self) -> None:
        try:
            self._write_until_closed()
            self._writer.close()
        except Exception as error:  # a full disk, most likely; whatever it is, it must not spread
            self._end(f"{error}")
            with contextlib.suppress(Exception):
                self._writer.abort()

    def _write_until_closed(self) -> None:
        synced_s, closed = time.monotonic(), False
        while not (closed or self.problem):
            with self._wake:
                self._wake.wait_for(lambda: self._closed, timeout=POLL_S)
                closed = self._closed
                batch, self._waiting, batch_bytes = self._waiting, [], self._waiting_bytes
            for number, entry in enumerate(batch):
                if not self._write(entry):
                    self._end(f"it has reached its {self._max_bytes / 1e6:g} MB", lost=len(batch) - number)
                    break
            with self._wake:
                self._waiting_bytes -= batch_bytes
            if time.monotonic() - synced_s >= SYNC_S:
                self._writer.sync()
                synced_s = time.monotonic()

    def _write(self, entry: Entry) -> bool:
        try:
            data = entry.encode()
        except Exception:  # a message that cannot be put into bytes is not recorded
            self.dropped += 1
            return True
        self._written_bytes += len(data)
        if self._written_bytes > self._max_bytes:
            return False
        # threads hand over in an order of their own
        self._newest_ns = max(self._newest_ns, entry.log_time_ns)
        self._writer.write(self._writer.connection(entry.topic, entry.type), self._newest_ns, data)
        self.written += 1
        return True

    def _end(self, problem: str, lost: int = 0) -> None:
        with self._wake:
            self.problem = problem
            self.dropped += lost + len(self._waiting)
            self._waiting = []
        self._on_end(problem)


class _McapWriter(McapWriter):
    """A file whose messages so far can be handed to the file system at any time."""

    def sync(self) -> None:
        if self.chunk.msgs:
            self.close_chunk()
        self.bio.flush()


class _Writer(Writer):
    """A bag with connections as they are needed."""

    STORAGE_PLUGINS = {StoragePlugin.MCAP: _McapWriter}  # noqa: RUF012 - as the class that it extends has it

    def connection(self, topic: str, type_: str) -> Any:
        for connection in self.connections:
            if connection.topic == topic:
                return connection
        return self.add_connection(topic, type_, typestore=message_types())

    def sync(self) -> None:
        assert isinstance(self.storage, _McapWriter)
        self.storage.sync()


def copy_bag(source: Path, target: Path) -> int:
    """Write what can be read of a bag as a new one, whole with index and metadata; returns the number of messages.

    Raises:
        BagError: the bag cannot be read.
        rosbags.rosbag2.WriterError: the target exists.
        OSError: it cannot be written.
    """
    messages = read_bag(source)
    first = next(messages, None)  # before anything is written, lest nothing can be read
    count = 0
    with _Writer(target, version=Writer.VERSION_LATEST, storage_plugin=StoragePlugin.MCAP) as writer:
        for message in itertools.chain(() if first is None else (first,), messages):
            connection = writer.connection(message.topic, message.type)
            writer.write(connection, message.log_time_ns, message.data)
            count += 1
    return count
