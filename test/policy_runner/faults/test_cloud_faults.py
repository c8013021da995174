"""Rows 1 to 10 of docs/faults.md: what can be wrong with clouds."""

from __future__ import annotations

import numpy as np
from injection import TIMEOUT_S


def test_clouds_that_stop_are_not_used_for_longer_than_the_timeout(faults):
    with faults.holds("cloud_stale", timeout_s=TIMEOUT_S):
        faults.robot.cloud_on = False


def test_clouds_of_nothing_but_nan_infinity_and_huge_values_are_dropped(faults):
    with faults.holds("cloud_stale", drops=["cloud_too_few_points"], timeout_s=TIMEOUT_S):
        faults.robot.cloud = np.resize([np.nan, np.inf, -np.inf, 1e30, -1e30], (40, 3))
