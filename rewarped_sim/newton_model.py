"""What newton's `ModelBuilder` holds after it has read a robot's file, as tables of the articulation engine."""

import math
from collections.abc import Iterable
from dataclasses import replace
from itertools import count, product
from typing import TYPE_CHECKING, Any

import numpy as np

from rewarped_sim.engine.articulation.model import (
    GEOM_SIZES,
    Body,
    ContactMaterial,
    Geom,
    Inertia,
    Joint,
    all_body_pairs,
)
from rewarped_sim.engine.articulation.tree import compose
from rewarped_sim.engine.kinematics import Quaternion, Vec3, rotation_matrix
from rewarped_sim.robot_file import RobotFile, UnsupportedModelError

if TYPE_CHECKING:
    import newton

STATIC = "static"
"""What the body with the world's own shapes is called, unless another one is."""
_UNLIMITED = 1.0e9
"""Newton's infinity is 1e10."""
_JOINT_KINDS = {"FREE": "free", "FIXED": "fixed", "BALL": "ball", "REVOLUTE": "", "PRISMATIC": "", "D6": ""}
"""Newton's joint types in our words; those without a word are slides followed by hinges."""


class NewtonModel:
    """The bodies, ground and contact pairs of what newton has read from a file."""

    def __init__(
        self,
        file: RobotFile,
        builder: "newton.ModelBuilder",
        material: ContactMaterial,
        limit_stiffness: float,
        limit_damping: float,
    ) -> None:
        self._file = file
        self._builder: Any = builder
        self._material = material
        self._limit_stiffness = limit_stiffness
        self._limit_damping = limit_damping
        self._joint_of = {child: joint for joint, child in enumerate(builder.joint_child)}
        self._names = [self._body_name(body) for body in range(builder.body_count)]
        self._static = next(name for name in (STATIC + "_" * n for n in count()) if name not in self._names)
        """Name of the body with the shapes that a file puts into the world itself."""
        self._excluded = {frozenset(pair) for pair in builder.shape_collision_filter_pairs}
        # Newton does not know the world by its name.
        self._apart = [
            {pair.get("body1"), pair.get("body2")} for pair in file.root.findall("contact/exclude")
        ]
        self._contact = all(flag.get("contact") != "disable" for flag in file.root.findall("option/flag"))
        self._touching: dict[str, list[int]] = {}
        """Indices of shapes that may touch, per body."""
        self.ground: ContactMaterial | None = None
        """Material of the plane z = 0, if the file has it."""
        self._geoms = self._read_shapes()
        self.bodies = self._read_bodies()
        """Parents first; before them, if there are any, the shapes of the world itself."""

    def contact_pairs(self, self_collision: bool) -> tuple[tuple[str, str], ...]:
        """Bodies with shapes that the file lets touch each other; without `self_collision`, only with what stands."""
        # Bodies without joints are one with what they are fixed to; above each of these wholes is another one.
        whole: dict[str, str] = {"": ""}
        above: dict[str, str] = {}
        root: dict[str, str] = {}
        for body in self.bodies:
            whole[body.name] = body.name if body.joints else whole[body.parent]
            root[body.name] = root[body.parent] if body.parent else body.name
            if body.joints:
                above[body.name] = whole[body.parent]
        moving = {root[name] for name in above}

        def may_be_near(first: str, second: str) -> bool:
            one, other = whole[first], whole[second]
            if one == other:
                return False
            stands = root[first] not in moving or root[second] not in moving
            return stands or (self_collision and above.get(one) != other and above.get(other) != one)

        return tuple(
            pair for pair in all_body_pairs(self.bodies) if may_be_near(*pair) and self._may_touch(*pair)
        )

    def _read_bodies(self) -> tuple[Body, ...]:
        geoms = self._geoms.get(self._static)
        static = (Body(name=self._static, geoms=geoms),) if geoms else ()
        bodies = [self._body(body) for body in range(len(self._names))]
        if self._file.kind == "mjcf":
            # Newton puts those in a <frame> behind their siblings, and thereby the joints out of the file's order.
            order = [body.get("name") for body in self._file.root.iter("body")]
            bodies.sort(key=lambda body: order.index(body.name))
        return (*static, *bodies)

    def _body_name(self, body: int) -> str:
        """Labels are paths, in MJCF through model, world and the bodies above; names may have slashes of their own."""
        label = self._builder.body_label[body]
        if self._file.kind == "urdf":
            return self._in_robot(label)
        parent = self._builder.joint_parent[self._joint_of[body]]
        if parent < 0:
            return label.partition("worldbody/")[2]
        return label.removeprefix(self._builder.body_label[parent] + "/")

    def _in_robot(self, label: str) -> str:
        return label.removeprefix(self._file.root.get("name", "") + "/")

    def _body(self, body: int) -> Body:
        builder, joint = self._builder, self._joint_of[body]
        parent = builder.joint_parent[joint]
        joints = self._joints(joint, body)
        position, quaternion = self._offset(joint)
        if joints and joints[0].kind == "free":
            position, quaternion = _pose(builder.body_q[body])
            if parent >= 0:
                position, quaternion = self._fixed_pose(body, parent)
            parent = -1
        return Body(
            name=self._names[body],
            parent=self._names[parent] if parent >= 0 else "",
            position=_vec3(position),
            quaternion=_quaternion(quaternion),
            joints=joints,
            geoms=self._geoms.get(self._names[body], ()),
            inertia=self._inertia(body),
        )

    def _offset(self, joint: int) -> tuple[np.ndarray, np.ndarray]:
        """Pose of a joint's child in its parent at joint position zero."""
        before, after = self._builder.joint_X_p[joint], self._builder.joint_X_c[joint]
        return compose(_pose(before), _inverse(_pose(after)))

    def _fixed_pose(self, body: int, parent: int) -> tuple[np.ndarray, np.ndarray]:
        """Pose in the world of a body that floats freely below a link of URDF which only stands for the world."""
        builder = self._builder
        pose = self._offset(self._joint_of[body])
        while parent >= 0:
            joint = self._joint_of[parent]
            if builder.joint_type[joint].name != "FIXED":
                raise UnsupportedModelError(
                    f"{self._where(body)}: free joint of body {self._names[body]!r} below one that moves,"
                    f" {self._names[parent]!r}, is not supported"
                )
            pose = compose(self._offset(joint), pose)
            parent = builder.joint_parent[joint]
        return pose

    def _inertia(self, body: int) -> Inertia | None:
        builder = self._builder
        if builder.body_mass[body] == 0.0:
            return None
        matrix = np.array(builder.body_inertia[body], float).reshape(3, 3)
        rows = tuple(map(_vec3, (matrix + matrix.T) / 2.0))
        try:
            return Inertia(
                mass=float(builder.body_mass[body]),
                position=_vec3(np.array(builder.body_com[body])),
                matrix=rows,  # type: ignore[arg-type]
            )
        except ValueError as error:
            raise UnsupportedModelError(f"{self._file.path}: body {self._names[body]!r}: {error}") from error

    def _joints(self, joint: int, body: int) -> tuple[Joint, ...]:
        """Those of a body; newton makes one of all that MJCF gives it, slides before hinges, like the file."""
        builder = self._builder
        kind = _JOINT_KINDS.get(builder.joint_type[joint].name)
        if kind is None:
            raise UnsupportedModelError(
                f"{self._where(body)}: joint of body {self._names[body]!r}: newton's type must be one of"
                f" {sorted(_JOINT_KINDS)}, got {builder.joint_type[joint].name}"
            )
        names = self._joint_names(joint, body)
        dof = builder.joint_qd_start[joint]
        if kind == "fixed":
            return ()
        if kind == "free":
            damping, armature = self._resistance(body)
            return (Joint(name=names[0], kind="free", damping=damping, armature=armature),)
        anchor, turn = _pose(builder.joint_X_c[joint])
        if kind == "ball":
            return (
                Joint(
                    name=names[0],
                    kind="ball",
                    position=_vec3(anchor),
                    # Files mean a torque per angle, the engine one per half its sine: the same for small angles.
                    stiffness=2.0 * float(builder.joint_stiffness[dof]),
                    damping=float(builder.joint_damping[dof]),
                    armature=float(builder.joint_armature[dof]),
                ),
            )
        slides, hinges = builder.joint_dof_dim[joint]
        kinds = ["slide"] * slides + ["hinge"] * hinges
        coordinate = builder.joint_q_start[joint]
        return tuple(
            self._axis_joint(name, kind, anchor, turn, dof + index, coordinate + index)
            for index, (name, kind) in enumerate(zip(names, kinds, strict=True))
        )

    def _resistance(self, body: int) -> tuple[float, float]:
        """Damping and armature of a body's free joint, which newton drops; only MJCF's `joint` has them."""
        element = self._file.named("body", self._names[body])
        joint = element.find("joint") if element is not None else None
        if joint is None or self._file.attributes(joint).get("type") != "free":
            return 0.0, 0.0
        return self._file.numbers(joint, "damping", "0")[0], self._file.numbers(joint, "armature", "0")[0]

    def _axis_joint(
        self, name: str, kind: str, anchor: np.ndarray, turn: np.ndarray, dof: int, coordinate: int
    ) -> Joint:
        builder = self._builder
        lower, upper = float(builder.joint_limit_lower[dof]), float(builder.joint_limit_upper[dof])
        lower = lower if lower > -_UNLIMITED else -math.inf
        upper = upper if upper < _UNLIMITED else math.inf
        limited = math.isfinite(lower) or math.isfinite(upper)
        return Joint(
            name=name,
            kind=kind,
            axis=_vec3(rotation_matrix(_quaternion(turn)) @ np.array(builder.joint_axis[dof], float)),
            position=_vec3(anchor),
            lower=lower,
            upper=upper,
            limit_stiffness=self._limit_stiffness if limited else 0.0,
            limit_damping=self._limit_damping if limited else 0.0,
            stiffness=float(builder.joint_stiffness[dof]),
            rest=float(builder.joint_rest_q[coordinate]),
            damping=float(builder.joint_damping[dof]),
            armature=float(builder.joint_armature[dof]),
            drive_stiffness=float(builder.joint_target_ke[dof]),
            drive_damping=float(builder.joint_target_kd[dof]),
        )

    def _joint_names(self, joint: int, body: int) -> list[str]:
        label = self._builder.joint_label[joint]
        if self._file.kind == "urdf":
            return [self._in_robot(label)]
        own = label.removeprefix(self._builder.body_label[body] + "/")
        element = self._file.named("body", self._names[body])
        joints = element.findall("joint") if element is not None else []
        if len(joints) < 2:
            return [own]
        return [each.get("name", f"{self._names[body]}_joint_{index}") for index, each in enumerate(joints)]

    def _read_shapes(self) -> dict[str, tuple[Geom, ...]]:
        """Shapes by body. Planes become the ground; shapes that the engine lacks have been refused or are left out."""
        builder = self._builder
        geoms: dict[str, tuple[Geom, ...]] = {}
        for shape in range(builder.shape_count):
            body = builder.shape_body[shape]
            name = self._names[body] if body >= 0 else self._static
            position, quaternion = _pose(builder.shape_transform[shape])
            material = self._material_of(shape)
            if builder.shape_type[shape].name == "PLANE":
                self._add_plane(shape, name, position, quaternion, material)
            elif (kind := builder.shape_type[shape].name.lower()) in GEOM_SIZES:
                touches = self._touches(shape)
                geom = Geom(
                    kind=kind,
                    size=tuple(float(size) for size in builder.shape_scale[shape][: GEOM_SIZES[kind]]),
                    position=_vec3(position),
                    quaternion=_quaternion(quaternion),
                    density=0.0,
                    contact=material if touches else None,
                    color=_vec3(builder.shape_color[shape]),
                )
                geoms[name] = (*geoms.get(name, ()), geom)
                if touches:
                    self._touching.setdefault(name, []).append(shape)
        return geoms

    def _material_of(self, shape: int) -> ContactMaterial:
        if self._file.kind == "urdf":
            return self._material
        return replace(self._material, friction=float(self._builder.shape_material_mu[shape]))

    def _add_plane(
        self, shape: int, body: str, position: np.ndarray, quaternion: np.ndarray, material: ContactMaterial
    ) -> None:
        normal = rotation_matrix(_quaternion(quaternion))[:, 2]
        if body != self._static or abs(position[2]) > 1e-6 or normal[2] < 1.0 - 1e-6:
            label = self._builder.shape_label[shape].rpartition("/")[2]
            element = self._file.named("geom", label)
            where = self._file.where(element) if element is not None else self._file.path
            raise UnsupportedModelError(
                f"{where}: plane {label!r} at height {position[2]:g} m with normal {np.round(normal, 3)} of body"
                f" {body!r}: the only plane is the ground, at z = 0 of the world"
            )
        self.ground = material

    def _touches(self, shape: int) -> bool:
        """Whether a shape touches anything in its file; a file without a ground says nothing of one."""
        shapes = range(self._builder.shape_count)
        if self._contact and all(self._builder.shape_type[other].name != "PLANE" for other in shapes):
            return True
        return any(self._let_touch(shape, other) for other in shapes if other != shape)

    def _may_touch(self, first: str, second: str) -> bool:
        pairs = product(self._touching.get(first, ()), self._touching.get(second, ()))
        return any(self._let_touch(a, b) for a, b in pairs)

    def _let_touch(self, a: int, b: int) -> bool:
        """Whether the masks and exclusions of the file let two shapes touch."""
        bodies = [self._builder.shape_body[shape] for shape in (a, b)]
        names = {self._names[body] if body >= 0 else "world" for body in bodies}
        if not self._contact or frozenset((a, b)) in self._excluded or names in self._apart:
            return False
        masks = self._builder.custom_attributes
        kinds, affinities = (
            masks[name].values if name in masks else {} for name in ("mujoco:contype", "mujoco:conaffinity")
        )
        return bool(kinds.get(a, 1) & affinities.get(b, 1) | kinds.get(b, 1) & affinities.get(a, 1))

    def _where(self, body: int) -> str:
        element = self._file.named("body" if self._file.kind == "mjcf" else "link", self._names[body])
        return self._file.where(element) if element is not None else str(self._file.path)


def _pose(transform: Any) -> tuple[np.ndarray, np.ndarray]:
    """Position and unit quaternion of a Warp transform."""
    values = np.array(transform, float)
    return values[:3], values[3:] / np.linalg.norm(values[3:])


def _inverse(pose: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    position, quaternion = pose
    back = quaternion * (-1.0, -1.0, -1.0, 1.0)
    return -rotation_matrix(_quaternion(back)) @ position, back


def _vec3(values: Iterable[float]) -> Vec3:
    x, y, z = (float(value) for value in values)
    return (x, y, z)


def _quaternion(values: Iterable[float]) -> Quaternion:
    x, y, z, w = (float(value) for value in values)
    return (x, y, z, w)
