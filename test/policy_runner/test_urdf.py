"""Limits come out of a URDF as they stand in it; a file that is not one is refused by line and joint."""

from __future__ import annotations

import os
import random
from xml.etree import ElementTree

import numpy as np
import pytest

from policy_runner.limiter import UserLimits
from policy_runner.urdf import MAX_BYTES, UrdfError, read_joints, urdf_limits

ARM = """<?xml version="1.0"?>
<robot name="arm">
  <link name="base"><visual><geometry><mesh filename="package://nowhere/base.stl"/></geometry></visual></link>
  <joint name="shoulder" type="revolute">
    <parent link="base"/><child link="upper"/>
    <limit lower="-1.5" upper="2.0" effort="80" velocity="3.0" acceleration="10"/>
  </joint>
  <joint name="wheel" type="continuous"><limit effort="1" velocity="6.0"/></joint>
  <joint name="free" type="continuous"/>
  <joint name="lift" type="prismatic"><limit upper="0.4" effort="9" velocity="0.2"/></joint>
  <joint name="flange" type="fixed"/>
  <transmission name="t"><joint name="shoulder"><limit lower="a"/></joint></transmission>
</robot>
"""
SCALES = {"margin": 0.05, "velocity_scale": 0.5, "acceleration_scale": 0.25}


def limits(tmp_path, text, names, **changes):
    path = tmp_path / "robot.urdf"
    path.write_text(text)
    return urdf_limits(path, names, **(SCALES | changes))


def test_limits_are_those_of_the_file_less_margin_and_scaled(tmp_path):
    found = limits(tmp_path, ARM, ["lift", "shoulder", "wheel", "free"])
    assert found == {
        "shoulder": UserLimits(
            min_position=-1.45, max_position=1.95, max_velocity=1.5, max_acceleration=2.5, max_effort=80.0
        ),
        "lift": UserLimits(
            min_position=0.05, max_position=pytest.approx(0.35), max_velocity=0.1, max_effort=9.0
        ),
        "wheel": UserLimits(max_velocity=3.0, max_effort=1.0),
        "free": UserLimits(),
    }


def test_every_joint_of_a_random_robot_is_read_as_another_parser_reads_it(tmp_path):
    rng = random.Random(4)
    joints = [
        f'<joint name="j{i}" type="revolute"><limit lower="{-rng.random()!r}" upper="{rng.random()!r}" '
        f'velocity="{rng.random()!r}"/></joint>'
        for i in range(50)
    ]
    text = f"<robot name='r'>{''.join(rng.sample(joints, 50))}</robot>"
    found = limits(
        tmp_path, text, [f"j{i}" for i in range(50)], margin=0.0, velocity_scale=1.0, acceleration_scale=1.0
    )
    for joint in ElementTree.fromstring(text):
        limit = joint.find("limit").attrib
        ours = found[joint.get("name")]
        expected = tuple(float(limit[name]) for name in ("lower", "upper", "velocity"))
        assert (ours.min_position, ours.max_position, ours.max_velocity) == expected


@pytest.mark.parametrize(
    ("change", "joint", "message"),
    [
        (("", ""), "elbow", r"no joint 'elbow'; known: \['flange', 'free', 'lift', 'shoulder', 'wheel'\]"),
        (("", ""), "flange", r":11: joint 'flange': of type 'fixed': no single position"),
        (
            ('lower="-1.5"', 'lower="low"'),
            "shoulder",
            r":6: joint 'shoulder': lower: expected a number, got 'low'",
        ),
        (
            ('lower="-1.5"', 'lower="nan"'),
            "lift",
            r":6: joint 'shoulder': lower: expected a number, got 'nan'",
        ),
        (('velocity="3.0"', 'velocity="inf"'), "lift", r":6: joint 'shoulder': velocity: expected a number"),
        (
            ('upper="2.0"', 'upper="-1.45"'),
            "shoulder",
            r":6: joint 'shoulder': no room between lower -1.5 and",
        ),
        (
            ('velocity="3.0"', 'velocity="0"'),
            "shoulder",
            r":6: joint 'shoulder': velocity: must be > 0, got 0.0",
        ),
        (('velocity="3.0"', ""), "shoulder", r":6: joint 'shoulder': <limit> has no velocity"),
        (('acceleration="10"', 'acceleration="-1"'), "shoulder", r"acceleration: must be > 0, got -1.0"),
        (('"wheel" type="continuous"', '"wheel" type="prismatic"'), "wheel", r":8: joint 'wheel': no room"),
        (
            ('"free" type="continuous"', '"free" type="revolute"'),
            "free",
            r":9: joint 'free': revolute, but with",
        ),
        (('name="wheel"', 'name="lift"'), "lift", r":10: joint 'lift' is named twice"),
        (('name="wheel"', ""), "lift", r":8: a joint has no name"),
        (
            ("<robot", "<!DOCTYPE robot [<!ENTITY a 'b'>]><robot"),
            "lift",
            r":2: a URDF may not declare a document",
        ),
        (
            ("<robot", "<!DOCTYPE robot SYSTEM 'file:///etc/passwd'><robot"),
            "lift",
            r":2: a URDF may not declare",
        ),
        (('name="lift"', 'name="&lift;"'), "lift", r":10: not XML: undefined entity"),
        (("</robot>", ""), "lift", r":14: not XML: no element found"),
        (("<robot", "<sdf"), "lift", r":2: expected <robot>, found <sdf>"),
        (
            ('<link name="base">', '<xacro:include/><link name="base">'),
            "lift",
            r":3: <xacro:include>: a xacro",
        ),
        (('lower="-1.5"', 'lower="${-pi}"'), "lift", r"lower: expected a number, got '\$\{-pi\}'"),
    ],
)
def test_what_is_wrong_is_named_by_file_line_and_joint(tmp_path, change, joint, message):
    with pytest.raises(UrdfError, match=message) as refused:
        limits(tmp_path, ARM.replace(*change), [joint])
    assert str(tmp_path / "robot.urdf") in str(refused.value)


def test_what_is_wrong_with_a_joint_that_the_policy_does_not_command_is_no_matter(tmp_path):
    text = ARM.replace('velocity="3.0"', 'velocity="0"')
    assert limits(tmp_path, text, ["lift"])["lift"].max_velocity == 0.1


def test_what_is_no_plain_file_of_sane_size_is_not_opened(tmp_path):
    for path, message in (
        (tmp_path / "none", "expected a URDF file, found nothing"),
        (tmp_path, "found no plain file"),
    ):
        with pytest.raises(UrdfError, match=message):
            read_joints(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UrdfError, match="found no plain file"):  # and it does not wait for a writer
        read_joints(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(UrdfError, match=f"expected at most {MAX_BYTES} bytes, found {MAX_BYTES + 1}"):
        read_joints(tmp_path / "large")


@pytest.mark.parametrize("seed", range(4))
def test_of_random_damage_nothing_but_a_refusal_comes(tmp_path, seed):
    rng = np.random.default_rng(seed)
    path = tmp_path / "robot.urdf"
    refused = 0
    for _ in range(250):
        data = bytearray(ARM.encode())
        for _ in range(rng.integers(1, 6)):
            at = rng.integers(len(data))
            data[at : at + rng.integers(0, 4)] = rng.bytes(rng.integers(0, 4))
        path.write_bytes(data)
        try:
            found = urdf_limits(path, ["shoulder", "lift"], **SCALES)
        except UrdfError:
            refused += 1
        else:
            assert all(limit.min_position < limit.max_position for limit in found.values())
            assert all(limit.max_velocity > 0.0 for limit in found.values())
    assert 0 < refused < 250


def test_deep_nesting_and_many_attributes_are_read_in_bounded_time_and_stack(tmp_path):
    path = tmp_path / "robot.urdf"
    path.write_text("<robot>" + "<a>" * 200_000 + "</a>" * 200_000 + "<joint name='j' type='fixed'/></robot>")
    assert set(read_joints(path)) == {"j"}
