"""Clouds for fuzzing: legal ones in every layout, the same with lies in them, and noise; and a reader by hand.

They are what a `sensor_msgs/PointCloud2` can hold once it has come over the network: every number within the range of
its field, the data any bytes at all.
"""

import math
import random
import struct
from dataclasses import dataclass

CODES = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 8: "d"}
"""Letter of `struct` for a datatype of `sensor_msgs/PointField`."""
WHOLE = (0, 1, 2, 3, 4, 7, 8, 12, 16, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 4, 2**32 - 1)
"""Values of an uint32 at which something may break."""
COORDINATES = (0.0, -0.0, 0.5, -1.0, 1e-45, 1e-30, 1e30, 3.4e38, math.inf, -math.inf, math.nan)
KINDS = ("legal", "with lies", "noise")
SIZES = ("height", "width", "point_step", "row_step")


@dataclass
class Field:
    """Like a `sensor_msgs/PointField`."""

    name: str
    offset: int
    datatype: int = 7
    count: int = 1


@dataclass
class Cloud:
    """Like a `sensor_msgs/PointCloud2`, without its header."""

    height: int
    width: int
    fields: list[Field]
    is_bigendian: bool
    point_step: int
    row_step: int
    data: bytes


def legal_cloud(chance: random.Random) -> Cloud:
    """Any types, gaps between fields, padded points and rows, both byte orders, rows or not, values of all kinds."""
    offset, fields = chance.randrange(4), []
    order = chance.choice("<>")
    for name in chance.sample(["x", "y", "z", "intensity"], 4):
        datatype = chance.choice([7, 7, 7, chance.choice(list(CODES))])
        fields.append(Field(name, offset, datatype))
        offset += struct.calcsize(CODES[datatype]) + chance.randrange(3)
    height, width = chance.choice(
        [(1, chance.randrange(1, 40)), (chance.randrange(1, 7), chance.randrange(1, 9))]
    )
    point_step = offset + chance.randrange(5)
    row_bytes = width * point_step
    row_step = chance.choice([0, row_bytes, row_bytes + chance.randrange(9)])
    data = bytearray(chance.randbytes(height * (row_step or row_bytes) + chance.choice([0, 0, 5])))
    for row in range(height):
        for column in range(width):
            start = row * (row_step or row_bytes) + column * point_step
            for each in fields:
                struct.pack_into(
                    order + CODES[each.datatype], data, start + each.offset, _value(chance, each.datatype)
                )
    return Cloud(
        height=height,
        width=width,
        fields=fields,
        is_bigendian=order == ">",
        point_step=point_step,
        row_step=row_step,
        data=bytes(data),
    )


def _value(chance: random.Random, datatype: int) -> float:
    """A value that float32 holds."""
    if datatype in (7, 8):
        value = chance.choice([chance.uniform(-2.0, 2.0), chance.choice(COORDINATES)])
        return struct.unpack("f", struct.pack("f", value))[0]
    size = 8 * struct.calcsize(CODES[datatype])
    low, high = (0, 2**size - 1) if datatype % 2 == 0 else (-(2 ** (size - 1)), 2 ** (size - 1) - 1)
    widest = chance.choice([1, 2**24])
    return chance.randint(max(low, -widest), min(high, widest))


def with_lies(chance: random.Random) -> Cloud:
    """A legal cloud of which one to three things are not so any more."""
    cloud = legal_cloud(chance)
    for _ in range(chance.randint(1, 3)):
        lie = chance.randrange(8)
        if lie == 0:
            setattr(cloud, chance.choice(SIZES), chance.choice([*WHOLE, chance.randrange(2**32)]))
        elif lie == 1:
            size = chance.choice(SIZES)
            setattr(cloud, size, max(0, getattr(cloud, size) + chance.choice([-2, -1, 1, 2])))
        elif lie == 2 and cloud.fields:
            chance.choice(cloud.fields).offset = chance.choice([*WHOLE, chance.randrange(64)])
        elif lie == 3 and cloud.fields:
            chance.choice(cloud.fields).datatype = chance.choice([0, 9, 255, *CODES])
        elif lie == 4 and cloud.fields:
            chance.choice(cloud.fields).count = chance.choice([0, 2, 3, 2**32 - 1])
        elif lie == 5 and cloud.fields:
            chance.choice(cloud.fields).name = chance.choice(
                ["x", "y", "z", "X", "", "x\0", "rgb", "é" * 300]
            )
        elif lie == 6:
            more = [Field(f"f{i}", i) for i in range(chance.choice([1, 300, 5000]))]
            cloud.fields = chance.choice([[], cloud.fields[1:], cloud.fields * 2, cloud.fields + more])
        else:
            cut = chance.randrange(len(cloud.data) + 1)
            cloud.data = chance.choice(
                [cloud.data[:cut], cloud.data + chance.randbytes(9), chance.randbytes(cut)]
            )
    return cloud


def noise(chance: random.Random) -> Cloud:
    """Numbers and bytes without any sense, though now and then small enough to fit together."""

    def number() -> int:
        return chance.choice([chance.choice(WHOLE), chance.randrange(2**32), chance.randrange(20)])

    names = ["x", "y", "z", *chance.choices(["x", "y", "z", "rgb", ""], k=chance.randrange(3))]
    return Cloud(
        height=number(),
        width=number(),
        fields=[
            Field(name, number(), chance.choice([7, chance.randrange(256)]), chance.choice([1, number()]))
            for name in names
        ],
        is_bigendian=chance.random() < 0.5,
        point_step=number(),
        row_step=number(),
        data=chance.randbytes(chance.randrange(600)),
    )


MAKERS = dict(zip(KINDS, (legal_cloud, with_lies, noise), strict=True))


def read_by_hand(cloud: Cloud) -> list[tuple[float, float, float]] | None:
    """Coordinates value by value with `struct`, rounded to float32; None where a cloud must not be read.

    Written from the definition of the message: nothing in here is shared with `policy_runner.pointcloud`.
    """
    if cloud.height * cloud.width == 0:
        return []
    order = ">" if cloud.is_bigendian else "<"
    layout = []
    for axis in "xyz":
        named = [each for each in cloud.fields if each.name == axis]
        if (
            len(named) != 1
            or named[0].datatype not in CODES
            or named[0].count != 1
            or len(cloud.fields) > 256
        ):
            return None
        code = order + CODES[named[0].datatype]
        if named[0].offset + struct.calcsize(code) > cloud.point_step:
            return None
        layout.append((code, named[0].offset))
    row_step = cloud.width * cloud.point_step
    if cloud.height > 1 and cloud.row_step:
        if cloud.row_step < row_step:
            return None
        row_step = cloud.row_step
    if len(cloud.data) < (cloud.height - 1) * row_step + cloud.width * cloud.point_step:
        return None
    points = []
    for row in range(cloud.height):
        for column in range(cloud.width):
            start = row * row_step + column * cloud.point_step
            values = [struct.unpack_from(code, cloud.data, start + offset)[0] for code, offset in layout]
            if not all(map(_is_float32, values)):
                return None
            points.append(tuple(float(value) for value in values))
    return points


def _is_float32(value: float) -> bool:
    if not math.isfinite(value):
        return True
    try:
        return struct.unpack("f", struct.pack("f", value))[0] == value
    except OverflowError:
        return False
