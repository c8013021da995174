"""What a hold does is what the stop mode says, and nobody goes home who may not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from policy_runner.limiter import LimitError, make_limiter, tightest_limits
from policy_runner.settings import STOP_MODES, SettingsError
from policy_runner.stopping import HOME_AUTHORITY, Stopping

START = np.array([0.3, 0.2, 1.0])


def moving(bundles, stop_mode, *, home=None, **changes):
    """A limiter at top speed, and what stops it."""
    contract = bundles.contract()
    contract = replace(contract, action=replace(contract.action, **changes))
    limits = tightest_limits(contract.action, {})
    limiter = make_limiter(contract.action, limits, control_dt_s=contract.control_dt_s, stop_time_s=0.2)
    stopping = Stopping(stop_mode, limiter, limits, contract, home or {})
    limiter.start(START)
    position = START
    for _ in range(8):
        position = limiter.follow(np.ones(3), position, 1.0).copy()
    assert not limiter.at_rest
    return stopping, limiter, position, contract


@pytest.mark.parametrize("mode", STOP_MODES)
def test_without_leave_to_move_every_mode_comes_to_rest_and_stays_there(bundles, mode):
    stopping, limiter, position, _ = moving(bundles, mode)
    commands = [stopping.command(may_go_home=False) for _ in range(60)]
    assert limiter.at_rest and not stopping.homing
    if mode == "publish_nothing":
        assert commands == [None] * 60
        return
    path = np.array([position, *(command.copy() for command in commands)])
    if mode == "hold_now":
        np.testing.assert_array_equal(path, np.tile(position, (61, 1)))
    else:
        steps = np.abs(np.diff(path, axis=0))
        assert (steps[0] > 0.0).all() and (np.diff(steps, axis=0) <= 1e-12).all() and not steps[-1].any()


def test_home_is_reached_slowly_after_coming_to_rest_and_kept(bundles):
    home = {"pin_x": 0.8, "pin_yaw": -1.0}  # pin_y goes to its start pose, 0.3
    stopping, limiter, position, contract = moving(bundles, "return_home", home=home)
    path, homing = [position], []
    for _ in range(1200):
        path.append(stopping.command(may_go_home=True).copy())
        homing.append(stopping.homing)
    np.testing.assert_allclose(path[-1], [0.8, 0.3, -1.0], atol=1e-12)
    assert limiter.at_rest
    first = homing.index(True)
    assert all(homing[first:]) and first >= 11  # a brake from top speed takes 0.2 s, which is 12 steps
    speed = np.abs(np.diff(path, axis=0)) / contract.control_dt_s
    assert not speed[first - 1].any()  # it stood still in between
    assert (speed[first:] <= HOME_AUTHORITY * np.array(contract.action.max_velocity) * (1 + 1e-9)).all()


def test_who_may_no_longer_go_home_comes_to_rest_on_the_way(bundles):
    stopping, limiter, _, _ = moving(bundles, "return_home", home={"pin_x": 0.8})
    for _ in range(60):
        before = stopping.command(may_go_home=True).copy()
    assert stopping.homing and not limiter.at_rest
    for _ in range(30):
        after = stopping.command(may_go_home=False).copy()
    assert limiter.at_rest and not stopping.homing
    assert 0.0 < after[0] - before[0] < 0.05 and after[0] < 0.7


@pytest.mark.parametrize(
    ("home", "message"),
    [
        ({"pin_x": 0.95}, r"home_position.pin_x: must be in \[0.1, 0.9\], got 0.95"),
        ({"elbow": 0.0}, r"home_position.elbow: no such joint; the policy commands \['pin_x'"),
        ({"pin_y": float("nan")}, "home_position.pin_y: must be in"),
    ],
)
def test_a_home_that_cannot_be_is_refused_by_joint(bundles, home, message):
    with pytest.raises(LimitError, match=message):
        moving(bundles, "return_home", home=home)


@pytest.mark.parametrize("action_mode", ["velocity", "effort"])
def test_only_position_commands_lead_home(bundles, action_mode):
    with pytest.raises(
        SettingsError, match=f"stop_mode: return_home needs position.* mode is '{action_mode}'"
    ):
        moving(bundles, "return_home", mode=action_mode)
