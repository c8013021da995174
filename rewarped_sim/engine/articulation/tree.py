"""A model as flat tables: what the kernels read.

A body with several joints becomes a chain of links, one per joint, of which the last one has the body's mass; bodies
without joints are merged into the body that they are welded to. All links of a body share its frame at joint position
zero. Link 0 is the world. Ancestors of a degree of freedom form a chain, so the entry of the mass matrix for dof d and
its ancestor at depth k lies at `row[d] + k`: the matrix is stored without its structural zeros.

Spatial vectors of a tree are expressed in world axes about its *origin*, a point that moves with the root: however far
a robot has run, moments are not computed from large lever arms, and float32 keeps its digits. Joints that only carry
the root along, a free joint or slides that nothing precedes, move the origin.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from rewarped_sim.engine.articulation.model import (
    COORDINATES,
    DOFS,
    ArticulationModel,
    Body,
    ContactMaterial,
    Geom,
)
from rewarped_sim.engine.kinematics import rotation_matrix

WORLD, FREE, HINGE, SLIDE, BALL = range(5)
_DOFS_OF_KIND = {FREE: 6, HINGE: 1, SLIDE: 1, BALL: 3}
LINK_KINDS = {"free": FREE, "hinge": HINGE, "slide": SLIDE, "ball": BALL}
Pose = tuple[np.ndarray, np.ndarray]
"""Position (3,) and quaternion x y z w (4,)."""


@dataclass(frozen=True)
class MassProperties:
    """Of one body, in its own frame."""

    mass: float
    com: np.ndarray
    inertia: np.ndarray
    """About the centre of mass."""


@dataclass(frozen=True)
class PlacedGeom:
    """A shape in the frame of the link that carries it."""

    geom: Geom
    body: int
    link: int
    position: np.ndarray
    quaternion: np.ndarray


class Tree:
    """Tables of a model; per link, per degree of freedom, and per shape."""

    def __init__(self, model: ArticulationModel) -> None:
        self.model = model
        self.parent, self.kind, self.q_start, self.dof_start = [0], [WORLD], [0], [0]
        self.moves_origin = [False]
        self.offset_position, self.offset_quaternion = [np.zeros(3)], [_identity()]
        self.anchor, self.axis = [np.zeros(3)], [np.array([0.0, 0.0, 1.0])]
        self.body_link: list[int] = []
        """Link that carries each body."""
        self.body_pose: list[Pose] = []
        """Pose of each body in the frame of its link: the identity unless it is welded."""
        q_start = dof_start = 0
        by_name = {body.name: index for index, body in enumerate(model.bodies)}
        for body in model.bodies:
            parent = by_name.get(body.parent, -1)
            link = self.body_link[parent] if parent >= 0 else 0
            pose = self.body_pose[parent] if parent >= 0 else (np.zeros(3), _identity())
            pose = compose(pose, (np.array(body.position), _unit(body.quaternion)))
            for joint in body.joints:
                carried = self._carries_root(link)
                self.moves_origin.append(joint.kind == "free" or (joint.kind == "slide" and carried))
                self.parent.append(link)
                self.kind.append(LINK_KINDS[joint.kind])
                self.q_start.append(q_start)
                self.dof_start.append(dof_start)
                self.offset_position.append(pose[0])
                self.offset_quaternion.append(pose[1])
                self.anchor.append(np.array(joint.position))
                self.axis.append(np.array(joint.axis) / np.linalg.norm(joint.axis))
                q_start += COORDINATES[joint.kind]
                dof_start += DOFS[joint.kind]
                link, pose = len(self.parent) - 1, (np.zeros(3), _identity())
            self.body_link.append(link)
            self.body_pose.append(pose)
        self.num_links = len(self.parent)
        self._number_dofs()
        self._gather_mass()
        self.geoms = [
            PlacedGeom(geom, index, self.body_link[index], *compose(self.body_pose[index], _pose_of(geom)))
            for index, body in enumerate(model.bodies)
            for geom in body.geoms
        ]

    def ground_points(self) -> list[tuple[int, np.ndarray, float, ContactMaterial]]:
        """Small spheres by which shapes touch the ground: (link, centre in its frame, radius, mean material)."""
        ground = self.model.ground
        if ground is None:
            return []
        return [
            (
                placed.link,
                placed.position + rotation_matrix(placed.quaternion) @ point,
                radius,
                mean_material(own, ground),
            )
            for placed in self.geoms
            if (own := placed.geom.contact) is not None and placed.link > 0
            for point, radius in _feelers(placed.geom)
        ]

    def muscle_segments(self) -> list[tuple[int, float, int, np.ndarray, int, np.ndarray]]:
        """Stretches between different links: (muscle, its largest force, link, point, link, point)."""
        by_name = {body.name: index for index, body in enumerate(self.model.bodies)}
        segments = []
        for index, muscle in enumerate(self.model.muscles):
            placed = []
            for point in muscle.points:
                body = by_name[point.body]
                position, quaternion = self.body_pose[body]
                placed.append((self.body_link[body], position + rotation_matrix(quaternion) @ point.position))
            segments += [
                (index, muscle.max_force, *first, *second)
                for first, second in pairwise(placed)
                if first[0] != second[0]
            ]
        return segments

    def _carries_root(self, link: int) -> bool:
        """Whether everything up to a link only carries the root along, without mass of its own."""
        while link > 0:
            if not (self.kind[link] == SLIDE and self.moves_origin[link]) or link in self.body_link:
                return False
            link = self.parent[link]
        return True

    def _number_dofs(self) -> None:
        """Links, parents and depths of degrees of freedom, and where their rows of the mass matrix begin."""
        self.dof_link, self.dof_parent, self.depth, self.row = [], [], [], []
        last_dof = [-1] * self.num_links
        size = 0
        for link in range(1, self.num_links):
            above = last_dof[self.parent[link]]
            for _ in range(_DOFS_OF_KIND[self.kind[link]]):
                dof = len(self.dof_link)
                self.dof_link.append(link)
                self.dof_parent.append(above)
                self.depth.append(self.depth[above] + 1 if above >= 0 else 0)
                self.row.append(size)
                size += self.depth[-1] + 1
                above = dof
            last_dof[link] = above
        self.factor_size = size
        """Entries of the mass matrix that are kept."""

    def _gather_mass(self) -> None:
        """Mass, centre and inertia of links. Welded bodies share the mass factor of the link's first body."""
        self.link_body = [-1] * self.num_links
        parts: list[list[MassProperties]] = [[] for _ in range(self.num_links)]
        for index, (link, (position, quaternion)) in enumerate(
            zip(self.body_link, self.body_pose, strict=True)
        ):
            own, rotation = body_mass(self.model.bodies[index]), rotation_matrix(quaternion)
            parts[link].append(
                MassProperties(own.mass, position + rotation @ own.com, rotation @ own.inertia @ rotation.T)
            )
            if self.link_body[link] < 0:
                self.link_body[link] = index
        self.link_mass = [_sum(bodies) for bodies in parts]
        for link in range(1, self.num_links):
            if link in self.parent[link + 1 :] or self.link_mass[link].mass > 0.0:
                continue
            name = self.model.joints[link - 1].name
            raise ValueError(
                f"joint {name!r} moves no mass: give its body shapes with a density or an inertia"
            )


def body_mass(body: Body) -> MassProperties:
    """Mass properties of a body: those that it is given, or the sum over its shapes."""
    if body.inertia is not None:
        given = body.inertia
        return MassProperties(given.mass, np.array(given.position), np.array(given.matrix, float))
    return _sum([_geom_mass(geom) for geom in body.geoms])


def mean_material(first: ContactMaterial, second: ContactMaterial) -> ContactMaterial:
    """What counts between two materials."""
    return ContactMaterial(
        **{
            name: (getattr(first, name) + getattr(second, name)) / 2.0
            for name in ContactMaterial.__dataclass_fields__
        }
    )


def compose(outer: Pose, inner: Pose) -> Pose:
    """A pose given in the frame of another one, in the frame of that."""
    return outer[0] + rotation_matrix(outer[1]) @ inner[0], product(outer[1], inner[1])


def product(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Product of two quaternions: the rotation q, then p."""
    vector = p[3] * q[:3] + q[3] * p[:3] + np.cross(p[:3], q[:3])
    return np.append(vector, p[3] * q[3] - p[:3] @ q[:3])


def _sum(parts: list[MassProperties]) -> MassProperties:
    mass = sum(part.mass for part in parts)
    if mass == 0.0:
        return MassProperties(0.0, np.zeros(3), np.zeros((3, 3)))
    com = sum((part.mass * part.com for part in parts), np.zeros(3)) / mass
    inertia = np.zeros((3, 3))
    for part in parts:
        arm = part.com - com
        inertia += part.inertia + part.mass * (arm @ arm * np.eye(3) - np.outer(arm, arm))
    return MassProperties(mass, com, inertia)


def _geom_mass(geom: Geom) -> MassProperties:
    """Mass properties of a solid shape, in the frame of its body."""
    if geom.kind == "sphere":
        (r,) = geom.size
        mass = geom.density * 4.0 / 3.0 * np.pi * r**3
        moments = np.full(3, 0.4 * mass * r**2)
    elif geom.kind == "capsule":
        r, half = geom.size
        tube, ends = geom.density * np.pi * r**2 * 2.0 * half, geom.density * 4.0 / 3.0 * np.pi * r**3
        mass = tube + ends
        across = tube * (r**2 / 4.0 + half**2 / 3.0) + ends * (0.4 * r**2 + 0.75 * r * half + half**2)
        moments = np.array([across, across, tube * r**2 / 2.0 + ends * 0.4 * r**2])
    else:
        squares = np.square(geom.size)
        mass = geom.density * 8.0 * float(np.prod(geom.size))
        moments = mass / 3.0 * (squares.sum() - squares)
    rotation = rotation_matrix(geom.quaternion)
    return MassProperties(mass, np.array(geom.position), rotation @ np.diag(moments) @ rotation.T)


def _feelers(geom: Geom) -> list[tuple[np.ndarray, float]]:
    """Spheres whose lowest point is that of the shape: (centre in the shape's frame, radius)."""
    if geom.kind == "sphere":
        return [(np.zeros(3), geom.size[0])]
    if geom.kind == "capsule":
        return [(np.array([0.0, 0.0, side * geom.size[1]]), geom.size[0]) for side in (-1.0, 1.0)]
    corners = np.stack(np.meshgrid(*[(-1.0, 1.0)] * 3), axis=-1).reshape(-1, 3)
    return [(corner * geom.size, 0.0) for corner in corners]


def _pose_of(geom: Geom) -> Pose:
    return np.array(geom.position), _unit(geom.quaternion)


def _unit(quaternion: tuple[float, ...]) -> np.ndarray:
    q = np.array(quaternion, float)
    return q / np.linalg.norm(q)


def _identity() -> np.ndarray:
    return np.array([0.0, 0.0, 0.0, 1.0])
