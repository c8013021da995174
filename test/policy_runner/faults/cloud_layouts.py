"""The same points in every legal layout that drivers send, and clouds that contradict themselves."""

from __future__ import annotations

import array
import struct

from robot import cloud_message
from sensor_msgs.msg import PointField

CODES = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 8: "d"}
"""Letter of `struct` for a datatype of `sensor_msgs/PointField`."""


def encode(
    points,
    *,
    datatype=7,
    big_endian=False,
    offsets=(0, 4, 8),
    point_step=12,
    rows=1,
    padding=0,
    row_step=None,
):
    """Pack points (n, 3) value by value, with filler between the fields, after the points and after the rows."""
    kind = (">" if big_endian else "<") + CODES[datatype]
    width = len(points) // rows
    data = bytearray(b"\xc7" * (rows * (width * point_step + padding)))
    for index, point in enumerate(points):
        row, column = divmod(index, width)
        start = row * (width * point_step + padding) + column * point_step
        for offset, value in zip(offsets, point, strict=True):
            struct.pack_into(kind, data, start + offset, value if datatype in (7, 8) else int(value))
    message = cloud_message(points[:0])
    message.height, message.width, message.point_step = rows, width, point_step
    message.row_step = width * point_step + padding if row_step is None else row_step
    message.is_bigendian = big_endian
    message.fields = [
        PointField(name=name, offset=offset, datatype=datatype, count=1)
        for name, offset in zip("xyz", offsets, strict=True)
    ]
    message.data = array.array("B", bytes(data))
    return message


def in_place_of(cloud, message):
    """Return a message under the header of the cloud that it replaces."""
    message.header = cloud.header
    return message


LEGAL = {
    "as most send it": {},
    "big-endian": {"big_endian": True},
    "32 bytes a point": {"point_step": 32},
    "fields out of order and unaligned": {"offsets": (21, 1, 9), "point_step": 27},
    "organised": {"rows": 4},
    "organised with padded rows": {"rows": 4, "padding": 7},
    "organised, big-endian, 20 bytes a point, padded": {
        "rows": 5, "padding": 3, "point_step": 20, "offsets": (2, 8, 16), "big_endian": True,
    },
    "row_step 0": {"rows": 4, "row_step": 0},
    "one row, row_step 0": {"row_step": 0},
    "one row, row_step too large": {"row_step": 4000},
    "doubles": {"datatype": 8, "offsets": (0, 8, 16), "point_step": 24},
}  # fmt: skip
"""Layouts that must be read exactly."""


def _changed(**values):
    def change(message):
        for name, value in values.items():
            setattr(message, name, value)
        return message

    return change


def _changed_field(index, **values):
    def change(message):
        for name, value in values.items():
            setattr(message.fields[index], name, value)
        return message

    return change


def _without_field(message):
    message.fields = message.fields[:2]
    return message


def _cut(message):
    message.data = message.data[:-1]
    return message


UINT32_MAX = 2**32 - 1
CONTRADICTIONS = {
    "data too short": _cut,
    "no data": _changed(data=array.array("B")),
    "width 4e9": _changed(width=UINT32_MAX),
    "height 4e9": _changed(height=UINT32_MAX),
    "width and height 4e9": _changed(width=UINT32_MAX, height=UINT32_MAX),
    "point_step 4e9": _changed(point_step=UINT32_MAX),
    "point_step 0": _changed(point_step=0),
    "point_step smaller than a point": _changed(point_step=8),
    "row_step inconsistent": _changed(height=4, width=10, row_step=100),
    "row_step 4e9": _changed(height=4, width=10, row_step=UINT32_MAX),
    "offset -4": _changed_field(1, offset=2**32 - 4),
    "offset beyond point_step": _changed_field(2, offset=9),
}
"""Messages whose sizes do not fit together."""

UNREADABLE = {
    "no z": _without_field,
    "x twice": _changed_field(1, name="x"),
    "unknown datatype 0": _changed_field(0, datatype=0),
    "unknown datatype 200": _changed_field(0, datatype=200),
    "three values in x": _changed_field(0, count=3),
    "no value in y": _changed_field(1, count=0),
    "no fields": _changed(fields=[]),
}
"""Coordinates that cannot be read."""
