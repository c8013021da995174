"""The right Shadow hand: 24 hinges, and the 19 primitives that it touches with.

Measures are those of the hand [m, rad]; `shadow_hand` scales them. In the palm's frame the fingers point along z, the
row of knuckles lies along x and the palm faces -y; a positive turn about x bends a finger into the palm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rewarped_sim.engine.kinematics import IDENTITY, Joint, Quaternion, Shape, Tool, Vec3

X, Y = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)
SKIN, DARK = (0.80, 0.80, 0.84), (0.36, 0.38, 0.44)


@dataclass(frozen=True)
class Hinge:
    """One joint of the hand, at rest in a relaxed pose."""

    name: str
    parent: str
    """Name of the joint before it; empty for the fixed base."""
    position: Vec3
    """In the parent's frame [m]."""
    axis: Vec3
    lower: float
    """[rad]"""
    upper: float
    rest: float
    quaternion: Quaternion = IDENTITY
    """Orientation in the parent's frame before the joint turns."""


def _finger(name: str, parent: str, knuckle: Vec3, rest: tuple[float, float, float, float]) -> list[Hinge]:
    """Knuckle, proximal, middle and distal joint; `name` is FF, MF, RF or LF."""
    return [
        Hinge(f"{name}J3", parent, knuckle, Y, -0.349, 0.349, rest[0]),
        Hinge(f"{name}J2", f"{name}J3", (0.0, 0.0, 0.0), X, 0.0, 1.571, rest[1]),
        Hinge(f"{name}J1", f"{name}J2", (0.0, 0.0, 0.045), X, 0.0, 1.571, rest[2]),
        Hinge(f"{name}J0", f"{name}J1", (0.0, 0.0, 0.025), X, 0.0, 1.571, rest[3]),
    ]


_LITTLE_AXIS = (0.570977, 0.0, 0.820966)
_THUMB_TURN = (0.0, math.sin(math.pi / 8.0), 0.0, math.cos(math.pi / 8.0))

HINGES = (
    Hinge("WRJ1", "", (0.0, 0.0, 0.0), Y, -0.489, 0.140, -0.165143),
    Hinge("WRJ0", "WRJ1", (0.0, 0.0, 0.034), X, -0.698, 0.489, -0.319733),
    *_finger("FF", "WRJ0", (0.033, 0.0, 0.095), (0.143405, 0.320282, 0.712605, 0.670528)),
    *_finger("MF", "WRJ0", (0.011, 0.0, 0.099), (0.000246, 0.315266, 0.765980, 0.732316)),
    *_finger("RF", "WRJ0", (-0.011, 0.0, 0.095), (0.000385, 0.367435, 0.711951, 0.669945)),
    Hinge("LFJ4", "WRJ0", (-0.017, 0.0, 0.044), _LITTLE_AXIS, 0.0, 0.785, 0.052544),
    *_finger("LF", "LFJ4", (-0.017, 0.0, 0.044), (-0.136155, 0.398720, 0.741557, 0.704096)),
    Hinge("THJ4", "WRJ0", (0.034, -0.009, 0.029), (0.0, 0.0, -1.0), -1.047, 1.047, 0.003674, _THUMB_TURN),
    Hinge("THJ3", "THJ4", (0.0, 0.0, 0.0), X, 0.0, 1.222, 0.550629),
    Hinge("THJ2", "THJ3", (0.0, 0.0, 0.038), X, -0.209, 0.209, -0.014515),
    Hinge("THJ1", "THJ2", (0.0, 0.0, 0.0), Y, -0.524, 0.524, -0.001523),
    Hinge("THJ0", "THJ1", (0.0, 0.0, 0.032), Y, -1.571, 0.0, -0.789488),
)
"""Parents come first; this is the order of joint coordinates and actions."""

LOWER = tuple(hinge.lower for hinge in HINGES)
UPPER = tuple(hinge.upper for hinge in HINGES)
REST = tuple(hinge.rest for hinge in HINGES)

_FINGER_CAPSULES = (("J2", 0.010, 0.0225), ("J1", 0.00805, 0.0125), ("J0", 0.00705, 0.012))
_THUMB_CAPSULES = (("J3", 0.013, 0.019), ("J1", 0.011, 0.016), ("J0", 0.00918, 0.013))
"""Joint, radius, half length [m] of the phalanges; each capsule begins at its joint."""


def shadow_hand(*, scale: float, position: Vec3, quaternion: Quaternion) -> Tool:
    """The hand, `scale` times its size, with the wrist joint at this pose.

    Capsules are shortened by half a radius at either end, as in the published task.
    """
    index = {hinge.name: i for i, hinge in enumerate(HINGES)}

    def scaled(values: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(scale * value for value in values)

    def place(values: Vec3) -> Vec3:
        x, y, z = values
        return scale * x, scale * y, scale * z

    def box(name: str, joint: str, half: Vec3, centre: Vec3) -> Shape:
        return Shape(
            name=name, kind="box", size=scaled(half), body=index[joint], position=place(centre), color=DARK
        )

    def capsule(joint: str, radius: float, half: float, centre: Vec3, turn: Quaternion = IDENTITY) -> Shape:
        size = scaled((radius, half - 0.5 * radius))
        return Shape(
            name=joint, kind="capsule", size=size, body=index[joint], position=place(centre), quaternion=turn,
            color=SKIN,
        )  # fmt: skip

    def phalanges(finger: str, capsules: tuple[tuple[str, float, float], ...]) -> list[Shape]:
        return [capsule(finger + joint, radius, half, (0.0, 0.0, half)) for joint, radius, half in capsules]

    wrist, *others = HINGES
    joints = [
        Joint(name=wrist.name, kind="revolute", axis=wrist.axis, position=position, quaternion=quaternion)
    ]
    for hinge in others:
        joints.append(
            Joint(
                name=hinge.name, kind="revolute", axis=hinge.axis, parent=index[hinge.parent],
                position=place(hinge.position), quaternion=hinge.quaternion,
            )
        )  # fmt: skip
    along_y = (math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5))
    return Tool(
        joints=tuple(joints),
        shapes=(
            capsule("WRJ1", 0.015, 0.010, (0.0, 0.0, 0.0), along_y),
            box("palm", "WRJ0", (0.032, 0.0111, 0.049), (0.011, 0.0, 0.038)),
            box("palm_side", "WRJ0", (0.011, 0.0111, 0.025), (-0.032, 0.0, 0.014)),
            *phalanges("FF", _FINGER_CAPSULES),
            *phalanges("MF", _FINGER_CAPSULES),
            *phalanges("RF", _FINGER_CAPSULES),
            *phalanges("LF", _FINGER_CAPSULES),
            box("metacarpal", "LFJ4", (0.0095, 0.0111, 0.025), (-0.0165, 0.0, 0.010)),
            *phalanges("TH", _THUMB_CAPSULES),
        ),
    )
