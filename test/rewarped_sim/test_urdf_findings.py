"""URDF that contradicts itself, or that would become another robot without a word."""

import numpy as np
import pytest

from rewarped_sim.importer import import_model
from rewarped_sim.robot_file import UnsupportedModelError

INERTIAL = '<inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>'
ROBOT = f"""
<robot name="arm">
  <link name="base"/>
  <link name="upper">{INERTIAL}<collision><geometry><sphere radius="0.1"/></geometry></collision></link>
  <link name="lower">{INERTIAL}</link>
  <joint name="shoulder" type="revolute">
    <parent link="base"/><child link="upper"/><limit lower="-1" upper="2" effort="1" velocity="1"/>
  </joint>
  <joint name="elbow" type="continuous"><parent link="upper"/><child link="lower"/></joint>
</robot>
"""


def imported(folder, text, **options):
    path = folder / "arm.urdf"
    path.write_text(text)
    return import_model(path, **options)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('<link name="base"/>', '<link name="base"/><link name="upper"/>', "second link of the name 'upper'"),
        ('<link name="base"/>', '<link name="base"/><link/>', "link without a name"),
        ('name="elbow"', 'name="shoulder"', "second joint of the name 'shoulder'"),
        (
            '<link name="base"/>',
            '<link name="base"/><link name="x"/>',
            "robot of several roots, 'base' and 'x',",
        ),
        (
            '<child link="lower"/>',
            '<child link="hand"/>',
            "joint 'elbow' with child 'hand', which is no link,",
        ),
        ('<parent link="upper"/>', "", "joint 'elbow' with parent '', which is no link,"),
        (
            "</robot>",
            '<joint name="back" type="fixed"><parent link="lower"/><child link="base"/></joint></robot>',
            "joint 'back' closes a loop at link 'base', which",
        ),
        ('type="continuous"', 'type="screw"', "type 'screw' of joint 'elbow'"),
        ('type="continuous"', "", "type None of joint 'elbow'"),
        ('radius="0.1"', 'radius="-0.1"', "touching sphere of link 'upper' with radius '-0.1'"),
        ('radius="0.1"', "", "touching sphere of link 'upper' with radius ''"),
        ('<sphere radius="0.1"/>', '<box size="1 2"/>', "touching box of link 'upper' with size '1 2'"),
        (
            '<sphere radius="0.1"/>',
            '<capsule radius="1"/>',
            "touching capsule of link 'upper' with length ''",
        ),
        ('<sphere radius="0.1"/>', "", "collision of link 'upper' of 0 shapes"),
        (
            '<link name="base"/>',
            '<xacro:include filename="base.xacro"/><link name="base"/>',
            "xacro:include, which is for xacro: let it make a URDF file of this one,",
        ),
        ('upper="2"', 'upper="${top}"', "limit, which is for xacro: let it make a URDF file of this one,"),
    ],
)
def test_a_robot_that_is_none_is_refused_with_its_line(tmp_path, old, new, message):
    imported(tmp_path, ROBOT)
    assert old in ROBOT
    with pytest.raises(UnsupportedModelError) as refusal:
        imported(tmp_path, ROBOT.replace(old, new, 1))
    assert f": {message} is not supported" in str(refusal.value)
    assert "arm.urdf:" in str(refusal.value).split("\n")[1]


def test_a_robot_without_links_is_refused(tmp_path):
    with pytest.raises(UnsupportedModelError, match=r"arm\.urdf:1: robot without links"):
        imported(tmp_path, "<robot/>")


def test_a_continuous_joint_has_no_limits_whatever_is_written(tmp_path):
    text = ROBOT.replace('<child link="lower"/>', '<child link="lower"/><limit lower="-1" upper="1"/>')
    assert imported(tmp_path, text) == imported(tmp_path, ROBOT)


@pytest.mark.parametrize(("limit", "expected"), [('upper="2"', (0.0, 2.0)), ('lower="-1"', (-1.0, 0.0))])
def test_a_limit_that_is_not_written_is_zero_where_the_other_one_is(tmp_path, limit, expected):
    model = imported(tmp_path, ROBOT.replace('lower="-1" upper="2"', limit))
    assert (model.joints[0].lower, model.joints[0].upper) == expected


@pytest.mark.parametrize("key", ["length", "height"])
def test_a_capsule_is_as_long_as_is_written(tmp_path, key):
    text = ROBOT.replace('<sphere radius="0.1"/>', f'<capsule radius="0.1" {key}="0.6"/>')
    text = text.replace(f'<link name="upper">{INERTIAL}', '<link name="upper">')
    body = imported(tmp_path, text).bodies[1]
    assert body.geoms[0].size == pytest.approx((0.1, 0.3))
    assert body.inertia is not None
    assert body.inertia.mass == pytest.approx(1000.0 * np.pi * (0.1**2 * 0.6 + 4.0 / 3.0 * 0.1**3))


def test_a_link_that_stands_for_the_world_lets_another_one_float(tmp_path):
    text = ROBOT.replace(
        'name="shoulder" type="revolute">', 'name="shoulder" type="floating"><origin xyz="1 2 3"/>'
    )
    model = imported(tmp_path, text)
    assert [joint.kind for joint in model.joints] == ["free", "hinge"]
    assert model.bodies[1].parent == ""
    assert model.start_q()[:3] == pytest.approx((1.0, 2.0, 3.0))


def test_a_floating_joint_of_a_link_that_moves_is_refused(tmp_path):
    with pytest.raises(
        UnsupportedModelError, match="free joint of body 'lower' below one that moves, 'upper'"
    ):
        imported(tmp_path, ROBOT.replace("continuous", "floating"))


def test_what_is_no_link_or_joint_is_passed_over(tmp_path):
    others = (
        '<gazebo><sensor:camera name="c"/></gazebo><material name="m"><texture filename="none"/></material>'
    )
    text = ROBOT.replace('<robot name="arm">', f'<robot name="arm" xmlns="http://www.ros.org">{others}')
    assert imported(tmp_path, text) == imported(tmp_path, ROBOT)


def test_links_that_are_fixed_to_each_other_are_one_neighbour(tmp_path):
    wrist = f"""
      <link name="wrist">{INERTIAL}<collision><geometry><sphere radius="0.1"/></geometry></collision></link>
      <link name="hand">{INERTIAL}<collision><geometry><sphere radius="0.1"/></geometry></collision></link>
      <joint name="fix" type="fixed"><parent link="upper"/><child link="wrist"/></joint>
      <joint name="turn" type="continuous"><parent link="wrist"/><child link="hand"/></joint>
    </robot>"""
    model = imported(tmp_path, ROBOT.replace("</robot>", wrist), self_collision=True)
    assert model.contact_pairs == ()
    turning = imported(
        tmp_path, ROBOT.replace("</robot>", wrist).replace('"fixed"', '"continuous"'), self_collision=True
    )
    assert turning.contact_pairs == (("upper", "hand"),)
