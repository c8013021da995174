"""MCAP files that were cut: what is whole of them, as files that end as they should.

An MCAP file is a row of records: opcode, length, data. Messages are records within chunks, which are records, too.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MAGIC = b"\x89MCAP0\r\n"
HEADER, FOOTER_OPCODE, CHUNK, DATA_END = 0x01, 0x02, 0x06, 0x0F
RECORD_HEAD = struct.Struct("<BQ")
"""Opcode and length."""
CHUNK_HEAD = struct.Struct("<QQQIIQ")
"""First and last log time, size, checksum, length of the compression's name (here none), compressed size."""
FOOTER = RECORD_HEAD.pack(FOOTER_OPCODE, 20) + bytes(20) + MAGIC
"""End of a file without a summary."""


def is_whole(path: Path) -> bool:
    """Return whether a file has the end that an MCAP file has."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - len(FOOTER)))
        tail = file.read()
    return size > len(FOOTER) and tail.startswith(FOOTER[: RECORD_HEAD.size]) and tail.endswith(MAGIC)


def mend(source: Path, target: Path) -> Path:
    """Write all whole messages of a cut `.mcap` file to another that ends as it should; return that.

    Raises:
        ValueError: it is no MCAP file.
    """
    cut = source.read_bytes()
    if cut[: len(MAGIC)] != MAGIC[: len(cut)]:
        raise ValueError("it is no MCAP file")
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
