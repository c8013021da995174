"""MCAP bags as `ros2 bag` knows them: what their messages are, and reading them however they ended."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from policy_runner.cut_mcap import is_whole, mend

CDR_HEAD = 4
"""Bytes before a message that say how it is encoded."""


class BagError(ValueError):
    """A bag cannot be read, or holds no recording; the message names the file."""


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
            try:
                if not is_whole(file):
                    folder = stack.enter_context(tempfile.TemporaryDirectory())
                    file = mend(file, Path(folder, "mended.mcap"))
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
