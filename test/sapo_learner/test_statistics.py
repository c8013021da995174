import math

import numpy as np
import pytest

from sapo_learner.statistics import (
    interquartile_mean,
    interquartile_mean_ci95,
    mean_ci95,
    student_t_quantile,
)


@pytest.mark.parametrize(
    ("freedom", "quantile"),  # from printed tables, two-sided 95 %
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (10, 2.228), (30, 2.042), (120, 1.980)],
)
def test_quantiles_of_student_t_are_those_of_printed_tables(freedom, quantile):
    assert student_t_quantile(freedom) == pytest.approx(quantile, abs=5.1e-4)


def test_quantiles_of_one_and_two_degrees_of_freedom_have_closed_forms():
    for p in (0.5, 0.9, 0.99):
        assert student_t_quantile(1, p) == pytest.approx(math.tan(math.pi * p / 2), rel=1e-9)
        assert student_t_quantile(2, p) == pytest.approx(p * math.sqrt(2 / (1 - p**2)), rel=1e-9)


def test_the_mean_of_three_runs_has_the_interval_that_one_computes_by_hand():
    mean, low, high = mean_ci95([1.0, 2.0, 6.0])
    half = 4.302653 * math.sqrt(7.0) / math.sqrt(3.0)  # squares of deviations: 4 + 1 + 9, over 2
    assert (mean, low, high) == pytest.approx((3.0, 3.0 - half, 3.0 + half))
    assert mean_ci95([1.0, 2.0, 6.0]).half_width == pytest.approx(half)


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    random = np.random.default_rng(0)
    covered = [low <= 5.0 <= high for _, low, high in map(mean_ci95, random.normal(5.0, 2.0, (4000, 3)))]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)  # three and a half standard errors


def test_one_run_has_a_mean_but_no_interval():
    interval = mean_ci95([3.0])
    assert interval.estimate == 3.0 and math.isnan(interval.low) and math.isnan(interval.half_width)


def test_the_interquartile_mean_leaves_out_the_lowest_and_the_highest_quarter():
    assert interquartile_mean([-1000.0, 2.0, 1000.0, 4.0]) == 3.0
    assert interquartile_mean([9, 1, 2, 3, 4, 5, 6, 7, 8, 1000]) == pytest.approx(
        5.5
    )  # 3..8: two off each end
    assert interquartile_mean([1.0, 2.0, 6.0]) == 3.0


def test_the_bootstrap_draws_runs_within_their_task():
    """Runs that agree within each task leave nothing to chance, however far apart the tasks are."""
    assert interquartile_mean_ci95([[1.0, 1.0], [5.0, 5.0]]) == (3.0, 3.0, 3.0)
    estimate, low, high = interquartile_mean_ci95([[1.0, 2.0, 3.0, 4.0], [3.0, 5.0, 6.0, 8.0]])
    assert estimate == pytest.approx((3 + 3 + 4 + 5) / 4)
    assert low < estimate < high
    assert interquartile_mean_ci95([[1.0, 2.0], [3.0, 5.0]]) == interquartile_mean_ci95(
        [[1.0, 2.0], [3.0, 5.0]]
    )


def test_the_bootstrap_of_the_mean_of_two_values_is_the_distribution_of_two_coins():
    """Under 4 values the interquartile mean is the mean; of 0 and 1 it is 0, 1/2 or 1, at 1/4, 1/2 and 1/4."""
    assert interquartile_mean_ci95([[0.0, 1.0]]) == (0.5, 0.0, 1.0)


def test_one_run_of_a_task_leaves_the_interval_open():
    estimate, low, high = interquartile_mean_ci95([[1.0, 2.0], [3.0]])
    assert estimate == 2.0 and math.isnan(low) and math.isnan(high)


@pytest.mark.parametrize("function", [mean_ci95, interquartile_mean, lambda v: interquartile_mean_ci95([v])])
def test_no_runs_are_an_error(function):
    with pytest.raises(ValueError, match="at least one value"):
        function([])
