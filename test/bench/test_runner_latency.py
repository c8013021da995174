"""How late commands are and how many are missing, told from a stream that is known."""

from __future__ import annotations

import numpy as np
import pytest

from bench.runner_latency import lateness_ms, row
from bench.runner_process import RATE_HZ

PERIOD_NS = round(1e9 / RATE_HZ)


@pytest.mark.parametrize("phase_ns", [0, 3_000_000, 12_345_678, PERIOD_NS - 1])
def test_lateness_is_counted_from_the_beginning_of_each_period_wherever_that_is(phase_ns):
    late_ns = np.random.default_rng(1).integers(0, 8_000_000, 500)
    late_ns[7] = 0
    times_ns = 1_790_000_000_000_000_000 + phase_ns + PERIOD_NS * np.arange(500) + late_ns
    np.testing.assert_allclose(lateness_ms(times_ns.tolist()), late_ns * 1e-6, atol=1e-3)


def test_missed_ticks_are_those_that_the_runner_did_not_publish_rather_than_those_that_were_lost_on_the_way():
    numbers = [n for n in range(100) if n not in (40, 41)]  # lost on the way
    slots = [n if n < 50 else n + 3 for n in numbers]  # three ticks were not there
    start_ns = 1_790_000_000_000_000_000
    commands = [
        (number, start_ns + slot * PERIOD_NS, start_ns + slot * PERIOD_NS - 30_000_000 if number % 2 else 0)
        for number, slot in zip(numbers, slots, strict=True)
    ]
    said = [{"tick_p50_ms": "1.0", "tick_p99_ms": "2.0", "tick_max_ms": "3.0"}] * 3
    found = row(10, 15.0, {"commands": commands, "diagnostics": said}, 0.0)
    assert (found["ticks"], found["missed"], found["holding"]) == (103, 3, 49)
    assert found["age_p50"] == found["age_max"] == pytest.approx(30.0, abs=1e-3)
    assert (found["tick_p50"], found["tick_p99"], found["tick_max"]) == (1.0, 2.0, 3.0)
