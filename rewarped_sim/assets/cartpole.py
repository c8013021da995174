"""A cart on a rail with a pole that turns about y; the pole is upright at angle 0.

Two boxes; gravity pulls along -z, the rail runs along x, 2.5 m up.
"""

import math

from rewarped_sim.engine.articulation.model import ArticulationModel, Body, Geom, Joint

JOINT_NAMES = ("cart", "pole")
RAIL_HEIGHT_M = 2.5
START_JOINTS = (0.0, -math.pi)
"""Position of the cart [m] and angle of the pole [rad] at which an episode starts: hanging."""


def cartpole(
    *,
    density: float = 1000.0,
    damping: float = 1.0,
    limit_stiffness: float = 100.0,
    limit_damping: float = 0.0,
    control_dt_s: float = 1.0 / 60.0,
    num_substeps: int = 4,
) -> ArticulationModel:
    """The cart-pole, with the DFlex gains unless told otherwise; it touches nothing.

    Args:
        density: of both boxes; at 1000 the cart weighs 50 kg and the pole 2.5 kg [kg/m^3].
        damping: of both joints. It is the limits' damping, which DFlex applies always; Rewarped has none
            [N s/m and N m s/rad].
        limit_stiffness: of the ends of the rail, 4 m to either side [N/m].
        limit_damping: while the cart is beyond them; Rewarped has 1 [N s/m].
        control_dt_s: duration of a control step [s].
        num_substeps: in a control step.
    """
    rail = Joint(
        name="cart", kind="slide", axis=(1.0, 0.0, 0.0), lower=-4.0, upper=4.0, damping=damping,
        limit_stiffness=limit_stiffness, limit_damping=limit_damping,
    )  # fmt: skip
    hinge = Joint(name="pole", kind="hinge", axis=(0.0, 1.0, 0.0), damping=damping)
    cart_box = Geom(
        kind="box", size=(0.25, 0.25, 0.1), density=density, contact=None, color=(0.25, 0.35, 0.55)
    )
    pole_box = Geom(
        kind="box", size=(0.025, 0.025, 0.5), position=(0.0, 0.0, 0.5), density=density, contact=None,
        color=(0.85, 0.55, 0.25),
    )  # fmt: skip
    return ArticulationModel(
        bodies=(
            Body(name="cart", position=(0.0, 0.0, RAIL_HEIGHT_M), joints=(rail,), geoms=(cart_box,)),
            Body(name="pole", parent="cart", joints=(hinge,), geoms=(pole_box,)),
        ),
        control_dt_s=control_dt_s,
        num_substeps=num_substeps,
    )
