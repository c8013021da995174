"""Imported models against MuJoCo, which reads the same files with a parser and a compiler of its own."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import mujoco
import numpy as np
import pytest
from mjcf import compiled, passive_forces, to_mujoco

from rewarped_sim.assets.humanoid import humanoid
from rewarped_sim.engine.articulation.model import ContactMaterial
from rewarped_sim.engine.articulation.tree import Tree
from rewarped_sim.importer import import_model
from rewarped_sim.robot_file import UnsupportedModelError

ARM = """
<mujoco model="arm">
  <compiler angle="degree"/>
  <option gravity="0 0 -3.7"/>
  <default>
    <joint damping="0.5" armature="0.01"/>
    <geom density="500" friction="0.4"/>
    <default class="light"><geom density="100"/></default>
    <default class="seen"><geom contype="0" conaffinity="0" rgba="1 0 0 1"/></default>
  </default>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 1"/>
    <geom name="wall" type="box" size="0.1 1 1" pos="2 0 1"/>
    <body name="trunk" pos="0 0 1" quat="0.9 0.1 -0.3 0.2">
      <freejoint name="root"/>
      <geom type="sphere" size="0.2"/>
      <geom class="seen" type="cylinder" size="0.05 0.1" pos="0 0 0.2"/>
      <body name="upper" pos="0.2 0 0" euler="10 20 30" childclass="light">
        <joint name="yaw" axis="0 0 1" pos="0 0 0.1" range="-40 60"/>
        <joint name="pitch" axis="0 1 0" pos="0 0 0.1" stiffness="3" springref="20"/>
        <geom type="capsule" fromto="0 0 0 0.3 0.1 0" size="0.04"/>
        <body name="lower" pos="0.3 0.1 0">
          <inertial pos="0.1 0 0.02" mass="0.7" fullinertia="0.02 0.03 0.04 0.001 0.002 -0.003"/>
          <joint name="slide" type="slide" axis="1 0 1" range="-0.1 0.2"/>
          <joint name="roll" axis="1 0 0" ref="15"/>
          <geom type="box" size="0.1 0.05 0.02" pos="0.1 0 0"/>
          <body name="palm" pos="0.2 0 0">
            <geom type="sphere" size="0.03"/>
            <body name="finger" pos="0 0.05 0" axisangle="1 0 0 40">
              <joint name="ball" type="ball" pos="0.01 0 0"/>
              <geom type="capsule" size="0.01 0.05" zaxis="1 1 0" contype="2" conaffinity="2"/>
            </body>
          </body>
        </body>
      </body>
    </body>
  </worldbody>
  <contact><exclude body1="trunk" body2="lower"/></contact>
  <actuator>
    <motor joint="yaw" gear="3"/>
    <position joint="pitch" kp="7" kv="0.4"/>
  </actuator>
</mujoco>
"""

CART_POLE = """
<robot name="cart_pole">
  <link name="rail"/>
  <link name="cart">
    <visual><geometry><mesh filename="package://nowhere/cart.stl"/></geometry></visual>
    <collision><origin xyz="0 0 0.1" rpy="0.1 0 0"/><geometry><box size="0.5 0.2 0.1"/></geometry></collision>
    <inertial>
      <mass value="3"/><origin xyz="0 0 0.1"/>
      <inertia ixx="0.1" iyy="0.12" izz="0.15" ixy="0" ixz="0" iyz="0"/>
    </inertial>
  </link>
  <link name="pole">
    <inertial>
      <mass value="1"/><origin xyz="0 0 0.5" rpy="0.3 0 0"/>
      <inertia ixx="0.1" iyy="0.12" izz="0.15" ixy="0.01" ixz="0" iyz="0"/>
    </inertial>
  </link>
  <joint name="slide" type="prismatic">
    <parent link="rail"/><child link="cart"/><axis xyz="0 1 0"/><origin xyz="0 0 1" rpy="0 0.2 0.4"/>
    <limit lower="-2" upper="2" effort="10" velocity="3"/><dynamics damping="0.3"/>
  </joint>
  <joint name="hinge" type="continuous">
    <parent link="cart"/><child link="pole"/><axis xyz="1 0 0"/><origin xyz="0 0 0.2"/>
  </joint>
</robot>
"""


@pytest.fixture
def write(tmp_path):
    def to_file(text, name="robot.xml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return to_file


def assert_accelerations_agree(model, theirs, offset, rng):
    """Of our tables, compiled by MuJoCo, and of the file itself; `offset` is their qpos minus ours."""
    ours = compiled(model)
    for _ in range(10):
        q, qd = (
            model.start_q() + 0.3 * rng.normal(size=model.num_coordinates),
            rng.normal(size=model.num_dofs),
        )
        for joint in model.joints:
            if joint.kind in ("free", "ball"):
                at = model.coordinate(joint.name) + (3 if joint.kind == "free" else 0)
                q[at : at + 4] /= np.linalg.norm(q[at : at + 4])
        qpos, qvel = to_mujoco(model, q, qd)
        accelerations = []
        for oracle, shift in ((ours, 0.0), (theirs, offset)):
            data = mujoco.MjData(oracle)
            data.qpos, data.qvel = qpos + shift, qvel
            mujoco.mj_forward(oracle, data)
            accelerations.append(data.qacc)
        np.testing.assert_allclose(*accelerations, rtol=1e-4, atol=1e-4 * np.abs(accelerations[1]).max())


def test_an_mjcf_file_moves_as_in_mujoco(write):
    path = write(ARM)
    model = import_model(path, limit_stiffness=0.0, limit_damping=0.0)
    theirs = mujoco.MjModel.from_xml_path(str(path))
    theirs.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT | mujoco.mjtDisableBit.mjDSBL_LIMIT
    assert [theirs.joint(index).name for index in range(theirs.njnt)] == model.joint_names
    offset = np.zeros(theirs.nq)
    offset[theirs.joint("roll").qposadr] = np.radians(15.0)
    assert_accelerations_agree(model, theirs, offset, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # The outermost class may be named, in several sections, and asked for where another one holds.
        ("<default>", '<default class="main"><joint pos="0 0 0.2"/></default><default class="main">'),
        ('<geom type="sphere" size="0.03"/>', '<geom type="sphere" size="0.03" class="main"/>'),
        # A free joint has what a class gives to all joints.
        ('<freejoint name="root"/>', '<joint name="root" type="free"/>'),
        # Joints have the order of the file, also in frames.
        (
            '<body name="upper"',
            '<frame pos="0 0 0.3" euler="50 0 9"><body name="tail"><joint name="wag"/><geom size="0.1" pos="1 0 0"/>'
            '</body></frame><body name="upper"',
        ),
        # Names are not needed, not even of a body with several joints.
        ('<body name="upper"', "<body"),
    ],
)
def test_defaults_and_names_are_those_of_mujoco(write, old, new):
    assert old in ARM
    path = write(ARM.replace(old, new, 1))
    model = import_model(path, limit_stiffness=0.0, limit_damping=0.0)
    theirs = mujoco.MjModel.from_xml_path(str(path))
    theirs.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT | mujoco.mjtDisableBit.mjDSBL_LIMIT
    assert [theirs.joint(index).name for index in range(theirs.njnt)] == model.joint_names
    offset = np.zeros(theirs.nq)
    offset[theirs.joint("roll").qposadr] = np.radians(15.0)
    assert_accelerations_agree(model, theirs, offset, np.random.default_rng(3))


def test_a_urdf_file_moves_as_in_mujoco(write):
    path = write(CART_POLE, "cart_pole.urdf")
    model = import_model(path)
    assert [body.name for body in model.bodies] == ["rail", "cart", "pole"]
    assert model.joint_names == ["slide", "hinge"]
    assert (model.joints[0].lower, model.joints[0].upper, model.joints[0].damping) == (-2.0, 2.0, 0.3)
    assert not np.isfinite(model.joints[1].upper)
    without_visual = CART_POLE[: CART_POLE.index("<visual>")] + CART_POLE[CART_POLE.index("</visual>") + 9 :]
    theirs = mujoco.MjModel.from_xml_string(without_visual)
    theirs.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT
    assert_accelerations_agree(model, theirs, 0.0, np.random.default_rng(1))


def test_the_published_humanoid_comes_out_as_our_table():
    file = Path(importlib.util.find_spec("newton").origin).parent / "examples/assets/nv_humanoid.xml"
    model, table = import_model(file), humanoid(extra_damping=0.0)
    assert model.joint_names == table.joint_names
    assert [(body.name, body.parent) for body in model.bodies] == [(b.name, b.parent) for b in table.bodies]
    rng = np.random.default_rng(2)
    assert_accelerations_agree(model, compiled(table), np.zeros(table.num_coordinates), rng)


def test_an_imported_model_can_be_simulated(write):
    tree = Tree(import_model(write(ARM), self_collision=True))
    masses = [link.mass for link in tree.link_mass if link.mass > 0.0]
    theirs = mujoco.MjModel.from_xml_string(ARM)
    assert sum(masses) == pytest.approx(theirs.body_mass.sum(), rel=1e-6)
    # Not those of the finger: its masks keep it from the ground.
    assert len(tree.ground_points()) == 1 + 2 + 8 + 1


def test_joints_keep_limits_springs_and_drives(write):
    model = import_model(write(ARM), limit_stiffness=50.0, limit_damping=2.0)
    joints = {joint.name: joint for joint in model.joints}
    assert (joints["yaw"].lower, joints["yaw"].upper) == pytest.approx((np.radians(-40), np.radians(60)))
    assert (joints["yaw"].limit_stiffness, joints["yaw"].limit_damping) == (50.0, 2.0)
    assert joints["pitch"].limit_stiffness == 0.0
    assert (joints["pitch"].stiffness, joints["pitch"].rest) == pytest.approx((3.0, np.radians(20)))
    assert (joints["pitch"].drive_stiffness, joints["pitch"].drive_damping) == pytest.approx((7.0, 0.4))
    assert joints["yaw"].drive_stiffness == 0.0
    assert joints["yaw"].position == pytest.approx((0.0, 0.0, 0.1))
    assert joints["ball"].damping == pytest.approx(0.5)


def test_a_balls_spring_has_the_same_torque_at_small_angles(write):
    path = write(ARM.replace('type="ball"', 'type="ball" stiffness="2"'))
    model, theirs = import_model(path), mujoco.MjModel.from_xml_path(str(path))
    q = model.start_q()
    at, dof = model.coordinate("ball"), model.dof("ball")
    q[at : at + 4] = (np.sin(0.005), 0.0, 0.0, np.cos(0.005))
    data = mujoco.MjData(theirs)
    data.qpos = to_mujoco(model, q, np.zeros(model.num_dofs))[0]
    mujoco.mj_forward(theirs, data)
    ours = passive_forces(model, q, np.zeros(model.num_dofs))[dof : dof + 3]
    np.testing.assert_allclose(ours, data.qfrc_spring[dof : dof + 3], rtol=1e-4, atol=1e-12)
    assert ours[0] == pytest.approx(-2.0 * 0.01, rel=1e-4)


def test_what_touches_is_what_the_file_lets_touch(write):
    material = ContactMaterial(stiffness=123.0)
    model = import_model(write(ARM), contact=material, self_collision=True)
    assert model.gravity == (0.0, 0.0, -3.7)
    assert model.ground is not None
    assert (model.ground.stiffness, model.ground.friction) == pytest.approx((123.0, 0.4))
    pairs = {frozenset(pair) for pair in model.contact_pairs}
    assert frozenset(("static", "trunk")) in pairs
    assert frozenset(("trunk", "palm")) in pairs
    assert frozenset(("trunk", "lower")) not in pairs  # excluded
    assert frozenset(("trunk", "upper")) not in pairs  # neighbours
    assert not any("finger" in pair for pair in pairs)  # other masks
    trunk = next(body for body in model.bodies if body.name == "trunk")
    assert [geom.kind for geom in trunk.geoms] == ["sphere"]
    assert trunk.inertia is not None
    assert trunk.inertia.mass > 500.0 * 4.0 / 3.0 * np.pi * 0.2**3  # with the cylinder that only is seen
    others = import_model(write(ARM), self_collision=False).contact_pairs
    assert {"static"} == {pair[0] for pair in others}


def test_a_shape_that_its_file_keeps_from_all_others_touches_nothing(write):
    model = import_model(write(ARM), self_collision=True)
    touching = {body.name: [geom.contact is not None for geom in body.geoms] for body in model.bodies}
    assert touching["finger"] == [False]
    assert touching["trunk"] == [True]
    path = write(
        ARM.replace('<exclude body1="trunk" body2="lower"/>', '<exclude body1="world" body2="trunk"/>')
    )
    pairs = import_model(path).contact_pairs
    assert ("static", "lower") in pairs
    assert ("static", "trunk") not in pairs


def test_what_stands_in_the_world_is_touched_in_any_case(write):
    table = """
      <body name="table" pos="1 0 0"><geom type="box" size=".1 .1 .1"/><body name="top"><geom size=".1"/></body></body>
      <body name="stand" pos="-1 0 0"><geom size=".1"/>
        <body name="arm"><joint name="swing"/><geom size=".1" pos="1 0 0"/>
          <body name="hand"><joint name="wave"/><geom size=".1" pos="1 0 0"/></body>
        </body>
      </body>
      <body name="trunk\""""
    path = write(ARM.replace('<body name="trunk"', table))
    pairs = set(import_model(path).contact_pairs)
    assert {("table", "hand"), ("top", "arm"), ("table", "palm"), ("static", "hand")} <= pairs
    assert not any("stand" in pair for pair in pairs)  # it carries an arm: robots do not touch themselves
    assert ("static", "table") not in pairs
    assert ("stand", "hand") in import_model(path, self_collision=True).contact_pairs


def test_a_file_without_contact_has_none(write):
    model = import_model(write(ARM.replace("<option ", '<option><flag contact="disable"/></option><option ')))
    assert model.contact_pairs == ()
    assert Tree(model).ground_points() == []


def test_a_body_may_have_the_name_of_what_is_static(write):
    model = import_model(write(ARM.replace('name="lower"', 'name="static"').replace('"lower"', '"static"')))
    assert model.bodies[0].name == "static_"
    assert ("static_", "static") in model.contact_pairs


def test_a_urdf_robot_may_float_over_a_ground(write):
    model = import_model(write(CART_POLE, "cart_pole.urdf"), floating=True, ground=True)
    assert model.joints[0].kind == "free"
    assert model.ground == ContactMaterial()
    assert import_model(write(CART_POLE, "cart_pole.urdf")).ground is None


def with_line(text, marker, addition):
    """The text with an addition after a marker, and the number of its line."""
    at = text.index(marker) + len(marker)
    text = text[:at] + "\n" + addition + text[at:]
    return text, text[:at].count("\n") + 2


IN_PALM = '<geom type="sphere" size="0.03"/>'


@pytest.mark.parametrize(
    ("marker", "addition", "message", "feature"),
    [
        ("</actuator>", "<tendon><spatial name='t'/></tendon>", "spatial tendon 't'", "tendon"),
        (
            "</actuator>",
            "<equality><weld name='w' body1='palm'/></equality>",
            "weld equality 'w'",
            "equality",
        ),
        ("<actuator>", "<muscle name='m' joint='yaw'/>", "muscle actuator 'm'", "actuator"),
        (
            "<actuator>",
            "<position name='p' joint='yaw' gear='2'/>",
            "gear 2 of position actuator 'p'",
            "actuator",
        ),
        (
            IN_PALM,
            "<geom name='e' type='ellipsoid' size='.1 .1 .2'/>",
            "touching ellipsoid geom 'e'",
            "shape",
        ),
        (
            IN_PALM,
            "<geom name='m' type='mesh'/>",
            "mass from a mesh, in a body without <inertial>: geom 'm'",
            "",
        ),
        (
            '<freejoint name="root"/>',
            "<joint/>",
            "free or ball joint beside other joints in body 'trunk'",
            "",
        ),
        ('springref="20"/>', "<joint name='off'/>", "joints with different anchors in body 'upper'", ""),
        ('ref="15"/>', "<joint name='late' type='slide'/>", "slide after a hinge in body 'lower'", ""),
    ],
)
def test_what_the_engine_cannot_do_is_refused_with_its_line(write, marker, addition, message, feature):
    text, line = with_line(ARM, marker, addition)
    path = write(text)
    with pytest.raises(UnsupportedModelError) as refusal:
        import_model(path)
    assert message + " is not supported" in str(refusal.value)
    if " in body " not in message:  # those name the line of the body
        assert f"{path}:{line}: " in str(refusal.value)
    assert (f"ignore=['{feature}']" in str(refusal.value)) == bool(feature)


def test_what_is_not_essential_can_be_left_out(write):
    text, _ = with_line(ARM, "<actuator>", "<velocity name='v' joint='roll' kv='9'/>")
    text, _ = with_line(
        text, "</actuator>", "<tendon><fixed name='t'><joint joint='roll' coef='1'/></fixed></tendon>"
    )
    model = import_model(write(text), ignore={"actuator", "tendon"})
    assert model == import_model(write(ARM))


@pytest.mark.parametrize(
    ("marker", "addition", "message"),
    [
        ("<limit", "<mimic joint='hinge'/><limit", "mimic of joint 'slide'"),
        ("<dynamics damping", "<dynamics friction='0.1' damping", "friction of joint 'slide'"),
        (
            '<box size="0.5 0.2 0.1"/>',
            "<cylinder radius='1' length='1'/>",
            "touching cylinder of link 'cart'",
        ),
        ('<box size="0.5 0.2 0.1"/>', "<mesh filename='cart.stl'/>", "touching mesh of link 'cart'"),
        ('type="continuous"', "type='planar'", "planar joint 'hinge'"),
        ('<child link="pole"/>', "<child link='cart'/>", "joint 'hinge' closes a loop at link 'cart'"),
    ],
)
def test_urdf_features_that_the_engine_lacks_are_refused(write, marker, addition, message):
    path = write(CART_POLE.replace(marker, addition, 1), "cart_pole.urdf")
    with pytest.raises(UnsupportedModelError, match="cart_pole.urdf:[0-9]+: " + message):
        import_model(path)


def test_a_touching_mesh_can_be_left_out_of_a_urdf_robot(write):
    path = write(
        CART_POLE.replace('<box size="0.5 0.2 0.1"/>', "<mesh filename='cart.stl'/>"), "cart_pole.urdf"
    )
    model = import_model(path, ignore=("mesh",))
    assert all(not body.geoms for body in model.bodies)
    assert model.bodies[1].inertia is not None
    assert model.bodies[1].inertia.mass == 3.0


def test_a_plane_above_the_ground_is_refused(write):
    path = write(ARM.replace('size="5 5 1"', 'size="5 5 1" pos="0 0 0.5"'))
    with pytest.raises(UnsupportedModelError, match=r"robot\.xml:12: plane 'floor' at height 0\.5 m"):
        import_model(path)


def test_an_unknown_feature_is_named(write):
    with pytest.raises(ValueError, match=r"unknown feature 'tendons'; known: .*'tendon'"):
        import_model(write(ARM), ignore={"tendons"})


def test_without_newton_the_extra_is_named(write):
    program = (
        "import sys; sys.modules['newton'] = None\n"
        "from rewarped_sim.importer import import_model\n"
        f"import_model({str(write(ARM))!r})"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode != 0
    assert "pip install 'rewarped_sim[import]'" in result.stderr
