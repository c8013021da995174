from itertools import pairwise

import pytest

from rewarped_sim.robot_file import RobotFile


def write(folder, name, text):
    (folder / name).write_text(text)
    return folder / name


def test_elements_know_their_lines(tmp_path):
    path = write(
        tmp_path, "a.xml", "<mujoco>\n  <worldbody>\n\n    <body name='b'/>\n  </worldbody>\n</mujoco>"
    )
    file = RobotFile(path)
    assert file.kind == "mjcf"
    assert file.where(file.named("body", "b")) == f"{path}:4"
    assert file.named("body", "c") is None


def test_included_elements_know_the_file_that_they_are_from(tmp_path):
    parts = write(tmp_path, "parts.xml", "<mujocoinclude>\n  <body name='b'/>\n</mujocoinclude>")
    path = write(tmp_path, "a.xml", "<mujoco><worldbody><include file='parts.xml'/></worldbody></mujoco>")
    file = RobotFile(path)
    assert file.where(file.named("body", "b")) == f"{parts}:2"


def test_defaults_come_from_the_nearest_class(tmp_path):
    text = """
    <mujoco>
      <default>
        <geom type="box" contype="1"/>
        <default class="a"><geom type="capsule"/><default class="b"><geom contype="0"/></default></default>
      </default>
      <worldbody>
        <geom name="plain"/>
        <body childclass="a"><geom name="child"/><frame childclass="b"><geom name="nested" type="sphere"/></frame>
          <geom name="own" class="b"/></body>
      </worldbody>
    </mujoco>"""
    file = RobotFile(write(tmp_path, "a.xml", text.strip()))

    def given(name):
        attributes = file.attributes(file.named("geom", name))
        return attributes["type"], attributes["contype"]

    assert given("plain") == ("box", "1")
    assert given("child") == ("capsule", "1")
    assert given("nested") == ("sphere", "0")
    assert given("own") == ("capsule", "0")


def test_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"a\.xml:1: expected <mujoco> \(MJCF\) or <robot> \(URDF\), got <sdf>"
    ):
        RobotFile(write(tmp_path, "a.xml", "<sdf/>"))
    with pytest.raises(ValueError, match=r"b\.xml: not XML: .*line 2"):
        RobotFile(write(tmp_path, "b.xml", "<mujoco>\n<worldbody></mujoco>"))


def test_included_files_may_begin_with_further_ones(tmp_path):
    write(tmp_path, "inner.xml", "<mujocoinclude><body name='b'/></mujocoinclude>")
    write(tmp_path, "outer.xml", "<mujocoinclude><include file='inner.xml'/></mujocoinclude>")
    path = write(tmp_path, "a.xml", "<mujoco><worldbody><include file='outer.xml'/></worldbody></mujoco>")
    assert RobotFile(path).named("body", "b") is not None
    assert RobotFile(path).named("include", "") is None


def test_a_file_that_includes_itself_or_nothing_is_refused_with_its_line(tmp_path):
    path = write(tmp_path, "a.xml", "<mujoco>\n<include file='b.xml'/></mujoco>")
    with pytest.raises(ValueError, match=r"a\.xml:2: include: .*b\.xml"):
        RobotFile(path)
    write(tmp_path, "b.xml", "<mujocoinclude><include file='a.xml'/></mujocoinclude>")
    with pytest.raises(ValueError, match=r"b\.xml:1: include: .*a\.xml includes itself"):
        RobotFile(path)


def test_elements_in_each_other_beyond_reason_are_refused(tmp_path):
    text = "<mujoco>" + "<body>" * 2000 + "</body>" * 2000 + "</mujoco>"
    with pytest.raises(ValueError, match=r"a\.xml:1: more than 400 elements within each other"):
        RobotFile(write(tmp_path, "a.xml", text))


def test_entities_that_grow_beyond_reason_are_refused(tmp_path):
    names = "abcdefghij"
    entities = "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in pairwise(names))
    text = f'<!DOCTYPE m [<!ENTITY a "aaaaaaaaaa">{entities}]><mujoco model="&j;"/>'
    with pytest.raises(ValueError, match=r"a\.xml: not XML: limit on input amplification"):
        RobotFile(write(tmp_path, "a.xml", text))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ("<default class='robot'/>", "the outermost default class must be 'main', got 'robot'"),
        (
            "<default><default class='a'/></default><default><geom/></default>",
            "defaults for all elements must come before those of classes",
        ),
    ],
)
def test_defaults_whose_order_would_be_lost_are_refused(tmp_path, sections, message):
    with pytest.raises(ValueError, match=r"a\.xml:1: " + message):
        RobotFile(write(tmp_path, "a.xml", f"<mujoco>{sections}</mujoco>"))
