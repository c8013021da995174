"""A loop that was away is told from one that is late, and tick times are those of the last seconds."""

from __future__ import annotations

import numpy as np
import pytest

from policy_runner.loop_watch import WINDOW_S, LoopWatch

DT = 0.02


def watch():
    return LoopWatch(period_s=DT, stall_s=0.1)


def test_the_first_tick_is_no_stall_and_neither_is_one_after_a_rest():
    loop = watch()
    assert not loop.begin(100.0)
    loop.end(100.001)
    loop.rest()
    assert not loop.begin(5000.0) and loop.stalls == 0


def test_ticks_that_are_late_are_no_stall_but_a_gap_is_and_only_once():
    loop = watch()
    now_s = 0.0
    for gap_s in (0.02, 0.05, 0.1, 2.0, 0.02, 0.02):
        now_s += gap_s
        assert loop.begin(now_s) == (gap_s > 0.1)
        loop.end(now_s)
    assert loop.stalls == 1 and loop.ticks == 6


def test_ticks_longer_than_the_period_and_ticks_known_to_be_late_miss_their_deadline():
    loop = watch()
    for duration_s, in_time, in_a_row in (
        (0.021, True, 1),
        (0.001, False, 2),
        (0.03, False, 3),
        (0.02, True, 0),
    ):
        loop.begin(1.0)
        loop.end(1.0 + duration_s - 1e-12, in_time=in_time)
        assert loop.misses_in_a_row == in_a_row
    assert loop.deadline_misses == 3 and loop.ticks == 4


def test_tick_times_are_the_quantiles_of_the_last_seconds():
    loop = watch()
    assert loop.tick_times() is None
    count = round(WINDOW_S / DT)
    rng = np.random.default_rng(0)
    durations = rng.permutation(np.r_[np.full(100, 0.9), np.arange(1, count + 1) * 1e-5])
    durations = np.r_[durations[durations == 0.9], durations[durations < 0.9]]  # the long ones are long ago
    for index, duration in enumerate(durations):
        loop.begin(float(index))
        loop.end(float(index) + float(duration))
    times = loop.tick_times()
    assert (times.p50, times.p99, times.max) == pytest.approx((251e-5, 496e-5, 500e-5), abs=1e-5)
