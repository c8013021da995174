"""What an operator can set on the runner: one field, one ROS parameter of the same name."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from policy_runner.contract import PolicyContract
from policy_runner.limiter import UserLimits

COMMAND_TYPES = ("joint_trajectory", "commands", "joint_command")
STOP_MODES = ("decelerate_hold", "hold_now", "return_home", "publish_nothing")

_SHA256 = re.compile("[0-9a-fA-F]{64}")


class SettingsError(ValueError):
    """A setting has a value that makes no sense; the message names it."""


def _setting(
    default: Any,
    description: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    read_only: bool = False,
) -> Any:
    metadata = {"description": description, "low": low, "high": high, "choices": choices}
    return field(default=default, metadata=metadata | {"read_only": read_only})


@dataclass(frozen=True, kw_only=True)
class RunnerSettings:
    """Settings of a runner, in SI units. The descriptions are those of the ROS parameters."""

    policy: str = _setting("", "Folder of the policy bundle.")
    policy_dirs: tuple[str, ...] = _setting(
        ("",),
        "Folders that policies must lie in, here and in ~/load_policy, links resolved. Empty: only the folder "
        "of the policy given at start. Set at start only, so that nobody on the graph can widen it.",
        read_only=True,
    )
    policy_sha256: tuple[str, ...] = _setting(
        ("",),
        "The only bundles that are taken, by the sha256 of their bundle.json, which inspect_bundle shows; "
        "empty: all. Set at start only.",
        read_only=True,
    )
    command_type: str = _setting(
        "joint_trajectory",
        "How commands are published: joint_trajectory (trajectory_msgs/JointTrajectory of one point), "
        "commands (std_msgs/Float64MultiArray in the order of the policy's joints) or "
        "joint_command (sensor_msgs/JointState).",
        choices=COMMAND_TYPES,
    )
    stamp_trajectory: bool = _setting(
        False,
        "Stamp joint trajectories with the stamp of the inputs they were computed from, for a simulator that "
        "waits for the answer to its observation. False leaves the stamp zero, 'start now': a "
        "joint_trajectory_controller rejects trajectories that lie in the past. "
        "Joint commands always carry the stamp.",
    )
    rate_hz: float = _setting(
        0.0, "Control rate [Hz]; 0 takes the one the policy was trained at.", low=0.0, high=1000.0
    )
    cloud_timeout_s: float = _setting(
        0.0,
        "Hold when the newest cloud is older [s]; 0 means max(0.25, 3 control periods).",
        low=0.0,
        high=60.0,
    )
    joint_state_timeout_s: float = _setting(
        0.0,
        "Hold when the newest joint state is older [s], or when the control loop itself was away for longer, "
        "as after a suspend; 0 means max(0.1, 3 control periods).",
        low=0.0,
        high=60.0,
    )
    max_input_skew_s: float = _setting(
        0.15,
        "Hold when the stamps of cloud and joint state disagree with their arrivals by more [s]; 0: never.",
        low=0.0,
        high=60.0,
    )
    reliable_clouds: bool = _setting(
        False,
        "Ask for clouds that are lost on the way to be sent again, which takes time; a camera that publishes "
        "best effort is then not heard at all.",
    )
    cloud_frame: str = _setting(
        "",
        "frame_id that clouds must have, where cloud_extrinsics gives its pose; others are dropped. Empty: any "
        "frame that /tf connects with the policy's frame; without tf2_msgs, the policy's frame alone.",
    )
    cloud_extrinsics: tuple[float, ...] = _setting(
        (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
        "Pose of cloud_frame in the policy's frame: x y z [m], quaternion x y z w.",
    )
    tf_timeout_s: float = _setting(
        0.05,
        "Drop a cloud when the nearest transform of a moving frame is further from the cloud's stamp [s].",
        low=0.0,
        high=10.0,
    )
    max_transform_jump_m: float = _setting(
        0.1,
        "Drop clouds, for two cloud timeouts, when their frame moves further from one to the next [m]; 0: never.",
        low=0.0,
        high=100.0,
    )
    max_transform_jump_rad: float = _setting(
        0.35,
        "Drop clouds, for two cloud timeouts, when their frame turns further from one to the next [rad]; "
        "0: never.",
        low=0.0,
        high=3.2,
    )
    max_cloud_points: int = _setting(
        100_000,
        "Larger clouds are thinned, by rows and columns where they are organised: of a depth image of 640 x 480, "
        "every second one is left.",
        low=1,
        high=10_000_000,
    )
    urdf: str = _setting(
        "",
        "URDF file of the robot, whose joint limits then bind as well; the tightest of the policy's, the "
        "URDF's and joint_limits wins. Empty: without.",
    )
    joint_limit_margin: float = _setting(
        0.05,
        "Commands keep this far from the URDF's position limits, and a joint measured this far outside the "
        "limits of commands is a fault [rad or m].",
        low=0.0,
        high=1.0,
    )
    velocity_scale: float = _setting(
        0.5, "Share of the URDF's top speeds that commands may use.", low=0.001, high=1.0
    )
    acceleration_scale: float = _setting(
        0.5,
        "Share of the URDF's top accelerations, where it has any, that commands may use.",
        low=0.001,
        high=1.0,
    )
    max_joint_jump: float = _setting(
        0.1,
        "Hold, until an operator arms again, when a joint state is further from the last one than the top "
        "speed explains, and by more than this [rad or m].",
        low=0.0,
        high=100.0,
    )
    max_start_distance: float = _setting(
        1.0,
        "Refuse to arm for the first time where a joint is further from the policy's start pose [rad or m]; "
        "after a hold, a policy goes on from wherever it had come to.",
        low=0.0,
        high=100.0,
    )
    action_filter_alpha: float = _setting(
        1.0,
        "Weight of the newest action in a first-order filter of the actions; 1 is no filter.",
        low=0.001,
        high=1.0,
    )
    ramp_in_s: float = _setting(
        2.0, "Time from arming until the policy may use its full speed [s].", low=0.0, high=60.0
    )
    stop_mode: str = _setting(
        "decelerate_hold",
        "What a hold does: decelerate_hold slows down and stands; hold_now stands at once, whatever the "
        "acceleration; return_home slows down and, where joint states are good and no operator has "
        "intervened, then moves slowly to home_position (position commands only); publish_nothing falls "
        "silent and leaves the stop to the robot's own command timeout.",
        choices=STOP_MODES,
    )
    stop_time_s: float = _setting(
        0.2, "Time in which a hold brings a joint from its top speed to rest [s].", low=0.001, high=10.0
    )
    inference_budget_s: float = _setting(
        0.0,
        "Hold when the network takes longer to answer [s]; 0 means half a control period.",
        low=0.0,
        high=10.0,
    )
    realtime_priority: int = _setting(
        20,
        "Priority (SCHED_FIFO) of the control loop, and less one that of the network, while active, where the system "
        "allows it: they then go before clouds and all programs without one. 0: none.",
        low=0,
        high=99,
    )
    deadline_miss_limit: int = _setting(
        3, "Hold after this many ticks in a row that took longer than their period.", low=1, high=1000
    )
    restart_after_stale: bool = _setting(
        False, "Go on by itself once inputs are good again; else an operator must arm again."
    )
    autostart: bool = _setting(
        True, "Configure and activate at start; false leaves that to a lifecycle manager."
    )
    arm_without_listener: bool = _setting(
        False,
        "Arm, and run, although nobody subscribes to the commands, for dry runs. A subscriber that expects "
        "another number of joints cannot be told from a good one: a forward controller then fails by itself.",
    )
    arm_on_activate: bool = _setting(
        False, "Arm at the first tick at which all inputs are good. For simulated robots only."
    )
    vet_timeout_s: float = _setting(
        10.0, "Refuse a bundle whose check takes longer [s].", low=0.1, high=600.0
    )
    debug_topics: bool = _setting(
        False, "Publish what the network gave and saw, on ~/action_raw and ~/observation, at every step."
    )
    record: str = _setting(
        "",
        "Folder that gets an MCAP bag of each run, from configure to cleanup: inputs, commands, status and what "
        "policy_runner.replay needs to do the run again. Empty: none.",
    )
    record_clouds: bool = _setting(False, "Record the clouds as they come, too; they are large.")
    record_limit_mb: float = _setting(
        4000.0, "Size at which a recording ends, while the run goes on [MB].", low=1.0, high=1e6
    )

    def __post_init__(self) -> None:
        for setting in fields(self):
            value, meta = (
                _converted(setting.name, getattr(self, setting.name), setting.default),
                setting.metadata,
            )
            object.__setattr__(self, setting.name, value)
            if meta["choices"] and value not in meta["choices"]:
                raise SettingsError(f"{setting.name}: got {value!r}; known: {list(meta['choices'])}")
            if meta["low"] is not None and not meta["low"] <= value <= meta["high"]:
                bounds = f"[{meta['low']}, {meta['high']}]"
                raise SettingsError(f"{setting.name}: must be in {bounds}, got {value}")
        finite = all(math.isfinite(v) for v in self.cloud_extrinsics)
        unit = 0.99 < sum(v * v for v in self.cloud_extrinsics[3:]) < 1.01
        if not (len(self.cloud_extrinsics) == 7 and finite and unit):
            raise SettingsError(
                "cloud_extrinsics: expected x y z and a unit quaternion x y z w, "
                f"got {list(self.cloud_extrinsics)}"
            )
        for digest in filter(None, self.policy_sha256):
            if not _SHA256.fullmatch(digest):
                raise SettingsError(f"policy_sha256: expected 64 hexadecimal digits, got {digest!r}")

    def control_dt_s(self, contract: PolicyContract) -> float:
        """Return the period of the control loop [s]."""
        return 1.0 / self.rate_hz if self.rate_hz > 0.0 else contract.control_dt_s

    def cloud_timeout(self, contract: PolicyContract) -> float:
        """Return the age at which a cloud is stale [s]; by default, three frames of a 12 Hz camera."""
        return self.cloud_timeout_s or max(0.25, 3.0 * self.control_dt_s(contract))

    def inference_budget(self, contract: PolicyContract) -> float:
        """Return how long a control step may wait for the network [s]."""
        return self.inference_budget_s or 0.5 * self.control_dt_s(contract)

    def joint_state_timeout(self, contract: PolicyContract) -> float:
        """Return the age at which a joint state is stale [s]; by default, six messages at 60 Hz."""
        return self.joint_state_timeout_s or max(0.1, 3.0 * self.control_dt_s(contract))


def settings_from(values: Mapping[str, Any]) -> RunnerSettings:
    """Build settings from parameter values by name.

    Raises:
        SettingsError: a name is unknown (the nearest known one is suggested), or a value has the wrong type
        or size.
    """
    known = [setting.name for setting in fields(RunnerSettings)]
    for name in values:
        if name not in known:
            raise SettingsError(f"unknown parameter {name!r}{_suggestion(name, known)}")
    return RunnerSettings(**values)


def user_limits_from(values: Mapping[str, Any]) -> dict[str, UserLimits]:
    """Build the operator's limits from parameter values, each named `<joint>.<limit>`.

    Raises:
        SettingsError: a limit is unknown or no finite number.
    """
    known = [limit.name for limit in fields(UserLimits)]
    by_joint: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        joint, _, limit = name.rpartition(".")  # joint names may have dots of their own
        if not joint or limit not in known:
            raise SettingsError(f"unknown parameter 'joint_limits.{name}'{_suggestion(limit, known)}")
        by_joint.setdefault(joint, {})[limit] = _finite(f"joint_limits.{name}", value)
    return {joint: UserLimits(**limits) for joint, limits in by_joint.items()}


def home_position_from(values: Mapping[str, Any]) -> dict[str, float]:
    """Build the home position [rad or m] from parameter values, each named by its joint.

    Raises:
        SettingsError: a value is no finite number.
    """
    return {joint: _finite(f"home_position.{joint}", value) for joint, value in values.items()}


def _finite(name: str, value: Any) -> float:
    number = _converted(name, value, 0.0)
    if not math.isfinite(number):
        raise SettingsError(f"{name}: must be finite, got {number}")
    return number


def _converted(name: str, value: Any, default: Any) -> Any:
    """Return `value` in the type of `default`; whole numbers pass for floats, nothing else is bent."""
    try:
        if isinstance(default, tuple):
            return _texts(value) if isinstance(default[0], str) else tuple(float(item) for item in value)
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
    except (TypeError, ValueError):
        pass
    if type(value) is not type(default):
        raise SettingsError(f"{name}: expected {type(default).__name__}, got {value!r}")
    return value


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise TypeError
    return tuple(values)


def _suggestion(name: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else f"; known: {known}"
