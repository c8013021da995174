"""A lower body of eleven bones that 152 muscles move, and nothing else does.

From the musculoskeletal model of MASS (Muscle-Actuated Skeletal System), Copyright 2019 Seunghwan Lee, licensed under
the Apache License 2.0. Changed: the lower body only, as a table, with boxes for bones; the joints' gains are those of
the DFlex environment SNUHumanoid.

The tables keep the axes of the source, x to the left, y up, z forward; the model has x forward, y to the left, z up.
All joints' frames are parallel to these at joint position zero, and boxes are parallel to their joints: in the source
they are turned by 1 to 5 degrees in the legs and 12 to 20 in the feet, which moves the corners that touch the ground by
some millimetres. The left leg mirrors the right one. In the environments with published returns the toes of the left
foot are swapped, the big one outside; here they are not.
"""

import math
from dataclasses import dataclass

from rewarped_sim.assets.snu_muscles import BONES, MUSCLES
from rewarped_sim.engine.articulation.model import (
    ArticulationModel,
    Body,
    ContactMaterial,
    Geom,
    Joint,
    Muscle,
    MusclePoint,
)
from rewarped_sim.engine.kinematics import Vec3

START_HEIGHT_M = 1.0
"""Of the pelvis; the feet hover 3 cm over the ground."""
PUBLISHED_STRENGTH = 0.36
"""Of the muscles' largest forces: a factor of 0.6 that was applied twice."""

CONTACT = ContactMaterial(stiffness=5.0e3, damping=2.0e3, friction_stiffness=1.0e3, friction=0.5)

_SIDEWAYS = (0.0, 1.0, 0.0)
"""Of knees and toes: x in the tables."""
_COLORS = {"pelvis": (0.86, 0.80, 0.70), "femur": (0.90, 0.86, 0.76), "tibia": (0.86, 0.80, 0.70)}
_FOOT_COLOR = (0.90, 0.86, 0.76)


@dataclass(frozen=True)
class Bone:
    """A bone of the right leg, or the pelvis."""

    name: str
    parent: str
    kind: str
    """Of the joint."""
    limits: tuple[float, float]
    """Of a hinge [rad]."""
    position: Vec3
    """Of the joint in the parent's frame [m]."""
    mass: float
    """[kg]"""
    size: Vec3
    """Edges of the box [m]."""
    centre: Vec3
    """Of the box in the joint's frame [m]."""


_NONE = (-math.inf, math.inf)
PELVIS = Bone("pelvis", "", "free", _NONE, (0.0, 0.0, 0.0), 15.0, (0.2083, 0.1454, 0.1294), (0.0, 0.0, 0.0))
LEG = (
    Bone(
        "femur", "pelvis", "ball", _NONE, (-0.0903, -0.0472, 0.0192), 7.0,
        (0.1271, 0.4043, 0.1398), (-0.0056, -0.2096, -0.0111),
    ),
    Bone(
        "tibia", "femur", "hinge", (0.0, 2.3), (-0.0092, -0.395, 0.0013), 3.0,
        (0.1198, 0.4156, 0.1141), (0.0067, -0.2369, -0.0238),
    ),
    Bone(
        "talus", "tibia", "ball", _NONE, (0.0195, -0.4611, -0.0316), 0.6,
        (0.0756, 0.0498, 0.157), (-0.0026, -0.0373, 0.0177),
    ),
    Bone(
        "thumb_toe", "talus", "hinge", (-0.6, 0.6), (0.0019, -0.0575, 0.1111), 0.2,
        (0.0407, 0.0262, 0.0563), (0.0016, 0.0067, 0.0246),
    ),
    Bone(
        "pinky_toe", "talus", "hinge", (-0.6, 0.6), (-0.0427, -0.0634, 0.0913), 0.2,
        (0.0422, 0.0238, 0.0529), (-0.0017, 0.0127, 0.0316),
    ),
)  # fmt: skip
"""The right leg, in the order of coordinates. x to the left, y up, z forward."""


def snu_lower_body(
    *,
    strength: float = PUBLISHED_STRENGTH,
    damping: float = 2.0,
    extra_damping_per_mass: float = 10.0 / 15.0,
    armature: float = 0.05,
    limit_damping_per_mass: float = 0.0,
    contact: ContactMaterial = CONTACT,
    contact_law: str = "dflex",
    control_dt_s: float = 1.0 / 60.0,
    num_substeps: int = 48,
) -> ArticulationModel:
    """The lower body over the ground, with the DFlex gains unless told otherwise; bones do not touch each other.

    Bodies: pelvis, right leg, left leg, named `right_femur` and so on. Muscles: left and right by turns, `L_Soleus`
    before `R_Soleus`. Every joint has a spring of 5 sqrt(m / 15) N m/rad towards its pose at position zero, and hinges
    have limits of 1000 m / 15 N m/rad, where m [kg] is the mass of the bone.

    Args:
        strength: factor on the muscles' largest forces.
        damping: of hinges and balls [N m s/rad].
        extra_damping_per_mass: further damping of hinges, times m. It is the limits' damping, which DFlex applies
            always [N m s/rad/kg].
        armature: [kg m^2]
        limit_damping_per_mass: while a limit is violated, times m [N m s/rad/kg].
        contact: of all bones and the ground.
        contact_law: one of `CONTACT_LAWS`.
        control_dt_s: duration of a control step [s].
        num_substeps: in a control step.
    """

    def joint(name: str, bone: Bone) -> Joint:
        spring = 5.0 * math.sqrt(bone.mass / 15.0)
        if bone.kind == "ball":
            return Joint(name=name, kind="ball", stiffness=spring, damping=damping, armature=armature)
        lower, upper = bone.limits
        return Joint(
            name=name, kind="hinge", axis=_SIDEWAYS, lower=lower, upper=upper, stiffness=spring,
            damping=damping + extra_damping_per_mass * bone.mass, armature=armature,
            limit_stiffness=1000.0 / 15.0 * bone.mass, limit_damping=limit_damping_per_mass * bone.mass,
        )  # fmt: skip

    def box(bone: Bone, side: str) -> Geom:
        x, y, z = bone.size
        return Geom(
            kind="box", size=(z / 2.0, x / 2.0, y / 2.0), position=_placed(bone.centre, side),
            density=bone.mass / (x * y * z), contact=contact, color=_COLORS.get(bone.name, _FOOT_COLOR),
        )  # fmt: skip

    def leg_body(bone: Bone, side: str) -> Body:
        name = _name(bone.name, side)
        return Body(
            name=name,
            parent=_name(bone.parent, side),
            position=_placed(bone.position, side),
            joints=(joint(name, bone),),
            geoms=(box(bone, side),),
        )

    pelvis = Body(
        name="pelvis",
        position=(0.0, 0.0, START_HEIGHT_M),
        joints=(Joint(name="root", kind="free"),),
        geoms=(box(PELVIS, "right"),),
    )
    return ArticulationModel(
        bodies=(pelvis, *(leg_body(bone, side) for side in ("right", "left") for bone in LEG)),
        control_dt_s=control_dt_s,
        num_substeps=num_substeps,
        muscles=tuple(_muscle(row, side, strength) for row in MUSCLES for side in ("left", "right")),
        ground=contact,
        contact_law=contact_law,
    )


def _muscle(row: tuple[str, float, str], side: str, strength: float) -> Muscle:
    """The muscle that a row of `MUSCLES` describes, on one side."""
    name, force, waypoints = row
    points = []
    for waypoint in waypoints.split(", "):
        letter, *millimetres = waypoint.split()
        x, y, z = (0.001 * float(value) for value in millimetres)
        points.append(MusclePoint(body=_name(BONES[letter], side), position=_placed((x, y, z), side)))
    return Muscle(name=f"{side[0].upper()}_{name}", max_force=strength * force, points=tuple(points))


def _name(bone: str, side: str) -> str:
    return bone if bone == "pelvis" else f"{side}_{bone}"


def _placed(position: Vec3, side: str) -> Vec3:
    """A point of the right side's tables in the model's axes, mirrored for the left side."""
    x, y, z = position
    return z, x if side == "right" else -x, y
