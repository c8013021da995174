"""Clouds become the right points or are refused; a plain struct-based decoder and loops are the oracle."""

from __future__ import annotations

import math
import mmap
import random
import struct
import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from policy_runner.contract import PointCloudSpec
from policy_runner.pointcloud import (
    DATATYPES,
    CloudError,
    MalformedCloudError,
    TooFewPointsError,
    decode,
    preprocess,
    stride_indices,
)

STRUCT_CODES = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 8: "d"}
LOSSLESS = (1, 2, 3, 4, 7)
"""Datatypes of which every value is a float32."""


def field(name, offset, datatype=7, count=1):
    return SimpleNamespace(name=name, offset=offset, datatype=datatype, count=count)


def cloud(points=None, **changes):
    points = np.arange(12, dtype="<f4").reshape(4, 3) if points is None else np.asarray(points, "<f4")
    message = {
        "height": 1,
        "width": len(points),
        "fields": [field("x", 0), field("y", 4), field("z", 8)],
        "is_bigendian": False,
        "point_step": 12,
        "row_step": 12 * len(points),
        "data": points.tobytes(),
    }
    return SimpleNamespace(**(message | changes))


def struct_decode(message) -> list[tuple[float, ...]]:
    order = ">" if message.is_bigendian else "<"
    fields = {f.name: f for f in message.fields}
    row_step = message.row_step or message.width * message.point_step
    return [
        tuple(
            struct.unpack_from(
                order + STRUCT_CODES[fields[axis].datatype],
                message.data,
                row * row_step + column * message.point_step + fields[axis].offset,
            )[0]
            for axis in "xyz"
        )
        for row in range(message.height)
        for column in range(message.width)
    ]


def random_cloud(rng: random.Random, datatypes=LOSSLESS):
    """Any legal cloud: types, gaps between fields, padded points and rows, both byte orders, rows or not."""
    offset, fields = rng.randrange(4), []
    for name in rng.sample(["x", "y", "z", "intensity"], 4):
        datatype = rng.choice(datatypes)
        fields.append(field(name, offset, datatype))
        offset += struct.calcsize(STRUCT_CODES[datatype]) + rng.randrange(3)
    height, width = rng.choice([(1, rng.randrange(1, 40)), (rng.randrange(1, 7), rng.randrange(1, 9))])
    point_step = offset + rng.randrange(5)
    row_step = rng.choice([0, width * point_step, width * point_step + rng.randrange(9)])
    size = height * (row_step or width * point_step) + rng.choice([0, 0, 5])
    return SimpleNamespace(
        height=height,
        width=width,
        fields=fields,
        is_bigendian=rng.random() < 0.5,
        point_step=point_step,
        row_step=row_step,
        data=rng.randbytes(size),
    )


def cloud_of(code, points, order="<", offsets=(0, 1, 2)):
    """Points packed one by one; offsets in units of a value."""
    size = struct.calcsize(STRUCT_CODES[code])
    data = b"".join(struct.pack(order + STRUCT_CODES[code], value) for point in points for value in point)
    fields = [field(axis, place * size, code) for axis, place in zip("xyz", offsets, strict=True)]
    return cloud(
        fields=fields,
        width=len(points),
        point_step=3 * size,
        row_step=3 * size * len(points),
        data=data,
        is_bigendian=order == ">",
    )


@pytest.mark.parametrize("datatype", sorted(DATATYPES))
@pytest.mark.parametrize("order", "<>")
def test_every_datatype_is_read_exactly(datatype, order):
    values = [(1, 2, 3), (4, 5, 6), (100, 0, 127)]
    points = decode(cloud_of(datatype, values, order))
    assert points.dtype == np.float32
    assert points.tolist() == [list(point) for point in values]


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        (1, -128),
        (2, 255),
        (3, -32768),
        (4, 65535),
        (5, 2**24),
        (5, -(2**31)),
        (6, 3 * 2**24),
        (7, 3.4e38),
        (7, 1e-45),
        (8, 0.1015625),
        (8, -(2.0**100)),
        (8, 2.0**-149),
    ],
)
def test_values_that_float32_holds_are_taken_from_any_type(datatype, value):
    (kept,) = decode(cloud_of(datatype, [(0, value, 0)])).tolist()
    assert kept == [0, struct.unpack("f", struct.pack("f", value))[0], 0]
    assert datatype == 7 or kept[1] == value


@pytest.mark.parametrize(
    ("datatype", "value", "shown"),
    [
        (5, 2**24 + 1, "16777217"),
        (5, 2**31 - 1, "2147483647"),
        (6, 2**32 - 1, "4294967295"),
        (8, 0.1, "0.1"),
        (8, 1e300, "1e+300"),
        (8, 2.0**-150, "7.0064923"),
    ],
)
@pytest.mark.parametrize("axis", "xyz")
def test_values_that_float32_would_round_are_refused_by_the_fields_name(datatype, value, shown, axis):
    point = [value if name == axis else 0 for name in "xyz"]
    with pytest.raises(MalformedCloudError) as refusal:
        decode(cloud_of(datatype, [(0, 0, 0), point]))
    assert str(refusal.value).startswith(f"field {axis!r}: float32 would round {shown}")
    assert DATATYPES[datatype] in str(refusal.value)


def test_doubles_that_are_no_numbers_are_masked_like_any_others():
    points = decode(cloud_of(8, [(math.nan, math.inf, -math.inf), (0.5, 0.25, -2.0)]))
    np.testing.assert_array_equal(points, [[np.nan, np.inf, -np.inf], [0.5, 0.25, -2.0]])


@pytest.mark.parametrize("seed", range(8))
def test_random_legal_clouds_decode_like_the_struct_module(seed):
    rng = random.Random(seed)
    for _ in range(125):
        message = random_cloud(rng)
        expected = np.array(struct_decode(message), np.float32).reshape(-1, 3)
        np.testing.assert_array_equal(decode(message), expected)


@pytest.mark.parametrize("seed", range(8))
def test_random_corruption_gives_points_or_a_refusal_and_nothing_else(seed):
    rng = random.Random(1000 + seed)
    wild = (-1, 0, 1, 3, 255, 65536, 2**31, 2**32 - 1)
    for _ in range(125):
        message = random_cloud(rng, datatypes=tuple(DATATYPES))
        for _ in range(rng.randrange(1, 4)):
            name = rng.choice(["height", "width", "point_step", "row_step", "data", "field", "fields"])
            if name == "data":
                message.data = message.data[: rng.randrange(len(message.data) + 1)]
            elif name == "field" and message.fields:
                setattr(
                    rng.choice(message.fields), rng.choice(["offset", "datatype", "count"]), rng.choice(wild)
                )
            elif name == "fields":
                message.fields = rng.choices(message.fields, k=rng.randrange(5)) if message.fields else []
            elif name != "field":
                setattr(message, name, rng.choice(wild))
        try:
            points = decode(message)
        except MalformedCloudError:
            continue
        assert points.shape[1] == 3 and len(points) <= len(message.data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fields": [field("x", 0), field("y", 4)]}, "field 'z': expected exactly one, got 0"),
        ({"fields": [field(a, 0) for a in "xxyz"]}, "field 'x': expected exactly one, got 2"),
        ({"fields": [field("x", 0), field("y", 4), field("z", 9)]}, "field 'z': FLOAT32 at offset 9 exceeds"),
        ({"fields": [field("x", 0, count=2), field("y", 4), field("z", 8)]}, "field 'x': expected count 1"),
        ({"fields": [field("x", 0, datatype=9), field("y", 4), field("z", 8)]}, "unknown datatype 9"),
        ({"data": bytes(47)}, "data: expected at least 48 bytes, got 47"),
        ({"width": 4_000_000_000}, "data: expected at least 48000000000 bytes"),
        ({"height": 2, "width": 2, "row_step": 23}, "row_step: expected at least width"),
        ({"height": 2, "width": 2, "row_step": 40}, "data: expected at least 64 bytes"),
        ({"point_step": 0}, "exceeds point_step 0"),
        ({"point_step": 2**32 - 1}, "data: expected at least 17179869180 bytes"),
        ({"height": 2**32 - 1, "width": 2**32 - 1}, "row_step: expected at least width"),
        (
            {"height": 2, "width": 2, "row_step": 2**32 - 1},
            "data: expected at least 4294967319 bytes, got 48",
        ),
        ({"width": -1}, "width, height: expected >= 0"),
        (
            {"fields": [field("x", 2**32 - 4), field("y", 4), field("z", 8)]},
            "FLOAT32 at offset 4294967292 exceeds",
        ),
        ({"fields": [field("x", -4), field("y", 4), field("z", 8)]}, "FLOAT32 at offset -4 exceeds"),
        (
            {"fields": [field("x", 0), field("y", 4, count=0), field("z", 8)]},
            "field 'y': expected count 1, got 0",
        ),
        ({"fields": [field(f"f{i}", 0) for i in range(5000)]}, "fields: expected at most 256, got 5000"),
    ],
)
def test_a_malformed_cloud_is_refused_by_what_is_wrong(changes, message):
    with pytest.raises(MalformedCloudError, match=message):
        decode(cloud(**changes))


def test_a_refusal_allocates_next_to_nothing():
    message = cloud(width=2**32 - 1, height=2**32 - 1)
    tracemalloc.start()
    for _ in range(100):
        with pytest.raises(MalformedCloudError):
            decode(message)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_a_large_organised_cloud_is_thinned_by_rows_and_columns_alike():
    rows, columns = np.mgrid[0:40, 0:60]
    points = np.stack([rows, columns, 0 * rows], axis=-1).reshape(-1, 3)
    message = cloud(points, height=40, width=60, row_step=720)
    kept = decode(message, max_points=300)
    assert len(kept) <= 300
    assert np.unique(np.diff(np.unique(kept[:, 0]))).tolist() == [3.0]
    assert np.unique(np.diff(np.unique(kept[:, 1]))).tolist() == [3.0]


@pytest.mark.parametrize(("height", "width"), [(1, 1000), (2, 500), (500, 2), (1000, 1), (999, 1), (31, 32)])
@pytest.mark.parametrize("padding", [0, 5])
def test_thinning_keeps_points_of_the_cloud_never_more_than_asked_and_spread_evenly(height, width, padding):
    points = np.arange(height * width)[:, None].repeat(3, axis=1)
    rows = np.asarray(points, "<f4").reshape(height, 12 * width // 4).view(np.uint8)
    data = np.pad(rows, ((0, 0), (0, padding))).tobytes()
    message = cloud(points, height=height, width=width, row_step=12 * width + padding, data=data)
    for max_points in (1, 7, 99, 100, 998):
        kept = decode(message, max_points=max_points)[:, 0].astype(int)
        assert max_points / 4 <= len(kept) <= max_points  # rounding costs at most half in each direction
        assert (np.diff(kept) > 0).all()
        for places, size in ((np.unique(kept // width), height), (np.unique(kept % width), width)):
            step = places[1] if len(places) > 1 else size
            assert places.tolist() == list(range(0, size, step))


@pytest.mark.parametrize(
    ("height", "width"), [(1, 50_000_000), (5000, 10_000), (2, 25_000_000), (50_000_000, 1)]
)
@pytest.mark.parametrize("padding", [0, 4])
def test_a_cloud_of_fifty_million_points_takes_the_memory_of_one_of_the_allowed_size(height, width, padding):
    row_step = 12 * width + padding
    data = mmap.mmap(-1, height * row_step)  # of which only the pages that are read come into being
    message = cloud(np.zeros((1, 3)), height=height, width=width, row_step=row_step, data=data)
    tracemalloc.start()
    kept = decode(message, max_points=1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 250 <= len(kept) <= 1000 and peak < 200_000
    assert not kept.any()


def test_stride_takes_every_kth_row_and_repeats_what_is_too_few():
    assert stride_indices(2592, 250).tolist() == list(range(0, 2500, 10))
    assert stride_indices(5, 5).tolist() == [0, 1, 2, 3, 4]
    assert stride_indices(9, 5).tolist() == [0, 1, 2, 3, 4]
    assert stride_indices(2, 5).tolist() == [0, 1, 0, 1, 0]
    with pytest.raises(TooFewPointsError):
        stride_indices(0, 5)


def spec(**changes):
    unit_box = {"crop_min": (0.0, 0.0, 0.0), "crop_max": (1.0, 1.0, 1.0)}
    return PointCloudSpec(**({"frame": "world", "num_points": 16} | unit_box | changes))


def in_box(point, box) -> bool:
    return all(
        low <= value <= high for value, low, high in zip(point, box.crop_min, box.crop_max, strict=True)
    )


def test_masking_and_cropping_keep_what_a_loop_keeps_in_order():
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.5, 1.5, (400, 3)).astype(np.float32)
    points[::7, 0], points[3::11, 2], points[5::13, 1] = np.nan, np.inf, 1e30
    kept = [point for point in points.tolist() if all(np.isfinite(point)) and in_box(point, spec())]
    expected = np.array(kept, np.float32)[stride_indices(len(kept), 16)]
    np.testing.assert_array_equal(preprocess(points, spec()), expected)


def test_points_are_turned_and_moved_before_they_are_cropped():
    quarter_turn = np.array([[0.0, -1, 0, 0.9], [1, 0, 0, 0.1], [0, 0, 1, 0.2], [0, 0, 0, 1]])
    points = np.array([[0.1, 0.2, 0.3], [0.5, 0.7, 0.1], [5.0, 0.0, 0.0]], np.float32)
    found = preprocess(points, spec(num_points=2), quarter_turn)
    np.testing.assert_allclose(found, [[0.7, 0.2, 0.5], [0.2, 0.6, 0.3]], atol=1e-6)


def test_what_overflows_in_the_transform_is_dropped_not_passed_on():
    shear = np.array([[0.0, 1e30, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    points = np.array([[0.5, 3e38, 0.5], [0.5, -3e38, 0.5], [0.5, 0.0, 0.5]], np.float32)
    found = preprocess(points, spec(num_points=1), shear)
    np.testing.assert_array_equal(found, [[0.0, 0.5, 0.5]])


@pytest.mark.parametrize("voxel_m", [0.07, 0.25, 1.0])
def test_a_voxel_is_replaced_by_the_mean_of_its_points(voxel_m):
    box = spec(voxel_m=voxel_m, crop_min=(0.1, -0.2, 0.3), crop_max=(1.1, 0.8, 1.3), num_points=1)
    points = np.random.default_rng(6).uniform(box.crop_min, box.crop_max, (300, 3)).astype(np.float32)
    voxels = {}
    for point in points:
        cell = tuple(int((value - low) / voxel_m) for value, low in zip(point, box.crop_min, strict=True))
        voxels.setdefault(cell, []).append(point)
    expected = [np.mean(voxels[cell], axis=0, dtype=np.float64) for cell in sorted(voxels)]
    found = preprocess(points, replace(box, num_points=len(voxels)))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_farthest_sampler_agrees_with_the_textbook_loop():
    points = np.random.default_rng(1).uniform(0, 1, (60, 3)).astype(np.float32)
    chosen, distance = [0], np.full(60, np.inf)
    for _ in range(9):
        distance = np.minimum(distance, ((points - points[chosen[-1]]).astype(np.float64) ** 2).sum(axis=1))
        chosen.append(int(distance.argmax()))
    found = preprocess(points, spec(sampler="farthest", num_points=10))
    assert {tuple(p) for p in found.tolist()} == {tuple(p) for p in points[chosen].tolist()}


def test_the_random_sampler_takes_distinct_points_and_repeats_itself():
    points = np.random.default_rng(2).uniform(0, 1, (60, 3)).astype(np.float32)
    found = preprocess(points, spec(sampler="random", seed=4))
    assert len(np.unique(found, axis=0)) == 16
    np.testing.assert_array_equal(found, preprocess(points, spec(sampler="random", seed=4)))
    assert not np.array_equal(found, preprocess(points, spec(sampler="random", seed=5)))


@pytest.mark.parametrize("sampler", ["stride", "random", "farthest"])
@pytest.mark.parametrize("available", [1, 15, 16, 17, 200])
def test_every_sampler_gives_exactly_the_asked_number_of_given_points(sampler, available):
    points = np.random.default_rng(3).uniform(0, 1, (available, 3)).astype(np.float32)
    points[available // 2 :] = points[available // 2]  # many points in one place
    found = preprocess(points, spec(sampler=sampler))
    assert found.shape == (16, 3) and found.dtype == np.float32
    assert {tuple(p) for p in found.tolist()} <= {tuple(p) for p in points.tolist()}


def test_too_few_points_inside_the_box_are_no_observation():
    points = np.full((9, 3), 0.5, np.float32)
    assert preprocess(points, spec(min_points=9)).shape == (16, 3)
    for few in (points[:8], np.full((9, 3), 2.0, np.float32), np.empty((0, 3), np.float32)):
        with pytest.raises(TooFewPointsError, match=r"expected at least 9"):
            preprocess(few, spec(min_points=9))


def test_all_refusals_share_one_base_class():
    assert issubclass(MalformedCloudError, CloudError) and issubclass(TooFewPointsError, CloudError)


# the rows of docs/faults.md that this file can answer for


@pytest.mark.parametrize("voxel_m", [0.0, 0.05])
def test_row_1_a_thousand_mixes_with_values_that_are_no_coordinates_leave_only_good_ones(voxel_m):
    rng = np.random.default_rng(11)
    box = spec(voxel_m=voxel_m, min_points=8)
    refused = 0
    for _ in range(1000):
        points = rng.uniform(0, 1, (40, 3)).astype(np.float32)
        bad = rng.random((40, 3)) < rng.random()
        points[bad] = rng.choice([np.nan, np.inf, -np.inf, 1e30, -1e30], bad.sum())
        good = points[~bad.any(axis=1)]
        try:
            found = preprocess(decode(cloud(points)), box)
        except TooFewPointsError:
            refused += 1
            assert len(good) < 8
        else:
            assert len(good) >= 8
            assert (found >= good.min(axis=0)).all() and (found <= good.max(axis=0)).all()
    assert 100 < refused < 900


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 0, "data": b""},
        {"height": 0, "data": b""},
        {"width": 0, "height": 0, "point_step": 0, "row_step": 0, "fields": [], "data": b""},
        {"width": 0},  # though there are data
    ],
)
def test_row_2_an_empty_cloud_has_no_points_and_is_no_observation(changes):
    points = decode(cloud(**changes))
    assert points.shape == (0, 3)
    with pytest.raises(TooFewPointsError, match="0 points inside the crop box"):
        preprocess(points, spec())


@pytest.mark.parametrize("sampler", ["stride", "random", "farthest"])
@pytest.mark.parametrize("voxel_m", [0.0, 0.1])
def test_row_10_a_plane_and_a_point_sent_again_and_again_are_padded_not_invented(sampler, voxel_m):
    plane = np.random.default_rng(12).uniform(0, 1, (500, 3)).astype(np.float32)
    plane[:, 2] = 0.25
    found = preprocess(plane, spec(sampler=sampler, voxel_m=voxel_m))
    assert (found[:, 2] == 0.25).all() and len(np.unique(found, axis=0)) == 16
    point = np.full((500, 3), [0.5, 0.25, 0.125], np.float32)
    found = preprocess(point, spec(sampler=sampler, voxel_m=voxel_m))
    np.testing.assert_array_equal(found, point[:16])
