import math

import pytest

from rewarped_sim.nodes.command_watchdog import CommandWatchdog

DT = 1.0 / 60.0


def steps_until_timeout(watchdog, most=1000):
    return next((number for number in range(most) if watchdog.step()), None)


@pytest.mark.parametrize(
    ("timeout_s", "dt_s", "steps"),
    [(0.5, DT, 30), (0.1, 0.02, 5), (0.3, 0.1, 3), (0.05, DT, 3), (0.06, DT, 4), (0.001, DT, 1)],
)
def test_a_command_is_followed_for_the_timeout_and_not_a_step_longer(timeout_s, dt_s, steps):
    watchdog = CommandWatchdog(timeout_s=timeout_s, control_dt_s=dt_s)
    watchdog.heard()
    assert steps_until_timeout(watchdog) == steps
    assert watchdog.timeouts == 1


def test_the_timeout_of_a_trajectory_counts_from_its_end():
    watchdog = CommandWatchdog(timeout_s=0.1, control_dt_s=0.02)
    watchdog.heard(lasts_s=0.2)
    assert steps_until_timeout(watchdog) == 15


def test_commands_in_time_are_followed_for_ever():
    watchdog = CommandWatchdog(timeout_s=0.05, control_dt_s=DT)
    for _ in range(100):
        watchdog.heard()
        assert [watchdog.step() for _ in range(3)] == [False] * 3
    assert watchdog.timeouts == 0


def test_a_silence_counts_once_and_the_next_one_again():
    watchdog = CommandWatchdog(timeout_s=0.05, control_dt_s=DT)
    for silences in (1, 2):
        watchdog.heard()
        assert steps_until_timeout(watchdog) == 3
        assert steps_until_timeout(watchdog) is None
        assert watchdog.timeouts == silences


def test_without_a_command_or_a_timeout_nothing_becomes_too_old():
    never_commanded = CommandWatchdog(timeout_s=0.05, control_dt_s=DT)
    assert steps_until_timeout(never_commanded) is None
    off = CommandWatchdog(timeout_s=0.0, control_dt_s=DT)
    off.heard()
    assert steps_until_timeout(off) is None
    endless = CommandWatchdog(timeout_s=math.inf, control_dt_s=DT)
    endless.heard(lasts_s=1.0)
    assert steps_until_timeout(endless) is None
    rested = CommandWatchdog(timeout_s=0.05, control_dt_s=DT)
    rested.heard()
    rested.rest()
    assert steps_until_timeout(rested) is None
