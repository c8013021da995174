"""How much a handful of runs tells: means with confidence intervals, and the interquartile mean.

Pure functions of one number per run. Agarwal, Schwarzer, Castro, Courville and Bellemare, "Deep Reinforcement Learning
at the Edge of the Statistical Precipice", NeurIPS 2021 (arXiv 2108.13264).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BOOTSTRAP_SAMPLES = 2000


class Interval(NamedTuple):
    """An estimate and its 95 % confidence interval; NaN bounds where there is too little to tell."""

    estimate: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the width of the interval."""
        return 0.5 * (self.high - self.low)


def mean_ci95(values: Sequence[float] | NDArray[np.float64]) -> Interval:
    """Return the mean of independent values and its interval by Student's t, which one value does not have.

    Raises ValueError without any value.
    """
    sample = _sample(values)
    mean = float(sample.mean())
    if len(sample) < 2:
        return Interval(mean, math.nan, math.nan)
    half = student_t_quantile(len(sample) - 1) * float(sample.std(ddof=1)) / math.sqrt(len(sample))
    return Interval(mean, mean - half, mean + half)


def interquartile_mean(values: Sequence[float] | NDArray[np.float64]) -> float:
    """Return the mean without the lowest and the highest quarter, each rounded down; of less than 4 values, the mean.

    Raises ValueError without any value.
    """
    sample = np.sort(_sample(values))
    cut = len(sample) // 4
    return float(sample[cut : len(sample) - cut].mean())


def interquartile_mean_ci95(
    strata: Sequence[Sequence[float]], *, samples: int = BOOTSTRAP_SAMPLES, seed: int = 0
) -> Interval:
    """Return the interquartile mean of all values and its interval by the stratified percentile bootstrap.

    strata: the runs of each task; runs are drawn again within their task, so that each keeps its weight.
    Raises ValueError where a task has no run.
    """
    groups = [_sample(group) for group in strata]
    estimate = interquartile_mean(np.concatenate(groups))
    if min(len(group) for group in groups) < 2:
        return Interval(estimate, math.nan, math.nan)
    random = np.random.default_rng(seed)
    drawn = np.concatenate([random.choice(group, (samples, len(group))) for group in groups], axis=1)
    cut = drawn.shape[1] // 4
    means = np.sort(drawn, axis=1)[:, cut : drawn.shape[1] - cut].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(estimate, float(low), float(high))


def student_t_quantile(freedom: int, confidence: float = 0.95) -> float:
    """Return t with P(|T| < t) = confidence, for T of Student's distribution with `freedom` degrees of freedom.

    Bisection on the closed form of that probability for whole degrees of freedom.
    """
    low, high = 0.0, 0.5 * math.pi
    for _ in range(60):  # halves the angle's bracket down to round-off
        angle = 0.5 * (low + high)
        low, high = (angle, high) if _student_t_within(angle, freedom) < confidence else (low, angle)
    return math.sqrt(freedom) * math.tan(0.5 * (low + high))


def _student_t_within(angle: float, freedom: int) -> float:
    """P(|T| < sqrt(freedom) tan(angle)). Abramowitz and Stegun 1964, 26.7.3 and 26.7.4."""
    odd = freedom % 2
    cos, term, series = math.cos(angle), 1.0, 0.0
    for k in range(freedom // 2):
        series += term
        term *= cos**2 * (2 * k + 1 + odd) / (2 * k + 2 + odd)
    if not odd:
        return math.sin(angle) * series
    return (angle + math.sin(angle) * cos * series) * 2.0 / math.pi


def _sample(values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    sample = np.asarray(values, np.float64).ravel()
    if not len(sample):
        raise ValueError("expected at least one value, got none")
    return sample
