"""The joint limits of a robot's URDF. Nothing else in the file is looked at, and no mesh is opened.

    <robot><joint name="elbow" type="revolute"><limit lower="-2" upper="2" velocity="3"/></joint></robot>

A `<limit>` may also have an `acceleration` [rad/s^2 or m/s^2] and an `effort` [N m or N]. The file comes
from elsewhere: it may not declare a document type, hence no entities, and is refused from `MAX_BYTES` on.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.parsers import expat

from policy_runner.limiter import UserLimits

MAX_BYTES = 16 << 20


class UrdfError(ValueError):
    """A URDF is refused; the message names file, line and joint."""


@dataclass(frozen=True, kw_only=True)
class UrdfJoint:
    """One `<joint>`, as it stands in the file."""

    where: str
    """File and line."""
    kind: str
    """Its `type`: revolute, continuous, prismatic, fixed, floating or planar."""
    limit: Mapping[str, float] | None
    """Attributes of its `<limit>`, if it has one."""


def urdf_limits(
    path: str | os.PathLike[str],
    joint_names: Sequence[str],
    *,
    margin: float,
    velocity_scale: float,
    acceleration_scale: float,
) -> dict[str, UserLimits]:
    """Return what a URDF allows the joints of a policy.

    margin: distance to keep from its position limits [rad or m]; velocity_scale, acceleration_scale: share of
    its top speeds and accelerations to use.

    Raises:
        UrdfError: the file is no URDF, or a joint is missing, cannot be commanded or has no usable limit.
    """
    joints = read_joints(path)
    limits = {}
    for name in joint_names:
        if name not in joints:
            raise UrdfError(f"{path}: no joint {name!r}; known: {sorted(joints)}")
        limits[name] = _limits(
            name, joints[name], margin=margin, velocity=velocity_scale, acceleration=acceleration_scale
        )
    return limits


def read_joints(path: str | os.PathLike[str]) -> dict[str, UrdfJoint]:
    """Return the joints of a URDF by name.

    Raises:
        UrdfError: it is missing, too large, no URDF, declares a document type, names a joint twice, or has a
            limit that is no finite number.
    """
    file = Path(path)
    if not file.is_file():
        raise UrdfError(
            f"{path}: expected a URDF file, found {'no plain file' if file.exists() else 'nothing'}"
        )
    if (size := file.stat().st_size) > MAX_BYTES:
        raise UrdfError(f"{path}: expected at most {MAX_BYTES} bytes, found {size}")
    reader = _Reader(str(path))
    try:
        reader.parser.Parse(file.read_bytes(), True)
    except expat.ExpatError as error:
        raise UrdfError(f"{path}:{error.lineno}: not XML: {expat.ErrorString(error.code)}") from error
    except OSError as error:
        raise UrdfError(f"{path}: cannot be read: {error.strerror}") from error
    return reader.joints


class _Reader:
    """Collects `<robot><joint>` and its `<limit>`; joints elsewhere, as in transmissions, are something else."""

    def __init__(self, path: str) -> None:
        self.joints: dict[str, UrdfJoint] = {}
        self.parser = expat.ParserCreate()
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.StartDoctypeDeclHandler = self._refuse_doctype
        self._path = path
        self._open: list[str] = []  # names of the elements around the present one
        self._name = ""

    @property
    def _where(self) -> str:
        return f"{self._path}:{self.parser.CurrentLineNumber}"

    def _refuse_doctype(self, *_: object) -> None:
        raise UrdfError(f"{self._where}: a URDF may not declare a document type")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag.startswith("xacro:"):
            raise UrdfError(f"{self._where}: <{tag}>: a xacro file; expand it to a URDF first")
        if not self._open and tag != "robot":
            raise UrdfError(f"{self._where}: expected <robot>, found <{tag}>")
        if tag == "joint" and self._open == ["robot"]:
            self._add_joint(attributes)
        elif tag == "limit" and self._open == ["robot", "joint"]:
            self._add_limit(attributes)
        self._open.append(tag)

    def _end(self, _: str) -> None:
        self._open.pop()

    def _add_joint(self, attributes: dict[str, str]) -> None:
        self._name = attributes.get("name", "")
        if not self._name or self._name in self.joints:
            what = f"joint {self._name!r} is named twice" if self._name else "a joint has no name"
            raise UrdfError(f"{self._where}: {what}")
        self.joints[self._name] = UrdfJoint(where=self._where, kind=attributes.get("type", ""), limit=None)

    def _add_limit(self, attributes: dict[str, str]) -> None:
        limit = {}
        for name in ("lower", "upper", "velocity", "acceleration", "effort"):
            if (text := attributes.get(name)) is not None:
                limit[name] = self._number(name, text)
        joint = self.joints[self._name]
        self.joints[self._name] = UrdfJoint(where=self._where, kind=joint.kind, limit=limit)

    def _number(self, what: str, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise UrdfError(f"{self._where}: joint {self._name!r}: {what}: expected a number, got {text!r}")
        return value


def _limits(
    name: str, joint: UrdfJoint, *, margin: float, velocity: float, acceleration: float
) -> UserLimits:
    where = f"{joint.where}: joint {name!r}"
    if joint.kind not in ("revolute", "prismatic", "continuous"):
        raise UrdfError(f"{where}: of type {joint.kind!r}: no single position can be commanded")
    endless = joint.kind == "continuous"
    if joint.limit is None and not endless:
        raise UrdfError(f"{where}: {joint.kind}, but without <limit>")
    limit = joint.limit or {}
    lower, upper = limit.get("lower", 0.0) + margin, limit.get("upper", 0.0) - margin  # 0 is URDF's default
    if not (lower < upper or endless):
        raise UrdfError(
            f"{where}: no room between lower {limit.get('lower', 0.0)} and upper {limit.get('upper', 0.0)} "
            f"with a margin of {margin}"
        )
    if "velocity" not in limit and not endless:
        raise UrdfError(f"{where}: <limit> has no velocity")
    for what in ("velocity", "acceleration"):
        if limit.get(what, math.inf) <= 0.0:
            raise UrdfError(f"{where}: {what}: must be > 0, got {limit[what]}")
    return UserLimits(
        min_position=-math.inf if endless else lower,
        max_position=math.inf if endless else upper,
        max_velocity=velocity * limit.get("velocity", math.inf),
        max_acceleration=acceleration * limit.get("acceleration", math.inf),
        max_effort=limit.get("effort", math.inf),
    )
