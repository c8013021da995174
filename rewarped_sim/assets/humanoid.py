"""The humanoid: torso, waist, pelvis, two legs and two arms on 21 hinges.

Its measures are those of dm_control's humanoid, its gains those of the DFlex environment. x is forward, y to the left,
z up.
"""

from collections.abc import Iterable

import numpy as np

from rewarped_sim.engine.articulation.model import (
    ArticulationModel,
    Body,
    ContactMaterial,
    Geom,
    Joint,
    capsule_between,
)
from rewarped_sim.engine.kinematics import IDENTITY, Quaternion, Vec3

JOINT_NAMES = (
    "abdomen_z", "abdomen_y", "abdomen_x",
    "right_hip_x", "right_hip_z", "right_hip_y", "right_knee", "right_ankle_y", "right_ankle_x",
    "left_hip_x", "left_hip_z", "left_hip_y", "left_knee", "left_ankle_y", "left_ankle_x",
    "right_shoulder1", "right_shoulder2", "right_elbow",
    "left_shoulder1", "left_shoulder2", "left_elbow",
)  # fmt: skip
"""The hinges in the order of coordinates and actions."""
START_HEIGHT_M = 1.35
"""Of the torso's centre, standing straight on the ground's surface."""

CONTACT = ContactMaterial(stiffness=2.0e4, damping=5.0e3, friction_stiffness=1.0e3, friction=0.75)

_TILT: Quaternion = (0.0, -0.002, 0.0, 1.0)
"""Waist and pelvis each lean by -0.23 degrees about y."""
_X, _Y, _Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
_ORIGIN = (0.0, 0.0, 0.0)
_SKIN, _CLOTH = (0.82, 0.62, 0.48), (0.30, 0.40, 0.60)


def humanoid(
    *,
    density: float = 1000.0,
    extra_damping: float = 10.0,
    limit_stiffness: float = 1.0e3,
    limit_damping: float = 0.0,
    contact: ContactMaterial = CONTACT,
    contact_law: str = "dflex",
    control_dt_s: float = 1.0 / 60.0,
    num_substeps: int = 48,
) -> ArticulationModel:
    """The humanoid on the ground, with the DFlex gains unless told otherwise; its limbs do not touch each other.

    Args:
        density: [kg/m^3]
        extra_damping: of every hinge, on top of its own 0.1 to 5. It is the limits' damping, which DFlex applies always
            [N m s/rad].
        limit_stiffness: [N m/rad]
        limit_damping: while a limit is violated [N m s/rad].
        contact: of all shapes and the ground.
        contact_law: one of `CONTACT_LAWS`.
        control_dt_s: duration of a control step [s].
        num_substeps: in a control step.
    """

    def hinge(
        name: str,
        axis: Vec3,
        degrees: tuple[float, float],
        gains: tuple[float, float, float],
        position: Vec3 = _ORIGIN,
    ) -> Joint:
        """`gains` are stiffness, damping and armature."""
        stiffness, damping, armature = gains
        lower, upper = np.radians(degrees)
        return Joint(
            name=name, kind="hinge", axis=axis, position=position, lower=float(lower), upper=float(upper),
            stiffness=stiffness, damping=damping + extra_damping, armature=armature,
            limit_stiffness=limit_stiffness, limit_damping=limit_damping,
        )  # fmt: skip

    def capsule(start: Vec3, end: Vec3, radius: float, color: Vec3 = _SKIN) -> Geom:
        return capsule_between(start, end, radius, density=density, contact=contact, color=color)

    def across(half: float, radius: float, x: float = 0.0, z: float = 0.0) -> Geom:
        return capsule((x, -half, z), (x, half, z), radius, _CLOTH)

    def sphere(radius: float, position: Vec3) -> Geom:
        return Geom(
            kind="sphere", size=(radius,), position=position, density=density, contact=contact, color=_SKIN
        )

    def body(
        name: str,
        parent: str,
        position: Vec3,
        joints: Iterable[Joint],
        geoms: Iterable[Geom],
        quaternion: Quaternion = IDENTITY,
    ) -> Body:
        return Body(
            name=name, parent=parent, position=position, quaternion=quaternion, joints=tuple(joints),
            geoms=tuple(geoms),
        )  # fmt: skip

    def leg(side: str, s: float) -> list[Body]:
        """`s` is the sign of y on that side. Hips turn outward the same way on both sides."""
        return [
            body(
                f"{side}_thigh", "pelvis", (0.0, 0.1 * s, -0.04),
                (
                    hinge(f"{side}_hip_x", (-s, 0.0, 0.0), (-25.0, 5.0), (10.0, 5.0, 0.01)),
                    hinge(f"{side}_hip_z", (0.0, 0.0, -s), (-60.0, 35.0), (10.0, 5.0, 0.01)),
                    hinge(f"{side}_hip_y", _Y, (-80.0, 20.0), (20.0, 5.0, 0.01)),
                ),
                (capsule(_ORIGIN, (0.0, -0.01 * s, -0.34), 0.06, _CLOTH),),
            ),
            body(
                f"{side}_shin", f"{side}_thigh", (0.0, -0.01 * s, -0.403),
                (hinge(f"{side}_knee", (0.0, -1.0, 0.0), (-160.0, 2.0), (5.0, 0.1, 0.007), (0.0, 0.0, 0.02)),),
                (capsule(_ORIGIN, (0.0, 0.0, -0.3), 0.049),),
            ),
            body(
                f"{side}_foot", f"{side}_shin", (0.0, 0.0, -0.39),
                (
                    hinge(f"{side}_ankle_y", _Y, (-50.0, 50.0), (2.0, 1.0, 0.006), (0.0, 0.0, 0.08)),
                    hinge(f"{side}_ankle_x", (1.0, 0.0, 0.5), (-50.0, 50.0), (2.0, 1.0, 0.006), (0.0, 0.0, 0.08)),
                ),
                (
                    capsule((-0.07, 0.02 * s, 0.0), (0.14, 0.04 * s, 0.0), 0.027),
                    capsule((-0.07, 0.0, 0.0), (0.14, -0.02 * s, 0.0), 0.027),
                ),
            ),
        ]  # fmt: skip

    def arm(side: str, s: float) -> list[Body]:
        return [
            body(
                f"{side}_upper_arm", "torso", (0.0, 0.17 * s, 0.06),
                (
                    hinge(f"{side}_shoulder1", (-2.0 * s, 1.0, -s), (-60.0, 60.0), (10.0, 5.0, 0.01)),
                    hinge(f"{side}_shoulder2", (0.0, -1.0, -s), (-60.0, 60.0), (10.0, 5.0, 0.01)),
                ),
                (capsule(_ORIGIN, (0.16, 0.16 * s, -0.16), 0.04),),
            ),
            body(
                f"{side}_lower_arm", f"{side}_upper_arm", (0.18, 0.18 * s, -0.18),
                (hinge(f"{side}_elbow", (0.0, -1.0, -s), (-90.0, 50.0), (2.0, 1.0, 0.006)),),
                (
                    capsule((0.01, -0.01 * s, 0.01), (0.17, -0.17 * s, 0.17), 0.031),
                    sphere(0.04, (0.18, -0.18 * s, 0.18)),
                ),
            ),
        ]  # fmt: skip

    waist = (0.0, 0.0, 0.065)
    bodies = [
        body(
            "torso", "", (0.0, 0.0, START_HEIGHT_M),
            (Joint(name="root", kind="free"),),
            (across(0.07, 0.07), across(0.06, 0.06, -0.01, -0.12), sphere(0.09, (0.0, 0.0, 0.19))),
        ),
        body(
            "lower_waist", "torso", (-0.01, 0.0, -0.26),
            (
                hinge("abdomen_z", _Z, (-45.0, 45.0), (20.0, 5.0, 0.02), waist),
                hinge("abdomen_y", _Y, (-75.0, 30.0), (20.0, 5.0, 0.01), waist),
            ),
            (across(0.06, 0.06),),
            _TILT,
        ),
        body(
            "pelvis", "lower_waist", (0.0, 0.0, -0.165),
            (hinge("abdomen_x", _X, (-35.0, 35.0), (10.0, 5.0, 0.01), (0.0, 0.0, 0.1)),),
            (across(0.07, 0.09, -0.02),),
            _TILT,
        ),
        *leg("right", -1.0),
        *leg("left", 1.0),
        *arm("right", -1.0),
        *arm("left", 1.0),
    ]  # fmt: skip
    return ArticulationModel(
        bodies=tuple(bodies),
        control_dt_s=control_dt_s,
        num_substeps=num_substeps,
        ground=contact,
        contact_law=contact_law,
    )
