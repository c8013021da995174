"""The hopper: torso, thigh, leg and foot in the vertical plane of x and z, as in DFlex.

At joint position zero it stands upright with its torso's centre at 1.25 m, so `rootz` is the height above that.
"""

import math

from rewarped_sim.engine.articulation.model import ArticulationModel, Body, ContactMaterial, Geom, Joint
from rewarped_sim.engine.kinematics import IDENTITY, Quaternion, Vec3

ROOT_JOINT_NAMES = ("rootx", "rootz", "rooty")
"""Forward, up and pitch of the torso; nothing drives them."""
JOINT_NAMES = ("hip", "knee", "ankle")
"""The driven hinges: they move thigh, leg and foot."""
TORSO_HEIGHT_M = 1.25
"""Of the torso's centre at joint position zero."""

CONTACT = ContactMaterial(stiffness=2.0e4, damping=1.0e3, friction_stiffness=1.0e3, friction=0.9)

_ALONG_X: Quaternion = (0.0, math.sqrt(0.5), 0.0, math.sqrt(0.5))
_BACKWARD: Vec3 = (0.0, -1.0, 0.0)
_COLOR, _FOOT_COLOR = (0.35, 0.55, 0.65), (0.25, 0.35, 0.45)


def hopper(
    *,
    density: float = 1000.0,
    root_damping: float = 10.0,
    damping: float = 12.0,
    armature: float = 1.0,
    limit_stiffness: float = 1.0e3,
    limit_damping: float = 0.0,
    contact: ContactMaterial = CONTACT,
    contact_law: str = "dflex",
    control_dt_s: float = 1.0 / 60.0,
    num_substeps: int = 16,
) -> ArticulationModel:
    """The hopper above the ground, with the DFlex gains unless told otherwise.

    Args:
        density: [kg/m^3]
        root_damping: of the three joints of the torso. It is the limits' damping, which DFlex applies always, and to
            joints without limits too [N s/m and N m s/rad].
        damping: of the driven hinges: their 2 and the limits' 10 [N m s/rad].
        armature: of all joints, those of the torso included [kg and kg m^2].
        limit_stiffness: [N m/rad]
        limit_damping: while a limit is violated [N m s/rad].
        contact: of all shapes and the ground.
        contact_law: one of `CONTACT_LAWS`.
        control_dt_s: duration of a control step [s].
        num_substeps: in a control step.
    """

    def root(name: str, kind: str, axis: Vec3) -> Joint:
        return Joint(name=name, kind=kind, axis=axis, damping=root_damping, armature=armature)

    def hinge(name: str, lower: float, upper: float, position: Vec3 = (0.0, 0.0, 0.0)) -> Joint:
        return Joint(
            name=name, kind="hinge", axis=_BACKWARD, position=position, lower=lower, upper=upper, damping=damping,
            armature=armature, limit_stiffness=limit_stiffness, limit_damping=limit_damping,
        )  # fmt: skip

    def capsule(
        radius: float,
        length: float,
        position: Vec3 = (0.0, 0.0, 0.0),
        quaternion: Quaternion = IDENTITY,
        color: Vec3 = _COLOR,
    ) -> Geom:
        return Geom(
            kind="capsule", size=(radius, length / 2.0), position=position, quaternion=quaternion,
            density=density, contact=contact, color=color,
        )  # fmt: skip

    return ArticulationModel(
        bodies=(
            Body(
                name="torso",
                position=(0.0, 0.0, TORSO_HEIGHT_M),
                joints=(
                    root("rootx", "slide", (1.0, 0.0, 0.0)),
                    root("rootz", "slide", (0.0, 0.0, 1.0)),
                    root("rooty", "hinge", (0.0, 1.0, 0.0)),
                ),
                geoms=(capsule(0.05, 0.40),),
            ),
            Body(
                name="thigh",
                parent="torso",
                position=(0.0, 0.0, -0.2),
                joints=(hinge("hip", -2.618, 0.0),),
                geoms=(capsule(0.05, 0.45, (0.0, 0.0, -0.225)),),
            ),
            Body(
                name="leg",
                parent="thigh",
                position=(0.0, 0.0, -0.7),
                joints=(hinge("knee", -2.618, 0.0, (0.0, 0.0, 0.25)),),
                geoms=(capsule(0.04, 0.50),),
            ),
            Body(
                name="foot",
                parent="leg",
                position=(0.0, 0.0, -0.25),
                joints=(hinge("ankle", -0.785, 0.785),),
                geoms=(capsule(0.06, 0.39, (0.06, 0.0, 0.0), _ALONG_X, _FOOT_COLOR),),
            ),
        ),
        control_dt_s=control_dt_s,
        num_substeps=num_substeps,
        ground=contact,
        contact_law=contact_law,
    )
