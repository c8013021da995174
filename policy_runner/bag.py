"""MCAP bags with ROS 2 metadata, written beside the control loop and read back however they ended.

A bag is a folder as `ros2 bag` knows it: one `.mcap` file and, once it was closed, `metadata.yaml`. The file is a
row of uncompressed chunks, and one is closed every `SYNC_S`: a process that is killed loses what it had not
handed to the file system until then, and a file that was cut anywhere can be read up to the cut.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

SYNC_S = 1.0
"""How often everything recorded is handed to the file system [s]."""
POLL_S = 0.05
"""How often the writing thread looks for messages [s]: waking it for each would cost the control loop more."""
ROOM_BYTES = 64 << 20
"""How much may wait to be written; raw clouds may take half of it."""
ENTRY_BYTES = 500
"""What an entry occupies beyond the payload that it names."""

CDR_HEAD = 4
"""Bytes before a message that say how it is encoded."""
MAGIC = b"\x89MCAP0\r\n"
HEADER, CHUNK, DATA_END = 0x01, 0x06, 0x0F
RECORD_HEAD = struct.Struct("<BQ")
"""Opcode and length of each record of an MCAP file."""
CHUNK_HEAD = struct.Struct("<QQQIIQ")
"""First and last log time, size, checksum, length of the compression's name (here none), compressed size."""
FOOTER = RECORD_HEAD.pack(0x02, 20) + bytes(20) + MAGIC
"""End of a file without a summary."""


class BagError(ValueError):
    """A bag cannot be read, or holds no recording; the message names the file."""


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


@dataclass(frozen=True, kw_only=True)
class BagMessage:
    """A message of a bag."""

    topic: str
    type: str
    log_time_ns: int
    data: bytes
    """CDR."""


@functools.cache
def message_types() -> Typestore:
    """Return the standard messages, as they are written to and read from bags without ROS."""
    return get_typestore(Stores.ROS2_KILTED)


def exact_cdr(data: bytes, type_: str) -> memoryview:
    """Cut off what follows a message in the buffer that it was written to.

    rmw_fastrtps sizes that buffer by an estimate, which is too large for messages with empty arrays of doubles;
    readers that check the length of messages refuse them then.
    """
    definition = message_types().get_msgdef(type_)
    read = definition.deserialize_cdr_le if data[1] else definition.deserialize_cdr_be
    _, end = read(memoryview(data)[CDR_HEAD:], 0, definition.cls, message_types())
    return memoryview(data)[: CDR_HEAD + end]


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
        """Write what waits, close the bag and end the thread."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

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
                batch, self._waiting, self._waiting_bytes = self._waiting, [], 0
            for number, entry in enumerate(batch):
                if not self._write(entry):
                    self._end(f"it has reached its {self._max_bytes / 1e6:g} MB", lost=len(batch) - number)
                    break
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
        self._newest_ns = max(
            self._newest_ns, entry.log_time_ns
        )  # threads hand over in an order of their own
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


def read_bag(path: str | os.PathLike[str]) -> Iterator[BagMessage]:
    """Read the messages of a bag in the order of their log times; a cut file up to the cut.

    path: folder of a bag, or an `.mcap` file.

    Raises:
        BagError: there is no such bag, or its contents contradict themselves.
    """
    path = Path(path)
    files = sorted(path.glob("*.mcap")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        what = "a folder without .mcap file" if path.is_dir() else "nothing"
        raise BagError(f"{path}: expected a bag, found {what}")
    for file in files:
        with contextlib.ExitStack() as stack:
            if not _is_whole(file):
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                file = mend(file, Path(folder, "mended.mcap"))
            try:
                reader = stack.enter_context(Reader(file))
                for connection, log_time_ns, data in reader.messages():
                    yield BagMessage(
                        topic=connection.topic,
                        type=connection.msgtype,
                        log_time_ns=log_time_ns,
                        data=bytes(data),
                    )
            except Exception as error:  # of many kinds, where bytes are not what they were
                raise BagError(f"{path}: cannot be read: {error or type(error).__name__}") from error


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


def mend(source: Path, target: Path) -> Path:
    """Write all whole messages of a cut `.mcap` file to another that ends as it should; return that.

    Raises:
        BagError: it is no MCAP file.
    """
    cut = source.read_bytes()
    if cut[: len(MAGIC)] != MAGIC[: len(cut)]:
        raise BagError(f"{source}: is no MCAP file")
    records = list(_records(memoryview(cut)[len(MAGIC) :]))
    with target.open("wb") as mended:
        mended.write(MAGIC)
        if not (records and records[0].is_whole):
            records = [EMPTY_HEADER]
        for record in records:
            if record.is_whole:
                mended.write(record.packed())
            elif record.opcode == CHUNK:
                for inner in _records(_chunk_contents(record.data)):
                    if inner.is_whole:
                        mended.write(inner.packed())
        mended.write(FOOTER)
    return target


class _Record(NamedTuple):
    opcode: int
    length: int
    data: memoryview | bytes
    """Shorter than `length` where the file was cut."""

    @property
    def is_whole(self) -> bool:
        return len(self.data) == self.length

    def packed(self) -> bytes:
        return RECORD_HEAD.pack(self.opcode, self.length) + self.data


EMPTY_HEADER = _Record(HEADER, 12, struct.pack("<I4sI", 4, b"ros2", 0))
"""Profile `ros2`, written by an unnamed library."""


def _records(data: memoryview) -> Iterator[_Record]:
    """Yield records one after the other, up to the end of the data section."""
    at = 0
    while at + RECORD_HEAD.size <= len(data):
        opcode, length = RECORD_HEAD.unpack_from(data, at)
        if opcode == DATA_END:
            return
        at += RECORD_HEAD.size
        yield _Record(opcode, length, data[at : at + length])
        at += length


def _chunk_contents(chunk: memoryview | bytes) -> memoryview:
    """Return what there is of the records in a cut chunk; nothing where they are compressed."""
    if len(chunk) < CHUNK_HEAD.size:
        return memoryview(b"")
    *_, compression_length, _ = CHUNK_HEAD.unpack_from(chunk)
    return memoryview(b"") if compression_length else memoryview(chunk)[CHUNK_HEAD.size :]


def _is_whole(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - len(FOOTER)))
        tail = file.read()
    return size > len(FOOTER) and tail.startswith(FOOTER[: RECORD_HEAD.size]) and tail.endswith(MAGIC)
