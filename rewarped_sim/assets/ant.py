"""The ant: a torso on four legs of two links each, eight hinges in all.

x is forward, z up. `ant` has the gains of the DFlex ant, `ant_run` is that with those of the Rewarped ant: lighter,
undamped, on softer ground. Returns of one cannot be compared with those of the other.
"""

from dataclasses import replace

import numpy as np

from rewarped_sim.engine.articulation.model import (
    ArticulationModel,
    Body,
    ContactMaterial,
    Geom,
    Inertia,
    Joint,
    all_body_pairs,
    capsule_between,
)
from rewarped_sim.engine.articulation.tree import body_mass
from rewarped_sim.engine.kinematics import Vec3

JOINT_NAMES = ("hip_1", "ankle_1", "hip_2", "ankle_2", "hip_3", "ankle_3", "hip_4", "ankle_4")
"""The hinges in the order of coordinates and actions, leg by leg: front left, back left, back right, front right."""
START_HEIGHT_M = 0.75
START_JOINTS = (0.0, 1.0, 0.0, -1.0, 0.0, -1.0, 0.0, 1.0)
"""Angles of `JOINT_NAMES` at which an episode starts, feet spread [rad]."""

DFLEX_CONTACT = ContactMaterial(stiffness=4.0e4, damping=1.0e4, friction_stiffness=3.0e3, friction=0.75)
REWARPED_CONTACT = ContactMaterial(stiffness=4.0e3, damping=1.0e3, friction_stiffness=3.0e2, friction=0.75)
REWARPED_GROUND = ContactMaterial(stiffness=1.0e5, damping=1.0e3, friction_stiffness=1.0e3, friction=0.5)
"""That simulator's defaults, which its ants stand on: a published resting height of 0.299 m needs this stiffness."""

_LEGS = ((1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0))
"""Signs of x and y per leg."""
_HIP_RANGE = (-40.0, 40.0)
_ANKLE_RANGES = ((30.0, 100.0), (-100.0, -30.0), (-100.0, -30.0), (30.0, 100.0))
"""[deg]. All ankles turn about (-1, 1, 0) or (1, 1, 0), so that the legs' signs differ."""
_TORSO_COLOR, _LIMB_COLOR, _FOOT_COLOR = (0.55, 0.30, 0.20), (0.80, 0.50, 0.30), (0.90, 0.66, 0.45)


def ant(
    *,
    torso_density: float = 1000.0,
    limb_density: float = 1000.0,
    damping: float = 11.0,
    armature: float = 0.05,
    link_inertia_extra: float = 0.0,
    limit_stiffness: float = 1.0e3,
    limit_damping: float = 0.0,
    contact: ContactMaterial = DFLEX_CONTACT,
    ground: ContactMaterial | None = None,
    contact_law: str = "dflex",
    self_collision: bool = False,
    control_dt_s: float = 1.0 / 60.0,
    num_substeps: int = 16,
) -> ArticulationModel:
    """The ant above the ground, with the DFlex gains unless told otherwise.

    Args:
        torso_density: of the sphere alone; the stubs that carry the legs are limbs [kg/m^3].
        limb_density: [kg/m^3]
        damping: of the eight hinges: their 1 and the limits' 10, which DFlex applies always [N m s/rad].
        armature: of the eight hinges [kg m^2].
        link_inertia_extra: added about every axis of the eight leg links [kg m^2].
        limit_stiffness: [N m/rad]
        limit_damping: while a limit is violated [N m s/rad].
        contact: of all shapes.
        ground: None takes the same as the shapes'.
        contact_law: one of `CONTACT_LAWS`.
        self_collision: whether bodies touch each other, parents and their children excepted.
        control_dt_s: duration of a control step [s].
        num_substeps: in a control step.
    """

    def limb(end: Vec3, color: Vec3) -> Geom:
        return capsule_between((0.0, 0.0, 0.0), end, 0.08, density=limb_density, contact=contact, color=color)

    def hinge(name: str, axis: Vec3, degrees: tuple[float, float]) -> Joint:
        lower, upper = np.radians(degrees)
        return Joint(
            name=name, kind="hinge", axis=axis, lower=float(lower), upper=float(upper), armature=armature,
            damping=damping, limit_stiffness=limit_stiffness, limit_damping=limit_damping,
        )  # fmt: skip

    stubs = [limb((0.2 * x, 0.2 * y, 0.0), _TORSO_COLOR) for x, y in _LEGS]
    torso = Geom(kind="sphere", size=(0.25,), density=torso_density, contact=contact, color=_TORSO_COLOR)
    bodies = [
        Body(
            name="torso",
            position=(0.0, 0.0, START_HEIGHT_M),
            joints=(Joint(name="root", kind="free"),),
            geoms=(torso, *stubs),
        )
    ]
    for number, (x, y) in enumerate(_LEGS, start=1):
        knee = (0.2 * x, 0.2 * y, 0.0)
        ankle_axis = (-1.0, 1.0, 0.0) if x * y > 0.0 else (1.0, 1.0, 0.0)
        leg = Body(
            name=f"leg_{number}",
            parent="torso",
            position=knee,
            joints=(hinge(f"hip_{number}", (0.0, 0.0, 1.0), _HIP_RANGE),),
            geoms=(limb(knee, _LIMB_COLOR),),
        )
        foot = Body(
            name=f"foot_{number}",
            parent=leg.name,
            position=knee,
            joints=(hinge(f"ankle_{number}", ankle_axis, _ANKLE_RANGES[number - 1]),),
            geoms=(limb((0.4 * x, 0.4 * y, 0.0), _FOOT_COLOR),),
        )
        bodies += [_with_extra_inertia(body, link_inertia_extra) for body in (leg, foot)]
    return ArticulationModel(
        bodies=tuple(bodies),
        control_dt_s=control_dt_s,
        num_substeps=num_substeps,
        ground=ground or contact,
        contact_law=contact_law,
        contact_pairs=all_body_pairs(bodies) if self_collision else (),
    )


def ant_run() -> ArticulationModel:
    """The ant of Rewarped's AntRun, with everything that its published returns were measured with.

    The torso is an almost empty shell, joints have no damping, and what was meant as armature counts twice: once on the
    joints and once as inertia of the links. The ground keeps the simulator's defaults, so that feet meet the mean of
    two very different materials.
    """
    return ant(
        torso_density=5.0,
        damping=0.0,
        armature=0.005,
        link_inertia_extra=0.005,
        limit_damping=10.0,
        contact=REWARPED_CONTACT,
        ground=REWARPED_GROUND,
        contact_law="huber",
        self_collision=True,
    )


def _with_extra_inertia(body: Body, extra: float) -> Body:
    """The body with `extra` [kg m^2] added to its moment of inertia about every axis."""
    if extra == 0.0:
        return body
    own = body_mass(body)
    matrix: tuple[Vec3, Vec3, Vec3] = tuple(map(tuple, (own.inertia + extra * np.eye(3)).tolist()))  # type: ignore[assignment]
    return replace(body, inertia=Inertia(mass=own.mass, position=tuple(own.com.tolist()), matrix=matrix))
