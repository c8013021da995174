"""MJCF that would become another robot without a word: every one of these was once read, and wrongly."""

import pytest

from rewarped_sim.importer import import_model
from rewarped_sim.robot_file import UnsupportedModelError

ROBOT = """
<mujoco>
  <option timestep="0.01"/>
  <compiler angle="degree"/>
  <default>
    <joint armature="0.1"/>
    <motor gear="1"/>
    <default class="gears"><general gear="3"/></default>
    <default class="turned"><geom quat="1 1 0 0"/></default>
  </default>
  <worldbody>
    <body name="upper">
      <joint name="shoulder" axis="0 1 0"/>
      <inertial mass="1" pos="0 0 0.1" diaginertia="0.1 0.1 0.1"/>
      <geom name="upper" type="capsule" size="0.1 0.2"/>
      <body name="lower">
        <joint name="wrist" type="ball"/>
        <geom name="lower" size="0.1"/>
      </body>
    </body>
    <body name="other" pos="0 1 0">
      <joint name="root" type="free"/>
      <geom name="other" size="0.1"/>
    </body>
  </worldbody>
  <actuator><position name="servo" joint="shoulder" kp="5"/></actuator>
  <contact><exclude body1="upper" body2="other"/></contact>
</mujoco>
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('<option timestep="0.01"/>', '<option density="1.2"/>', "density of option"),
        ('<option timestep="0.01"/>', '<option viscosity="1"/>', "viscosity of option"),
        ('<option timestep="0.01"/>', '<option><flag limit="disable"/></option>', "physics without limit"),
        ('angle="degree"', 'coordinate="global"', "coordinate 'global' of compiler"),
        ('<body name="upper">', '<body name="upper"><attach model="m" body="b"/>', "attach in body"),
        (
            '<body name="upper">',
            '<replicate count="2"><body name="x"/></replicate><body name="upper">',
            "replicate in worldbody",
        ),
        (
            '<joint name="wrist" type="ball"/>',
            '<frame><joint name="in"/></frame>',
            "joint in a frame 'in'",
        ),
        (
            '<inertial mass="1"',
            '<frame><inertial mass="2" pos="0 0 0"/></frame><inertial mass="1"',
            "inertial in a frame",
        ),
        ('<inertial mass="1"', '<inertial mass="-1"', "mass -1 of inertial"),
        (
            '<inertial mass="1"',
            '<inertial mass="2" pos="0 0 0"/><inertial mass="1"',
            "second inertial of a body",
        ),
        ('name="lower" size="0.1"', 'name="lower" size="-0.1"', "size '-0.1' of sphere geom 'lower'"),
        ('type="capsule" size="0.1 0.2"', 'type="capsule" size="0.1"', "size '0.1' of capsule geom 'upper'"),
        ('name="lower" size="0.1"', 'name="lower"', "size '' of sphere geom 'lower'"),
        (
            'name="lower" size="0.1"',
            'name="lower" size="0.1" shellinertia="true"',
            "shellinertia of geom 'lower'",
        ),
        (
            'name="lower" size="0.1"',
            'name="lower" size="0.1" euler="0 0 3" class="turned"',
            "quat beside euler of sphere geom 'lower'",
        ),
        (
            '<geom name="lower" size="0.1"/>',
            '<frame><geom name="lower" type="mesh" contype="0" conaffinity="0"/></frame>',
            "mass from a mesh, in a body without <inertial>: geom 'lower'",
        ),
        ('type="ball"', 'type="screw"', "type 'screw' of joint 'wrist'"),
        ('type="ball"', 'class="balls"', "unknown class 'balls' of joint 'wrist'"),
        ('type="ball"', 'type="ball" damping="1 2"', "damping that varies of joint 'wrist'"),
        ('type="free"', 'type="free" stiffness="2"', "spring of free joint 'root'"),
        ('kp="5"', 'kp="5" dampratio="1"', "dampratio of position actuator 'servo'"),
        ('kp="5"', 'kp="5" timeconst="1"', "timeconst of position actuator 'servo'"),
        ('kp="5"', 'kp="5" class="gears"', "gear 3 of position actuator 'servo'"),
        (
            'joint="shoulder"',
            'joint="wrist"',
            "joint 'wrist', no hinge or slide, of position actuator 'servo'",
        ),
        ('joint="shoulder"', 'joint="hip"', "joint 'hip', no hinge or slide, of position actuator 'servo'"),
        (
            "</actuator>",
            '<position joint="shoulder"/></actuator>',
            "second drive of joint 'shoulder' by position actuator",
        ),
        ("<contact>", '<contact><pair geom1="upper" geom2="other"/>', "contact pair"),
    ],
)
def test_what_would_be_read_wrongly_is_refused(tmp_path, old, new, message):
    path = tmp_path / "robot.xml"
    path.write_text(ROBOT)
    import_model(path)
    assert old in ROBOT
    path.write_text(ROBOT.replace(old, new, 1))
    with pytest.raises(UnsupportedModelError) as refusal:
        import_model(path)
    assert f": {message} is not supported" in str(refusal.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('type="ball"', 'type="ball" limited="false" range="0 9"'),
        (
            '<geom name="lower"',
            '<geom type="mesh" mass="0" contype="0" conaffinity="0"/><geom name="lower"',
        ),
        (
            '<geom name="upper"',
            '<geom type="mesh" contype="0" conaffinity="0"/><geom name="upper"',
        ),
    ],
)
def test_what_changes_nothing_is_not_refused(tmp_path, old, new):
    path = tmp_path / "robot.xml"
    path.write_text(ROBOT)
    plain = import_model(path)
    path.write_text(ROBOT.replace(old, new, 1))
    assert import_model(path) == plain


def test_numbers_that_are_none_are_named_with_their_line(tmp_path):
    path = tmp_path / "robot.xml"
    for text in ("abc", "nan", ""):
        path.write_text(
            ROBOT.replace('pos="0 0 0.1"', f'pos="0 0 0.1" mass="{text}"').replace('mass="1" ', "")
        )
        with pytest.raises(
            ValueError, match=rf"robot\.xml:14: mass of inertial: expected finite numbers, got '{text}'"
        ):
            import_model(path)


def test_what_newton_stumbles_over_names_the_file(tmp_path):
    path = tmp_path / "robot.xml"
    path.write_text(ROBOT.replace('axis="0 1 0"', 'axis="0,1,0"'))
    with pytest.raises(
        UnsupportedModelError, match=r"robot\.xml: newton cannot read it: ValueError: .*'0,1,0'"
    ):
        import_model(path)
