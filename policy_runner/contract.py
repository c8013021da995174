"""What goes into a policy and what comes out: the one description that training, export and the robot share.

A `PolicyContract` travels as JSON inside every exported model. The simulator fills its observation terms from
physical state, the runner fills the same terms from messages, and both refuse what does not match.

Conventions at this boundary: SI units, z up, right-handed (REP 103), quaternions x y z w.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from numbers import Integral, Real
from typing import Any

SCHEMA_VERSION = 1

OBS_KINDS = (
    "joint_position",
    "joint_velocity",
    "cloud",
    "cloud_mean",
    "previous_action",
    "goal_position",
    "privileged",
)
"""Where a term comes from. `cloud` is the sampled cloud itself, `cloud_mean` its mean point. What is `privileged`
only a simulator knows: such a policy can be trained, evaluated and exported, but a runner refuses it."""

ACTION_MODES = ("delta_position", "position", "velocity", "effort")
"""What an action of 1 means after scaling; `delta_position` adds to the joint position of the same tick."""

SAMPLERS = ("stride", "random", "farthest")

MAX_VOXELS_PER_AXIS = 1 << 20
"""Finer grids do not fit a 64-bit voxel index."""

# No real policy comes near these; a hostile one is stopped by them before anything is allocated or scheduled.
MAX_STATE_SIZE = 1 << 16
MAX_POINTS = 1 << 17
MAX_JOINTS = 1 << 10
MAX_MAGNITUDE = 1e6
"""Of any number of an action or a start pose, in SI units."""
CONTROL_DT_RANGE_S = (1e-3, 10.0)
MAX_TEXT = 200
"""Characters of a name, a unit, a frame."""
MAX_TRAIN_DEPTH = 8


class ContractError(ValueError):
    """A contract, or the model that carries it, does not say what it must; the message names the field."""


@dataclass(frozen=True, kw_only=True)
class ObsTerm:
    """One named part of an observation.

    The network sees `scale * value`. Terms of rank 1 are concatenated, in the order of the specification,
    into the model input `obs`; a term of kind `cloud` is a model input of its own, under its own name.
    """

    name: str
    """Key of the observation dict and, for clouds, name of the model input."""
    kind: str
    """One of `OBS_KINDS`."""
    shape: tuple[int, ...]
    """Shape per environment, without the batch dimension: (3,) or (250, 3)."""
    scale: float = 1.0
    unit: str = ""
    """SI unit of the unscaled value."""
    frame: str = ""
    """Frame in which positions are expressed; empty for joint-space terms."""

    def __post_init__(self) -> None:
        _check_text(self.name, "obs_terms: name", needed=True)
        _check_text(self.unit, f"obs_terms[{self.name}].unit")
        _check_text(self.frame, f"obs_terms[{self.name}].frame")
        _require(
            self.kind in OBS_KINDS,
            f"obs_terms[{self.name}].kind",
            f"got {self.kind!r}; known: {list(OBS_KINDS)}",
        )
        sizes = _sequence(self.shape, f"obs_terms[{self.name}].shape")
        shape = tuple(_integer(size, f"obs_terms[{self.name}].shape") for size in sizes)
        object.__setattr__(self, "shape", shape)
        _require(
            len(shape) > 0 and min(shape) > 0,
            f"obs_terms[{self.name}].shape",
            f"sizes must be > 0, got {shape}",
        )
        is_cloud = self.kind == "cloud"
        _require(
            (len(shape) == 2 and shape[1] == 3) if is_cloud else len(shape) == 1,
            f"obs_terms[{self.name}].shape",
            f"kind {self.kind!r} takes {'(points, 3)' if is_cloud else '(size,)'}, got {shape}",
        )
        most = MAX_POINTS if is_cloud else MAX_STATE_SIZE
        _require(
            max(shape) <= most, f"obs_terms[{self.name}].shape", f"at most {most} in a row, got {max(shape)}"
        )
        object.__setattr__(self, "scale", _number(self.scale, f"obs_terms[{self.name}].scale"))

    @property
    def size(self) -> int:
        """Number of values per environment."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class PointCloudSpec:
    """How a cloud becomes the points of the network: crop, voxel, sample, always in this order and frame."""

    frame: str
    crop_min: tuple[float, float, float]
    """Lower corner of the crop box [m]."""
    crop_max: tuple[float, float, float]
    """Upper corner of the crop box [m]."""
    num_points: int
    voxel_m: float = 0.0
    """Edge of the voxel grid [m]; 0 switches it off."""
    sampler: str = "stride"
    """One of `SAMPLERS`; `stride` keeps every k-th point, k = available // num_points."""
    seed: int = 0
    min_points: int = 1
    """Fewer points than this after cropping are no observation: the runner holds."""

    def __post_init__(self) -> None:
        for name in ("crop_min", "crop_max"):
            object.__setattr__(self, name, _finite_tuple(getattr(self, name), 3, f"point_cloud.{name}"))
        _check_text(self.frame, "point_cloud.frame", needed=True)
        object.__setattr__(self, "voxel_m", _number(self.voxel_m, "point_cloud.voxel_m"))
        for name in ("num_points", "min_points", "seed"):
            object.__setattr__(self, name, _integer(getattr(self, name), f"point_cloud.{name}"))
        _require(
            all(low < high for low, high in zip(self.crop_min, self.crop_max, strict=True)),
            "point_cloud.crop_max",
            f"must exceed crop_min {self.crop_min} in every axis, got {self.crop_max}",
        )
        _require(self.num_points > 0, "point_cloud.num_points", f"must be > 0, got {self.num_points}")
        longest = max(high - low for low, high in zip(self.crop_min, self.crop_max, strict=True))
        _require(
            self.voxel_m == 0.0 or longest / MAX_VOXELS_PER_AXIS <= self.voxel_m < math.inf,
            "point_cloud.voxel_m",
            f"must be 0 or at least 1/{MAX_VOXELS_PER_AXIS} of the crop box, got {self.voxel_m}",
        )
        _require(
            self.sampler in SAMPLERS, "point_cloud.sampler", f"got {self.sampler!r}; known: {list(SAMPLERS)}"
        )
        _require(self.min_points >= 1, "point_cloud.min_points", f"must be >= 1, got {self.min_points}")


@dataclass(frozen=True, kw_only=True)
class ActionSpec:
    """From the network's output a in [-1, 1] to joint commands: `offset + scale * a`, then the limits."""

    joint_names: tuple[str, ...]
    mode: str
    """One of `ACTION_MODES`."""
    scale: tuple[float, ...]
    """Per joint; for `delta_position` the largest motion in one control step [rad or m]."""
    lower: tuple[float, ...]
    """Lower joint position limits [rad or m]."""
    upper: tuple[float, ...]
    """Upper joint position limits [rad or m]."""
    max_velocity: tuple[float, ...]
    """Largest joint speed [rad/s or m/s]."""
    offset: tuple[float, ...] = ()
    """Per joint; empty means zero."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "joint_names", tuple(_sequence(self.joint_names, "action.joint_names")))
        count = len(self.joint_names)
        _require(count > 0, "action.joint_names", "must not be empty")
        _require(count <= MAX_JOINTS, "action.joint_names", f"at most {MAX_JOINTS}, got {count}")
        for index, joint in enumerate(self.joint_names):
            _check_text(joint, f"action.joint_names[{index}]", needed=True)
        _require(
            len(set(self.joint_names)) == count, "action.joint_names", f"repeated names in {self.joint_names}"
        )
        _require(self.mode in ACTION_MODES, "action.mode", f"got {self.mode!r}; known: {list(ACTION_MODES)}")
        if not self.offset:
            object.__setattr__(self, "offset", (0.0,) * count)
        for name in ("scale", "lower", "upper", "max_velocity", "offset"):
            object.__setattr__(self, name, _finite_tuple(getattr(self, name), count, f"action.{name}"))
        for joint, low, high, speed in zip(
            self.joint_names, self.lower, self.upper, self.max_velocity, strict=True
        ):
            _require(low < high, "action.upper", f"joint {joint!r}: lower {low} is not below upper {high}")
            _require(speed > 0.0, "action.max_velocity", f"joint {joint!r}: must be > 0, got {speed}")

    @property
    def size(self) -> int:
        """Number of joints, which is the size of the network's output."""
        return len(self.joint_names)


@dataclass(frozen=True, kw_only=True)
class PolicyContract:
    """Everything a runner must know about a policy; JSON in the metadata of every exported model."""

    policy_name: str
    task: str
    control_dt_s: float
    """Period of the control loop [s]."""
    obs_terms: tuple[ObsTerm, ...]
    action: ActionSpec
    default_joint_pos: tuple[float, ...]
    """Joint positions at the start of an episode [rad or m], in the order of `action.joint_names`."""
    point_cloud: PointCloudSpec | None = None
    train: Mapping[str, Any] = field(default_factory=dict)
    """Where the policy comes from: algorithm, env steps, seed, versions. Plain JSON values."""
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        _require(
            self.schema_version == SCHEMA_VERSION,
            "schema_version",
            f"this build reads {SCHEMA_VERSION}, the model carries {self.schema_version!r}",
        )
        for name in ("policy_name", "task"):
            _check_text(getattr(self, name), name)
        object.__setattr__(self, "control_dt_s", _number(self.control_dt_s, "control_dt_s"))
        shortest, longest = CONTROL_DT_RANGE_S
        _require(self.control_dt_s > 0.0, "control_dt_s", f"must be > 0, got {self.control_dt_s}")
        _require(
            shortest <= self.control_dt_s <= longest,
            "control_dt_s",
            f"must be in [{shortest}, {longest}], got {self.control_dt_s}",
        )
        _check_plain(self.train, "train")
        object.__setattr__(self, "obs_terms", tuple(self.obs_terms))
        names = [term.name for term in self.obs_terms]
        _require(len(names) > 0, "obs_terms", "must not be empty")
        _require(len(set(names)) == len(names), "obs_terms", f"repeated names in {names}")
        _require(
            self.state_size <= MAX_STATE_SIZE,
            "obs_terms",
            f"at most {MAX_STATE_SIZE} values beside the cloud, got {self.state_size}",
        )
        object.__setattr__(
            self,
            "default_joint_pos",
            _finite_tuple(self.default_joint_pos, self.action.size, "default_joint_pos"),
        )
        clouds = self.cloud_terms
        _require(
            len(clouds) <= 1, "obs_terms", f"at most one cloud term, got {[term.name for term in clouds]}"
        )
        needs_cloud = any(term.kind in ("cloud", "cloud_mean") for term in self.obs_terms)
        _require(
            needs_cloud == (self.point_cloud is not None),
            "point_cloud",
            "must be given exactly when a term of kind 'cloud' or 'cloud_mean' is",
        )
        if clouds and self.point_cloud is not None:
            _require(
                clouds[0].shape[0] == self.point_cloud.num_points,
                "point_cloud.num_points",
                f"is {self.point_cloud.num_points}, but {clouds[0].name!r} has shape {clouds[0].shape}",
            )

    @property
    def state_terms(self) -> tuple[ObsTerm, ...]:
        """Terms concatenated into the model input `obs`, in order."""
        return tuple(term for term in self.obs_terms if term.kind != "cloud")

    @property
    def cloud_terms(self) -> tuple[ObsTerm, ...]:
        """The cloud term, if any, as a tuple of length 0 or 1."""
        return tuple(term for term in self.obs_terms if term.kind == "cloud")

    @property
    def state_size(self) -> int:
        """Length of the model input `obs`."""
        return sum(term.size for term in self.state_terms)

    def to_json(self) -> str:
        """Serialise with full float precision and sorted keys, so that equal contracts give equal bytes."""
        return json.dumps(asdict(self), sort_keys=True, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> PolicyContract:
        """Parse and check; raises `ContractError` naming the field that is missing, unknown or wrong."""
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ContractError(f"contract: not valid JSON: {error}") from error
        if not isinstance(raw, dict):
            raise ContractError(f"contract: expected an object, got {type(raw).__name__}")
        version = raw.get("schema_version")
        if version != SCHEMA_VERSION:  # before anything else: another version may have other fields
            raise ContractError(
                f"schema_version: this build reads {SCHEMA_VERSION}, the model carries {version!r}"
            )
        raw = dict(raw)
        if "obs_terms" in raw:
            terms = _sequence(raw["obs_terms"], "obs_terms")
            raw["obs_terms"] = tuple(
                _build(ObsTerm, term, f"obs_terms[{index}]") for index, term in enumerate(terms)
            )
        if "action" in raw:
            raw["action"] = _build(ActionSpec, raw["action"], "action")
        if raw.get("point_cloud") is not None:
            raw["point_cloud"] = _build(PointCloudSpec, raw["point_cloud"], "point_cloud")
        return _build(PolicyContract, raw, "contract")


def _build(kind: type, raw: Any, where: str) -> Any:
    if not isinstance(raw, dict):
        raise ContractError(f"{where}: expected an object, got {type(raw).__name__}")
    known = {f.name for f in fields(kind)}
    unknown = sorted(set(raw) - known)
    if unknown:
        raise ContractError(f"{where}: unknown field {unknown[0]!r}; known: {sorted(known)}")
    try:
        return kind(**raw)
    except ContractError:
        raise
    except TypeError as error:  # a required field is missing, or a value has the wrong type
        raise ContractError(f"{where}: {error}") from error


def _require(condition: bool, where: str, message: str) -> None:
    if not condition:
        raise ContractError(f"{where}: {message}")


def _sequence(value: Any, where: str) -> Sequence[Any]:
    """A text is a sequence too, but never one that is meant."""
    if not isinstance(value, list | tuple):
        raise ContractError(f"{where}: expected a list, got {type(value).__name__}")
    return value


def _check_text(value: Any, where: str, *, needed: bool = False) -> None:
    """Names end up in logs and on terminals: one line, nothing that steers a terminal."""
    _require(isinstance(value, str), where, f"expected text, got {type(value).__name__}")
    _require(len(value) <= MAX_TEXT, where, f"at most {MAX_TEXT} characters, got {len(value)}")
    _require(value.isprintable(), where, f"must be printable, got {value!r}")
    _require(bool(value) or not needed, where, "must not be empty")


def _integer(value: Any, where: str) -> int:
    is_integer = isinstance(value, Integral) and not isinstance(value, bool)
    _require(is_integer, where, f"expected a whole number, got {value!r}")
    return int(value)


def _number(value: Any, where: str) -> float:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    _require(is_number, where, f"expected a number, got {value!r}")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    _require(math.isfinite(result), where, f"must be finite, got {result}")
    return result


def _finite_tuple(values: Any, count: int, where: str) -> tuple[float, ...]:
    result = tuple(_number(value, where) for value in _sequence(values, where))
    _require(len(result) == count, where, f"expected {count} numbers, got {len(result)}")
    large = [value for value in result if abs(value) > MAX_MAGNITUDE]
    _require(not large, where, f"at most {MAX_MAGNITUDE:g} in size, got {large[:1]}")
    return result


def _check_plain(value: Any, where: str, depth: int = 0) -> None:
    """What JSON can say, of bounded depth."""
    _require(depth <= MAX_TRAIN_DEPTH, "train", f"nested more than {MAX_TRAIN_DEPTH} deep")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_text(key, f"{where}: key")
            _check_plain(inner, f"{where}.{key}", depth + 1)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            _check_plain(inner, f"{where}[{index}]", depth + 1)
    elif isinstance(value, str):
        _check_text(value, where)
    elif value is not None and not isinstance(value, bool):
        _number(value, where)
