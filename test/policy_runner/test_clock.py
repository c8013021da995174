"""Ages are judged by a clock that goes on in suspend and that nobody sets."""

from __future__ import annotations

import subprocess
import sys
import time

from policy_runner.clock import now_s


def test_it_goes_forward_at_the_pace_of_the_monotonic_clock():
    before, began = now_s(), time.monotonic()
    while time.monotonic() - began < 0.05:
        assert now_s() >= before
    assert now_s() - before >= 0.05


def test_it_counts_suspend():
    early = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert early <= now_s() <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_without_such_a_clock_it_is_the_monotonic_one():
    code = (
        "import time; vars(time).pop('CLOCK_BOOTTIME', None); from policy_runner.clock import now_s; "
        "a = time.monotonic(); b = now_s(); print(a <= b <= time.monotonic())"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "True"
