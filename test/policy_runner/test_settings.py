"""Settings are complete, checked and explained; a wrong one is refused by name."""

from __future__ import annotations

import itertools
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml

from policy_runner.limiter import UserLimits
from policy_runner.settings import (
    RunnerSettings,
    SettingsError,
    home_position_from,
    settings_from,
    user_limits_from,
)

CONFIG = Path(__file__).parents[2] / "config" / "runner.yaml"


def test_every_setting_is_described():
    assert all(setting.metadata["description"].endswith(".") for setting in fields(RunnerSettings))


def test_the_shipped_file_lists_every_setting_with_its_default():
    values = yaml.safe_load(CONFIG.read_text())["/**"]["ros__parameters"]
    limits = values.pop("joint_limits", {})
    assert settings_from(values) == RunnerSettings()
    assert set(values) == {setting.name for setting in fields(RunnerSettings)}
    assert limits == {}


def test_every_line_of_the_shipped_file_has_a_comment_above_it():
    lines = [line.strip() for line in CONFIG.read_text().splitlines()]
    for above, line in itertools.pairwise(lines):
        if ": " in line and not line.startswith("#"):
            assert above.startswith("#"), line


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"polcy": "x"}, "unknown parameter 'polcy'; did you mean 'policy'"),
        ({"rate_hz": "fast"}, "rate_hz: expected float, got 'fast'"),
        ({"rate_hz": True}, "rate_hz: expected float, got True"),
        ({"autostart": 1}, "autostart: expected bool, got 1"),
        ({"deadline_miss_limit": 2.5}, "deadline_miss_limit: expected int, got 2.5"),
        ({"deadline_miss_limit": 0}, r"deadline_miss_limit: must be in \[1, 1000\], got 0"),
        ({"rate_hz": -1.0}, r"rate_hz: must be in \[0.0, 1000.0\], got -1.0"),
        ({"rate_hz": float("nan")}, r"rate_hz: must be in"),
        ({"command_type": "trajectory"}, r"command_type: got 'trajectory'; known: \['joint_trajectory'"),
        ({"cloud_extrinsics": [0.0, 0.0, 0.0]}, "cloud_extrinsics: expected x y z and a unit quaternion"),
        ({"cloud_extrinsics": [0.0] * 7}, "cloud_extrinsics: expected x y z and a unit quaternion"),
        ({"cloud_extrinsics": [float("nan")] * 7}, "cloud_extrinsics: expected x y z and a unit quaternion"),
        (
            {"cloud_extrinsics": [float("inf"), 0, 0, 0, 0, 0, 1]},
            "cloud_extrinsics: expected x y z and a unit",
        ),
        ({"cloud_extrinsics": ["a"] * 7}, "cloud_extrinsics: expected tuple"),
        ({"policy_dirs": [1.0]}, "policy_dirs: expected tuple"),
        ({"policy_dirs": "/opt"}, "policy_dirs: expected tuple"),
        ({"policy_sha256": ["abc"]}, "policy_sha256: expected 64 hexadecimal digits, got 'abc'"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(values, message):
    with pytest.raises(SettingsError, match=message):
        settings_from(values)


def test_whole_numbers_pass_for_floats():
    assert settings_from({"rate_hz": 50, "cloud_extrinsics": [0, 0, 0, 0, 0, 0, 1]}).rate_hz == 50.0


def test_timeouts_grow_with_the_control_period_unless_they_are_given(bundles):
    fast, slow = bundles.contract(), replace(bundles.contract(), control_dt_s=0.2)
    settings = RunnerSettings()
    assert (settings.cloud_timeout(fast), settings.joint_state_timeout(fast)) == (0.25, 0.1)
    assert settings.cloud_timeout(slow) == settings.joint_state_timeout(slow) == pytest.approx(0.6)
    given = RunnerSettings(cloud_timeout_s=0.5, joint_state_timeout_s=0.05, rate_hz=100.0)
    assert (given.cloud_timeout(slow), given.joint_state_timeout(slow)) == (0.5, 0.05)
    assert given.control_dt_s(slow) == 0.01 and settings.control_dt_s(slow) == 0.2


def test_joint_limits_are_read_by_joint_also_where_names_have_dots():
    limits = user_limits_from(
        {"arm.pan.max_velocity": 1, "arm.pan.min_position": -0.5, "b.max_acceleration": 2.0}
    )
    assert limits == {
        "arm.pan": UserLimits(max_velocity=1.0, min_position=-0.5),
        "b": UserLimits(max_acceleration=2.0),
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"a.max_velocty": 1.0},
            "unknown parameter 'joint_limits.a.max_velocty'; did you mean 'max_velocity'",
        ),
        ({"max_velocity": 1.0}, "unknown parameter 'joint_limits.max_velocity'"),
        ({"a.max_velocity": "slow"}, "joint_limits.a.max_velocity: expected float, got 'slow'"),
        ({"a.max_velocity": float("inf")}, "joint_limits.a.max_velocity: must be finite, got inf"),
        ({"a.min_position": float("nan")}, "joint_limits.a.min_position: must be finite, got nan"),
    ],
)
def test_a_wrong_joint_limit_is_refused_by_name(values, message):
    with pytest.raises(SettingsError, match=message):
        user_limits_from(values)


def test_no_number_may_be_infinite_or_none():
    """Settings that are numbers are bounded, all of them."""
    numbers = [s for s in fields(RunnerSettings) if isinstance(s.default, int | float) and s.type != "bool"]
    assert len(numbers) > 10
    for setting in numbers:
        for value in (float("nan"), float("inf"), float("-inf")):
            with pytest.raises(SettingsError, match=f"^{setting.name}: "):
                settings_from({setting.name: value})


def test_the_network_has_half_a_control_period_unless_it_is_given_more(bundles):
    contract = bundles.contract()
    assert RunnerSettings(rate_hz=50.0).inference_budget(contract) == pytest.approx(0.01)
    assert RunnerSettings(inference_budget_s=0.3).inference_budget(contract) == 0.3


def test_a_home_position_is_read_by_joint():
    assert home_position_from({"arm.pan": 1, "b": -0.5}) == {"arm.pan": 1.0, "b": -0.5}
    for value in ("up", True, float("nan"), float("inf")):
        with pytest.raises(SettingsError, match=r"^home_position\.b: (expected float|must be finite), got"):
            home_position_from({"b": value})
