"""Means and ratios with intervals: the one answer to the question whether two numbers differ.

Times are positive and their errors are relative, so that means and intervals are those of logarithms.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

_RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A value and the limits of its interval."""

    value: float
    low: float
    high: float

    def contains(self, number: float) -> bool:
        """Whether a number lies within the limits; a ratio that contains 1 shows no difference."""
        return self.low <= number <= self.high

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def half_width_95(values: Sequence[float]) -> float:
    """Half-width of the 95 % interval (Student's t) of the mean of two or more independent values."""
    return t_quantile_975(len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))


def geometric_mean(values: Sequence[float]) -> Interval:
    """Geometric mean of two or more independent values, with its 95 % interval (Student's t over logarithms)."""
    logs = [math.log(value) for value in values]
    mean, half_width = statistics.fmean(logs), half_width_95(logs)
    return Interval(math.exp(mean), math.exp(mean - half_width), math.exp(mean + half_width))


def bootstrap_geometric_mean(values: Sequence[float]) -> Interval:
    """Geometric mean of one or more values, with the 95 % interval of a percentile bootstrap.

    For many values that are not normal in their logarithms, such as the ratios of different cases.
    """
    logs = np.log(values)
    means = np.random.default_rng(0).choice(logs, (_RESAMPLES, len(logs))).mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(math.exp(logs.mean()), math.exp(low), math.exp(high))


def ratio(value: Interval, base: Interval) -> Interval:
    """`value` / `base`, two positive numbers with independent errors: squares of relative errors add up.

    log(r / r_low)  = sqrt(log(v / v_low)^2  + log(b_high / b)^2)
    log(r_high / r) = sqrt(log(v_high / v)^2 + log(b / b_low)^2)
    """
    middle = value.value / base.value
    below = math.hypot(math.log(value.value / value.low), math.log(base.high / base.value))
    above = math.hypot(math.log(value.high / value.value), math.log(base.value / base.low))
    return Interval(middle, middle * math.exp(-below), middle * math.exp(above))


def paired_ratio(values: Sequence[float], base: Sequence[float]) -> Interval:
    """Median, smallest and largest of the ratios of values that were measured in pairs.

    A single value is paired with every value of the base; of two longer sequences the shorter one ends the pairs.
    """
    values = list(values) * (len(base) if len(values) == 1 else 1)
    ratios = [value / below for value, below in zip(values, base, strict=False)]
    return Interval(statistics.median(ratios), min(ratios), max(ratios))


@cache
def t_quantile_975(degrees_of_freedom: int) -> float:
    """The 97.5 % quantile of Student's t distribution, by numerical integration.

    With t = sqrt(f) tan(a) and f degrees of freedom, the density of the angle a is proportional to cos(a)^(f - 1).
    """
    angle, width = np.linspace(-math.pi / 2, math.pi / 2, 200_000, endpoint=False, retstep=True)
    mass = np.cumsum(np.cos(angle + width / 2) ** (degrees_of_freedom - 1))
    quantile = np.interp(0.975 * mass[-1], mass, angle + width)
    return math.sqrt(degrees_of_freedom) * math.tan(float(quantile))
