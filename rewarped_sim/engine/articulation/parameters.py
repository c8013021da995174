"""Constants of an articulated system that may differ between worlds, in one vector per world."""

from dataclasses import dataclass

import numpy as np

from rewarped_sim.engine.articulation.model import DOFS, ArticulationModel

CONTACT_FIELDS = ("stiffness", "damping", "friction_stiffness", "friction")


@dataclass(frozen=True)
class ParameterLayout:
    """Where each kind of parameter lies in a world's vector."""

    gravity: slice
    """Acceleration of free fall, x y z [m/s^2]."""
    contact: slice
    """Factors on `CONTACT_FIELDS` of every contact."""
    mass: slice
    """Factor on mass and inertia of each body, in the model's order."""
    damping: slice
    """Of each degree of freedom [N m s/rad or N s/m]."""
    armature: slice
    """Of each degree of freedom [kg m^2 or kg]."""
    drive_stiffness: slice
    """Of each degree of freedom's position drive [N m/rad or N/m]."""
    drive_damping: slice
    """Of each degree of freedom's position drive [N m s/rad or N s/m]."""
    size: int
    """Length of the vector."""

    @staticmethod
    def of(model: ArticulationModel) -> "ParameterLayout":
        """The layout for a model."""
        counts = [3, len(CONTACT_FIELDS), len(model.bodies), *[model.num_dofs] * 4]
        ends = np.cumsum(counts)
        return ParameterLayout(
            *(slice(int(end) - count, int(end)) for end, count in zip(ends, counts, strict=True)),
            size=int(ends[-1]),
        )


def default_parameters(model: ArticulationModel) -> np.ndarray:
    """The model's own constants, (ParameterLayout.of(model).size,)."""
    layout = ParameterLayout.of(model)
    values = np.ones(layout.size)
    values[layout.gravity] = model.gravity
    for name in ("damping", "armature", "drive_stiffness", "drive_damping"):
        values[getattr(layout, name)] = [
            getattr(joint, name) for joint in model.joints for _ in range(DOFS[joint.kind])
        ]
    return values
