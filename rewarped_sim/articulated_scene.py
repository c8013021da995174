"""What there is to see of an articulated system: its shapes where the joints put them, and the ground."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rewarped_sim.engine.articulation.poses import body_poses, link_poses
from rewarped_sim.engine.articulation.tree import Pose, Tree, compose
from rewarped_sim.engine.kinematics import rotation_matrix
from rewarped_sim.scene import Scene, SceneLink, SceneShape

FRAME = "world"
VIEW_RADIUS_M = 1.5
"""A camera sees this far around what it looks at."""
_NO_COLOR = (0.0, 0.0, 0.0)


def articulated_scene(
    tree: Tree,
    joint_q: NDArray[np.floating],
    *,
    focus: tuple[float, float, float],
    follow: bool = False,
    view_radius: float = VIEW_RADIUS_M,
    extra: tuple[SceneShape, ...] = (),
) -> Scene:
    """One env at joint coordinates (num_coordinates,), seen around the point `focus` [m], which a camera may follow."""
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
        links=_links(tree, joint_q),
        focus=focus if follow else None,
    )


def _links(tree: Tree, joint_q: NDArray[np.floating]) -> tuple[SceneLink, ...]:
    """Frames of all bodies, each in its parent's."""
    poses = dict(zip((body.name for body in tree.model.bodies), body_poses(tree, joint_q), strict=True))
    links = []
    for body in tree.model.bodies:
        pose = poses[body.name]
        if body.parent:
            pose = compose(_inverse(poses[body.parent]), pose)
        links.append(
            SceneLink(name=body.name, parent=body.parent or FRAME, position=pose[0], quaternion=pose[1])
        )
    return tuple(links)


def _inverse(pose: Pose) -> Pose:
    conjugate = pose[1] * np.array((-1.0, -1.0, -1.0, 1.0))
    return -rotation_matrix(conjugate) @ pose[0], conjugate
