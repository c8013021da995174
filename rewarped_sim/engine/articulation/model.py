"""What an articulated system is made of: bodies in trees, joints, shapes, muscles, and what touches what.

Poses and joints follow the conventions of MJCF: a body's frame is given in its parent's frame at joint position zero,
its joints lie in the body's own frame and act one after the other, its shapes are posed in it. z is up, units are SI,
quaternions x y z w.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from rewarped_sim.engine.kinematics import IDENTITY, Quaternion, Vec3

JOINT_KINDS = ("free", "hinge", "slide", "ball")
COORDINATES = {"free": 7, "hinge": 1, "slide": 1, "ball": 4}
"""Position coordinates per kind. Free: x y z of the body's origin, then its quaternion. Ball: a quaternion."""
DOFS = {"free": 6, "hinge": 1, "slide": 1, "ball": 3}
"""Velocity coordinates per kind. Free: velocity of the body's origin, then angular velocity, both in world axes.
Ball: angular velocity relative to the parent, in the axes that the body has at joint position zero."""
GEOM_SIZES = {"sphere": 1, "capsule": 2, "box": 3}
CONTACT_LAWS = ("regularized", "dflex", "huber")
_WORLD = ""


@dataclass(frozen=True, kw_only=True)
class Joint:
    """A joint of a body relative to its parent."""

    name: str
    kind: str
    """One of `JOINT_KINDS`."""
    axis: Vec3 = (0.0, 0.0, 1.0)
    """Axis of a hinge or slide in the body's frame; any length but zero."""
    position: Vec3 = (0.0, 0.0, 0.0)
    """Anchor of a hinge or ball in the body's frame [m]."""
    lower: float = -math.inf
    """Lower limit of a hinge or slide [rad or m]."""
    upper: float = math.inf
    """Upper limit of a hinge or slide [rad or m]."""
    limit_stiffness: float = 0.0
    """Of the spring that a violated limit is [N m/rad or N/m]."""
    limit_damping: float = 0.0
    """Acts while the limit is violated [N m s/rad or N s/m]."""
    stiffness: float = 0.0
    """Of a spring towards `rest` [N m/rad or N/m]. In a ball joint it pulls the quaternion to (0, 0, 0, 1), with half
    of the torque per angle, and explicitly: keep dt^2 stiffness well below the inertia. Start there with w > 0."""
    rest: float = 0.0
    """Position at which the spring of a hinge or slide is at rest [rad or m]."""
    damping: float = 0.0
    """Viscous, per degree of freedom [N m s/rad or N s/m]."""
    armature: float = 0.0
    """Inertia of the drive on the joint's side, added to every degree of freedom [kg m^2 or kg]."""
    drive_stiffness: float = 0.0
    """Of a position drive of a hinge or slide towards `joint_target` [N m/rad or N/m]; 0: there is none."""
    drive_damping: float = 0.0
    """Of that drive [N m s/rad or N s/m]."""

    def __post_init__(self) -> None:
        where = f"joint {self.name!r}"
        _check_finite(where, axis=self.axis, position=self.position, rest=self.rest)
        if self.kind not in JOINT_KINDS:
            raise ValueError(f"{where}: kind must be one of {list(JOINT_KINDS)}, got {self.kind!r}")
        if not math.hypot(*self.axis) > 0.0:
            raise ValueError(f"{where}: axis must not be zero, got {self.axis}")
        if not self.lower < self.upper:
            raise ValueError(f"{where}: lower limit {self.lower} is not below upper limit {self.upper}")
        one_axis = self.kind in ("hinge", "slide")
        if not one_axis and (math.isfinite(self.lower) or math.isfinite(self.upper)):
            raise ValueError(f"{where}: only hinges and slides have limits, this is a {self.kind}")
        if not one_axis and (self.drive_stiffness or self.drive_damping):
            raise ValueError(f"{where}: only hinges and slides have drives, this is a {self.kind}")
        if self.kind == "free" and self.stiffness:
            raise ValueError(f"{where}: a free joint has no spring")
        for name in (
            "limit_stiffness", "limit_damping", "stiffness", "damping", "armature", "drive_stiffness",
            "drive_damping",
        ):  # fmt: skip
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{where}: {name} must be >= 0 and finite, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class ContactMaterial:
    """Gains of the penalty force between two shapes; of two shapes' gains the mean counts."""

    stiffness: float = 1.0e4
    """Normal force per depth [N/m]."""
    damping: float = 1.0e3
    """Against approach: [N s/m] per depth [m] in the laws `regularized` and `dflex`, [N s/m] in `huber`."""
    friction_stiffness: float = 1.0e3
    """Friction per slip speed while it sticks [N s/m]."""
    friction: float = 0.5
    """Coulomb coefficient."""

    def __post_init__(self) -> None:
        for name in ("stiffness", "damping", "friction_stiffness", "friction"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"contact material: {name} must be >= 0 and finite, got {getattr(self, name)}"
                )


@dataclass(frozen=True, kw_only=True)
class Geom:
    """A shape of a body: it has mass, it may touch, it is seen."""

    kind: str
    """`sphere`, `capsule` (along its z) or `box`."""
    size: tuple[float, ...]
    """sphere (radius,), capsule (radius, half_length of its core), box (half extents x, y, z) [m]."""
    position: Vec3 = (0.0, 0.0, 0.0)
    """Centre in the body's frame [m]."""
    quaternion: Quaternion = IDENTITY
    density: float = 1000.0
    """[kg/m^3]; 0 for a shape without mass. Not used where the body is given an `Inertia`."""
    contact: ContactMaterial | None = field(default_factory=ContactMaterial)
    """None: the shape touches nothing."""
    color: tuple[float, float, float] = (0.7, 0.7, 0.75)
    """Red, green, blue in 0..1."""

    def __post_init__(self) -> None:
        if self.kind not in GEOM_SIZES:
            raise ValueError(f"geom: kind must be one of {list(GEOM_SIZES)}, got {self.kind!r}")
        sizes = GEOM_SIZES[self.kind]
        if len(self.size) != sizes or not all(0.0 < size < math.inf for size in self.size):
            raise ValueError(f"geom: a {self.kind} has {sizes} finite sizes > 0, got {self.size}")
        if not 0.0 <= self.density < math.inf:
            raise ValueError(f"geom: density must be >= 0 and finite, got {self.density}")
        _check_pose("geom", self.position, self.quaternion)


def capsule_between(start: Vec3, end: Vec3, radius: float, **others: object) -> Geom:
    """A capsule whose core runs from `start` to `end` in the body's frame; others: further fields of `Geom`."""
    a, b = np.asarray(start, float), np.asarray(end, float)
    length = float(np.linalg.norm(b - a))
    if not length > 0.0:
        raise ValueError(f"capsule: start and end must differ, got {start} twice")
    x, y, z = (b - a) / length
    # The rotation from z to the axis, about their common normal; half a turn about x where they oppose each other.
    quaternion = (1.0, 0.0, 0.0, 0.0) if z < -1.0 + 1e-12 else _normalized((-y, x, 0.0, 1.0 + z))
    middle = tuple(float(value) for value in (a + b) / 2.0)
    return Geom(
        kind="capsule",
        size=(radius, length / 2.0),
        position=middle,  # type: ignore[arg-type]
        quaternion=quaternion,
        **others,  # type: ignore[arg-type]
    )


@dataclass(frozen=True, kw_only=True)
class Inertia:
    """Mass properties that are given instead of computed from shapes."""

    mass: float
    """[kg]"""
    position: Vec3 = (0.0, 0.0, 0.0)
    """Centre of mass in the body's frame [m]."""
    matrix: tuple[Vec3, Vec3, Vec3]
    """Inertia about the centre of mass, in the axes of the body's frame [kg m^2]; symmetric."""

    def __post_init__(self) -> None:
        if not 0.0 < self.mass < math.inf:
            raise ValueError(f"inertia: mass must be > 0 and finite, got {self.mass}")
        _check_finite("inertia", position=self.position)
        matrix = np.asarray(self.matrix, float)
        if matrix.shape != (3, 3) or not np.allclose(matrix, matrix.T):
            raise ValueError(f"inertia: matrix must be symmetric 3x3, got {self.matrix}")
        if not np.linalg.eigvalsh(matrix).min() > 0.0:
            raise ValueError(f"inertia: matrix must be positive definite, got {self.matrix}")


@dataclass(frozen=True, kw_only=True)
class Body:
    """A rigid body. Without joints it is welded to its parent."""

    name: str
    parent: str = _WORLD
    """Name of an earlier body; empty for the world."""
    position: Vec3 = (0.0, 0.0, 0.0)
    """Origin of the body's frame in its parent's frame, at joint position zero [m]."""
    quaternion: Quaternion = IDENTITY
    joints: tuple[Joint, ...] = ()
    """Act in this order: the first one moves all that follow. A free joint is alone, and its parent is the world; its
    coordinates replace `position` and `quaternion`, which say where the body starts."""
    geoms: tuple[Geom, ...] = ()
    inertia: Inertia | None = None
    """None: from the shapes' densities."""

    def __post_init__(self) -> None:
        if self.name == _WORLD:
            raise ValueError("body names must not be empty: that is the world")
        _check_pose(f"body {self.name!r}", self.position, self.quaternion)
        free = [joint for joint in self.joints if joint.kind == "free"]
        if free and (len(self.joints) > 1 or self.parent != _WORLD):
            raise ValueError(
                f"body {self.name!r}: a free joint is the only one, of a body whose parent is the world"
            )


@dataclass(frozen=True, kw_only=True)
class MusclePoint:
    """A point that a muscle runs through."""

    body: str
    position: Vec3
    """In the body's frame [m]."""


@dataclass(frozen=True, kw_only=True)
class Muscle:
    """A string through points on bodies; pulls its stretches between different bodies together."""

    name: str
    max_force: float
    """Tension at activation 1 [N]."""
    points: tuple[MusclePoint, ...]

    def __post_init__(self) -> None:
        if len(self.points) < 2:
            raise ValueError(f"muscle {self.name!r}: needs two points at least, got {len(self.points)}")
        if not self.max_force >= 0.0:
            raise ValueError(f"muscle {self.name!r}: max_force must be >= 0, got {self.max_force}")


@dataclass(frozen=True, kw_only=True)
class ArticulationModel:
    """One environment: trees of bodies, muscles, ground and contact, and how time is divided."""

    bodies: tuple[Body, ...]
    """Parents before children."""
    control_dt_s: float
    """Duration of a control step [s]."""
    num_substeps: int
    """Steps of semi-implicit Euler in a control step."""
    gravity: Vec3 = (0.0, 0.0, -9.81)
    """[m/s^2]"""
    muscles: tuple[Muscle, ...] = ()
    ground: ContactMaterial | None = None
    """Material of the plane z = 0; None: there is no ground."""
    contact_law: str = "regularized"
    """One of `CONTACT_LAWS`."""
    contact_pairs: tuple[tuple[str, str], ...] = ()
    """Names of bodies whose shapes touch each other; see `all_body_pairs`."""

    def __post_init__(self) -> None:
        names = [body.name for body in self.bodies]
        if not names:
            raise ValueError("bodies: a model needs at least one")
        for kind, found in (
            ("body", names),
            ("joint", self.joint_names),
            ("muscle", [m.name for m in self.muscles]),
        ):
            repeated = {name for name in found if found.count(name) > 1}
            if repeated:
                raise ValueError(f"{kind} names must differ, got {sorted(repeated)[0]!r} twice")
        for index, body in enumerate(self.bodies):
            if body.parent != _WORLD and body.parent not in names[:index]:
                raise ValueError(
                    f"body {body.name!r}: parent {body.parent!r} is not among the bodies before it: {names[:index]}"
                )
        for first, second in self.contact_pairs:
            for name in (first, second):
                if name not in names:
                    raise ValueError(f"contact_pairs: no body {name!r}; known: {names}")
            if first == second:
                raise ValueError(f"contact_pairs: body {first!r} cannot touch itself")
        pairs = [frozenset(pair) for pair in self.contact_pairs]
        if len(set(pairs)) < len(pairs):
            first, second = next(pair for pair in self.contact_pairs if pairs.count(frozenset(pair)) > 1)
            raise ValueError(
                f"contact_pairs: {first!r} and {second!r} twice, which would double their forces"
            )
        for muscle in self.muscles:
            for point in muscle.points:
                if point.body not in names:
                    raise ValueError(f"muscle {muscle.name!r}: no body {point.body!r}; known: {names}")
        _check_finite("model", gravity=self.gravity, control_dt_s=self.control_dt_s)
        if not self.control_dt_s > 0.0:
            raise ValueError(f"control_dt_s must be > 0, got {self.control_dt_s}")
        if self.num_substeps < 1:
            raise ValueError(f"num_substeps must be >= 1, got {self.num_substeps}")
        if self.contact_law not in CONTACT_LAWS:
            raise ValueError(f"contact_law must be one of {list(CONTACT_LAWS)}, got {self.contact_law!r}")

    @property
    def joints(self) -> tuple[Joint, ...]:
        """All joints, body by body: the order of coordinates and degrees of freedom."""
        return tuple(joint for body in self.bodies for joint in body.joints)

    @property
    def joint_names(self) -> list[str]:
        """Names of `joints`."""
        return [joint.name for joint in self.joints]

    @property
    def num_coordinates(self) -> int:
        """Length of joint_q."""
        return sum(COORDINATES[joint.kind] for joint in self.joints)

    @property
    def num_dofs(self) -> int:
        """Length of joint_qd and of joint_f."""
        return sum(DOFS[joint.kind] for joint in self.joints)

    @property
    def dt_s(self) -> float:
        """Duration of a substep [s]."""
        return self.control_dt_s / self.num_substeps

    def coordinate(self, joint: str) -> int:
        """Index of a joint's first entry in joint_q. Raises ValueError for an unknown name."""
        return self._start(joint, COORDINATES)

    def dof(self, joint: str) -> int:
        """Index of a joint's first entry in joint_qd. Raises ValueError for an unknown name."""
        return self._start(joint, DOFS)

    def start_q(self) -> np.ndarray:
        """Joint coordinates of the pose in which the model is written: (num_coordinates,)."""
        q: list[float] = []
        for body in self.bodies:
            for joint in body.joints:
                if joint.kind == "free":
                    q += [*body.position, *_normalized(body.quaternion)]
                else:
                    q += IDENTITY if joint.kind == "ball" else [0.0]
        return np.array(q)

    def _start(self, name: str, sizes: dict[str, int]) -> int:
        at = 0
        for joint in self.joints:
            if joint.name == name:
                return at
            at += sizes[joint.kind]
        raise ValueError(f"no joint {name!r}; known: {self.joint_names}")


def all_body_pairs(bodies: Iterable[Body]) -> tuple[tuple[str, str], ...]:
    """Every two bodies that have shapes and are not parent and child."""
    shaped = [body for body in bodies if body.geoms]
    return tuple(
        (first.name, second.name)
        for first, second in combinations(shaped, 2)
        if first.name != second.parent and second.name != first.parent
    )


def _normalized(q: tuple[float, float, float, float]) -> Quaternion:
    length = math.hypot(*q)
    return tuple(float(value) / length for value in q)  # type: ignore[return-value]


def _check_finite(where: str, **values: float | Vec3 | Quaternion) -> None:
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise ValueError(f"{where}: {name} must be finite, got {value}")


def _check_pose(where: str, position: Vec3, quaternion: Quaternion) -> None:
    _check_finite(where, position=position, quaternion=quaternion)
    if not math.hypot(*quaternion) > 0.0:
        raise ValueError(f"{where}: quaternion must not be zero, got {quaternion}")
