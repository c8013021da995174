"""What there is to see of an articulated system: shapes and muscles where the joints put them, and the ground."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rewarped_sim.engine.articulation.poses import body_poses
from rewarped_sim.engine.articulation.tree import Pose, Tree, compose
from rewarped_sim.engine.kinematics import rotation_matrix
from rewarped_sim.scene import Scene, SceneLines, SceneLink, SceneShape

FRAME = "world"
VIEW_RADIUS_M = 1.5
"""A camera sees this far around what it looks at."""
MUSCLE_RADIUS_M = 0.006
SLACK_COLOR, TIGHT_COLOR = np.array((0.55, 0.45, 0.50)), np.array((0.90, 0.10, 0.08))
"""Of muscles at activation 0 and 1."""
_NO_COLOR = (0.0, 0.0, 0.0)


def articulated_scene(
    tree: Tree,
    joint_q: NDArray[np.floating],
    *,
    focus: tuple[float, float, float],
    follow: bool = False,
    view_radius: float = VIEW_RADIUS_M,
    activation: NDArray[np.floating] | None = None,
    extra: tuple[SceneShape, ...] = (),
) -> Scene:
    """One env at joint coordinates (num_coordinates,), seen around the point `focus` [m], which a camera may follow.

    activation: (muscles,) in 0..1, colours the muscles; without it they are shown slack. Bodies of a model with muscles
    are see-through.
    """
    bodies = tree.model.bodies
    poses = dict(zip((body.name for body in bodies), body_poses(tree, joint_q), strict=True))
    shapes = []
    for body in bodies:
        for index, geom in enumerate(body.geoms):
            own = np.array(geom.position), np.array(geom.quaternion) / np.linalg.norm(geom.quaternion)
            position, quaternion = compose(poses[body.name], own)
            shapes.append(
                SceneShape(
                    name=f"{body.name}/{index}",
                    kind=geom.kind,
                    size=geom.size,
                    position=position.astype(np.float32),
                    quaternion=quaternion.astype(np.float32),
                    color=geom.color,
                    see_through=bool(tree.model.muscles),
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
        lines=(_muscles(tree, poses, activation),) if tree.model.muscles else (),
        links=_links(tree, poses),
        focus=focus if follow else None,
    )


def _links(tree: Tree, poses: dict[str, Pose]) -> tuple[SceneLink, ...]:
    """Frames of all bodies, each in its parent's."""
    links = []
    for body in tree.model.bodies:
        pose = poses[body.name]
        if body.parent:
            pose = compose(_inverse(poses[body.parent]), pose)
        links.append(
            SceneLink(name=body.name, parent=body.parent or FRAME, position=pose[0], quaternion=pose[1])
        )
    return tuple(links)


def _muscles(tree: Tree, poses: dict[str, Pose], activation: NDArray[np.floating] | None) -> SceneLines:
    """All stretches of all muscles, coloured by activation (muscles,)."""
    muscles = tree.model.muscles
    frames = {name: (position, rotation_matrix(quaternion)) for name, (position, quaternion) in poses.items()}
    starts, ends, owners = [], [], []
    for index, muscle in enumerate(muscles):
        path = [frames[p.body][0] + frames[p.body][1] @ p.position for p in muscle.points]
        starts += path[:-1]
        ends += path[1:]
        owners += [index] * (len(path) - 1)
    tension = np.zeros(len(muscles)) if activation is None else np.asarray(activation)
    colors = SLACK_COLOR + tension[owners, None] * (TIGHT_COLOR - SLACK_COLOR)
    return SceneLines(
        name="muscles",
        starts=np.array(starts, np.float32),
        ends=np.array(ends, np.float32),
        colors=colors.astype(np.float32),
        radius=MUSCLE_RADIUS_M,
    )


def _inverse(pose: Pose) -> Pose:
    conjugate = pose[1] * np.array((-1.0, -1.0, -1.0, 1.0))
    return -rotation_matrix(conjugate) @ pose[0], conjugate
