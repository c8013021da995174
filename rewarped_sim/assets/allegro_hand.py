"""The right Allegro hand, palm up on a fixed base, and a cube to turn in it.

Three fingers of four hinges each, and a thumb of four. In the palm's frame the fingers point along z, and x is the
palm's normal.
"""

import math
from dataclasses import dataclass

from rewarped_sim.engine.articulation.model import (
    ArticulationModel,
    Body,
    ContactMaterial,
    Geom,
    Inertia,
    Joint,
    all_body_pairs,
)
from rewarped_sim.engine.kinematics import IDENTITY, Quaternion, Vec3

JOINT_NAMES = tuple(f"joint_{number}" for number in (12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3))
"""The hinges in the order of coordinates and actions: the thumb, then the fingers, the farthest first."""
CUBE = "cube"
"""Name of the cube's body and of its free joint, which comes after the hinges."""
CUBE_START: Vec3 = (0.0, -0.1, 0.6)
"""Of the cube's centre in the world [m]: over the fingers, not over the palm, as in the published task."""
CUBE_HALF_SIZE_M = 0.0325

CONTACT = ContactMaterial(stiffness=500.0, damping=100.0, friction_stiffness=100.0, friction=0.5)
"""For the law `huber`, whose damping is there in full as soon as shapes touch."""
SMOOTH_CONTACT = ContactMaterial(stiffness=500.0, damping=4.0e4, friction_stiffness=100.0, friction=0.5)
"""For the law `regularized`, whose damping grows with depth: as much as that of `CONTACT` at 2.5 mm, which is where
the cube rests on four points."""

_BASE: Vec3 = (0.0, 0.0, 0.5)
_LINK_COLOR, _TIP_COLOR, _CUBE_COLOR = (0.22, 0.23, 0.26), (0.85, 0.85, 0.82), (0.85, 0.45, 0.20)


@dataclass(frozen=True)
class Link:
    """A box of the hand with the hinge that carries it; its mass lies at the origin of its frame."""

    position: Vec3
    """Of the hinge in the frame of the link before it [m]."""
    axis: Vec3
    lower: float
    """[rad]"""
    upper: float
    size: Vec3
    """Edges of the box [m]."""
    centre: Vec3
    """Of the box [m]."""
    mass: float
    """[kg]"""
    moments: Vec3
    """xx, yy, zz of the inertia [kg m^2]."""
    products: Vec3 = (0.0, 0.0, 0.0)
    """xy, xz, yz of the inertia [kg m^2]."""
    quaternion: Quaternion = IDENTITY
    """Orientation in the frame of the link before it, at angle 0."""


def _phalanx(
    before: float,
    axis: Vec3,
    limits: tuple[float, float],
    length: float,
    mass: float,
    moments: Vec3,
    products: Vec3 = (0.0, 0.0, 0.0),
) -> Link:
    """A link that continues one of length `before` along z."""
    return Link(
        (0.0, 0.0, before), axis, *limits, (0.0196, 0.0275, length), (0.0, 0.0, length / 2.0), mass, moments, products
    )  # fmt: skip


_Y, _Z = (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)

# The inertia of these three, as published, violates A + B >= C: no solid body has it. It is kept, as it is positive
# definite, which is all that the equations of motion ask, and because published results have it.
_AFTER_KNUCKLE = (
    _phalanx(
        0.0164, _Y, (-0.196, 1.61), 0.054, 0.065,
        (7.9565e-5, 2.4709e-5, 7.9565e-5), (1.7199e-5, 8.7588e-6, 2.4131e-5),
    ),
    _phalanx(
        0.054, _Y, (-0.174, 1.709), 0.0384, 0.0355,
        (2.6398e-5, 1.3495e-5, 2.6398e-5), (6.6797e-6, 4.7836e-6, 9.372e-6),
    ),
    _phalanx(
        0.0384, _Y, (-0.227, 1.618), 0.0267, 0.0096,
        (4.7012e-6, 3.6493e-6, 4.7012e-6), (1.2560e-6, 1.2936e-6, 1.7622e-6),
    ),
)  # fmt: skip


def _finger(knuckle: Vec3, roll_deg: float) -> tuple[Link, ...]:
    """A finger whose knuckle sits at a point of the palm, spread by a turn about x."""
    half = math.radians(roll_deg) / 2.0
    first = Link(
        knuckle, _Z, -0.47, 0.47, (0.0196, 0.0275, 0.0164), (0.0, 0.0, 0.0082), 0.0119,
        (1.0167e-6, 6.4768e-7, 1.0167e-6), quaternion=(math.sin(half), 0.0, 0.0, math.cos(half)),
    )  # fmt: skip
    return (first, *_AFTER_KNUCKLE)


def _pitch_then_yaw(pitch: float, yaw: float) -> Quaternion:
    """A turn about y, then one about the fixed z [rad]."""
    sin_p, cos_p, sin_y, cos_y = (f(a / 2.0) for a in (pitch, yaw) for f in (math.sin, math.cos))
    return -sin_y * sin_p, cos_y * sin_p, sin_y * cos_p, cos_y * cos_p


def _thumb() -> tuple[Link, ...]:
    turn = _pitch_then_yaw(-1.658063, -1.570796)
    return (
        Link(
            (-0.0182, 0.019333, -0.045987), (-1.0, 0.0, 0.0), 0.263, 1.396, (0.0358, 0.034, 0.0455),
            (-0.0179, 0.009, 0.0145), 0.0176, (1.8927e-5, 1.4301e-5, 1.8927e-5), quaternion=turn,
        ),
        Link(
            (-0.027, 0.005, 0.0399), _Z, -0.105, 1.163, (0.0196, 0.0275, 0.0177), (0.0, 0.0, 0.00885), 0.0119,
            (4.2425e-6, 4.5236e-6, 4.2425e-6),
        ),
        _phalanx(0.0177, _Y, (-0.189, 1.644), 0.0514, 0.038, (4.3044e-5, 1.4445e-5, 4.3044e-5)),
        _phalanx(0.0514, _Y, (-0.162, 1.719), 0.0423, 0.0388, (3.2922e-5, 1.4749e-5, 3.2922e-5)),
    )  # fmt: skip


_BASE_TURN = _pitch_then_yaw(-0.53 * math.pi, 0.5 * math.pi)
"""The palm faces up, a little towards the fingers, which point along -y of the world."""
DIGITS = {
    12: _thumb(),
    8: _finger((0.0, -0.0435, -0.001542), 5.0),
    4: _finger((0.0, 0.0, 0.0007), 0.0),
    0: _finger((0.0, 0.0435, -0.001542), -5.0),
}
"""Links from palm to tip, by the number of the first joint."""
LOWER = tuple(link.lower for links in DIGITS.values() for link in links)
"""Limits of `JOINT_NAMES` [rad]. The first of the thumb begins above 0, so the hand at zero violates it."""
UPPER = tuple(link.upper for links in DIGITS.values() for link in links)


def allegro_hand(
    *,
    damping: float = 0.0,
    armature: float = 0.001,
    limit_stiffness: float = 100.0,
    limit_damping: float = 10.0,
    drive_stiffness: float = 0.0,
    drive_damping: float = 0.0,
    fingertip_mass: float = 0.0168,
    cube_density: float = 1820.665,
    contact: ContactMaterial = CONTACT,
    contact_law: str = "huber",
    self_collision: bool = True,
    control_dt_s: float = 1.0 / 120.0,
    num_substeps: int = 64,
) -> ArticulationModel:
    """Hand and cube, with the published gains unless told otherwise; there is no ground.

    Args:
        damping: of the hinges; published: none [N m s/rad].
        armature: of the hinges [kg m^2].
        limit_stiffness: [N m/rad]
        limit_damping: while a limit is violated [N m s/rad].
        drive_stiffness: of a position drive on every hinge; published: torques instead [N m/rad].
        drive_damping: of that drive [N m s/rad].
        fingertip_mass: each of the four. The published task counts it twice, as 0.0336 does here [kg].
        cube_density: the default makes it weigh 0.5 kg [kg/m^3].
        contact: of all shapes.
        contact_law: one of `CONTACT_LAWS`.
        self_collision: whether parts of the hand touch each other; the cube touches them all, always.
        control_dt_s: duration of a control step [s].
        num_substeps: in a control step.
    """

    def box(size: Vec3, centre: Vec3, color: Vec3, density: float = 0.0) -> Geom:
        half = (size[0] / 2.0, size[1] / 2.0, size[2] / 2.0)
        return Geom(kind="box", size=half, position=centre, density=density, contact=contact, color=color)

    def link_body(number: int, parent: str, link: Link) -> Body:
        hinge = Joint(
            name=f"joint_{number}", kind="hinge", axis=link.axis, lower=link.lower, upper=link.upper,
            damping=damping, armature=armature, limit_stiffness=limit_stiffness, limit_damping=limit_damping,
            drive_stiffness=drive_stiffness, drive_damping=drive_damping,
        )  # fmt: skip
        (xx, yy, zz), (xy, xz, yz) = link.moments, link.products
        return Body(
            name=f"link_{number}",
            parent=parent,
            position=link.position,
            quaternion=link.quaternion,
            joints=(hinge,),
            geoms=(box(link.size, link.centre, _LINK_COLOR),),
            inertia=Inertia(mass=link.mass, matrix=((xx, xy, xz), (xy, yy, yz), (xz, yz, zz))),
        )

    tip_moment = 9.68e-7 * fingertip_mass / 0.0168
    tip_inertia = Inertia(
        mass=fingertip_mass,
        matrix=((tip_moment, 0.0, 0.0), (0.0, tip_moment, 0.0), (0.0, 0.0, tip_moment)),
    )
    tip = Geom(kind="sphere", size=(0.012,), density=0.0, contact=contact, color=_TIP_COLOR)
    hand = [
        Body(
            name="palm",
            position=_BASE,
            quaternion=_BASE_TURN,
            geoms=(box((0.0408, 0.113, 0.095), (-0.0093, 0.0, -0.0475), _LINK_COLOR),),
        )
    ]
    too_close = set()
    """A fingertip is part of its link, so like that it does not touch the link before."""
    for first, links in DIGITS.items():
        parent = "palm"
        for number, link in enumerate(links, start=first):
            hand.append(link_body(number, parent, link))
            parent = f"link_{number}"
        length = links[-1].size[2]
        hand.append(
            Body(name=f"{parent}_tip", parent=parent, position=(0.0, 0.0, length), geoms=(tip,), inertia=tip_inertia)
        )  # fmt: skip
        too_close.add((f"link_{first + 2}", f"{parent}_tip"))
    edge = 2.0 * CUBE_HALF_SIZE_M
    cube = Body(
        name=CUBE,
        position=CUBE_START,
        joints=(Joint(name=CUBE, kind="free"),),
        geoms=(box((edge, edge, edge), (0.0, 0.0, 0.0), _CUBE_COLOR, cube_density),),
    )
    within = tuple(pair for pair in all_body_pairs(hand) if pair not in too_close) if self_collision else ()
    return ArticulationModel(
        bodies=(*hand, cube),
        control_dt_s=control_dt_s,
        num_substeps=num_substeps,
        contact_law=contact_law,
        contact_pairs=(*within, *((body.name, CUBE) for body in hand)),
    )
