"""What there is to see of an articulated system: its shapes where the joints put them, and the ground."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rewarped_sim.engine.articulation.poses import link_poses
from rewarped_sim.engine.articulation.tree import Tree, compose
from rewarped_sim.scene import Scene, SceneShape

FRAME = "world"
VIEW_RADIUS_M = 1.5
"""A camera sees this far around what it looks at."""
_NO_COLOR = (0.0, 0.0, 0.0)


def articulated_scene(
    tree: Tree,
    joint_q: NDArray[np.floating],
    *,
    focus: tuple[float, float, float],
    view_radius: float = VIEW_RADIUS_M,
    extra: tuple[SceneShape, ...] = (),
) -> Scene:
    """One env at joint coordinates (num_coordinates,), seen around the point `focus` [m]."""
    links = link_poses(tree, joint_q)
    bodies = tree.model.bodies
    shapes = []
    for index, placed in enumerate(tree.geoms):
        position, quaternion = compose(links[placed.link], (placed.position, placed.quaternion))
        shapes.append(
            SceneShape(
                name=f"{bodies[placed.body].name}/{index}",
                kind=placed.geom.kind,
                size=placed.geom.size,
                position=position.astype(np.float32),
                quaternion=quaternion.astype(np.float32),
                color=placed.geom.color,
            )
        )
    if tree.model.ground is not None:
        shapes.append(
            SceneShape(
                name="floor",
                kind="plane",
                size=(),
                position=np.zeros(3, np.float32),
                quaternion=np.array((0.0, 0.0, 0.0, 1.0), np.float32),
            )
        )
    x, y, z = focus
    return Scene(
        frame=FRAME,
        particles=np.zeros((0, 3), np.float32),
        particle_color=_NO_COLOR,
        particle_radius=0.0,
        shapes=(*shapes, *extra),
        bounds_min=(x - view_radius, y - view_radius, z - view_radius),
        bounds_max=(x + view_radius, y + view_radius, z + view_radius),
    )
