"""Quantiles agree with printed tables; means and ratios have the intervals of their definitions."""

import math

import numpy as np
import pytest

from temporal_zoo._support.statistics import (
    Interval,
    bootstrap_geometric_mean,
    geometric_mean,
    half_width_95,
    paired_ratio,
    ratio,
    t_quantile_975,
)


def test_quantiles():
    for degrees_of_freedom, quantile in ((1, 12.7062), (2, 4.3027), (4, 2.7764), (29, 2.0452)):
        assert t_quantile_975(degrees_of_freedom) == pytest.approx(quantile, abs=2e-3)


def test_the_interval_of_a_mean():
    # The standard deviation of 1, 2, 3 is 1, and that of their mean is 1 / sqrt(3).
    assert half_width_95([1.0, 2.0, 3.0]) == pytest.approx(4.3027 / 3**0.5, abs=1e-3)


def test_a_geometric_mean_has_the_interval_of_its_logarithms():
    mean = geometric_mean([math.exp(each) for each in (1.0, 2.0, 3.0)])
    assert mean.value == pytest.approx(math.exp(2))
    assert math.log(mean.high / mean.value) == pytest.approx(4.3027 / 3**0.5, abs=1e-3)
    assert mean.value / mean.low == pytest.approx(mean.high / mean.value)


def test_the_bootstrap_agrees_with_the_t_interval_of_many_values():
    values = np.exp(np.random.default_rng(1).normal(0.1, 0.2, 500))
    by_t, by_bootstrap = geometric_mean(values), bootstrap_geometric_mean(values)
    assert by_bootstrap.value == pytest.approx(by_t.value)
    assert (by_bootstrap.low, by_bootstrap.high) == pytest.approx((by_t.low, by_t.high), abs=2e-3)
    assert bootstrap_geometric_mean([2.0]) == Interval(2.0, 2.0, 2.0)


def test_errors_of_a_ratio_add_up_as_squares():
    found = ratio(Interval(4.0, 4.0 / 1.03, 4.0 * 1.06), Interval(2.0, 2.0 / 1.08, 2.0 * 1.04))
    assert found.value == 2
    assert math.log(found.value / found.low) == pytest.approx(math.hypot(math.log(1.03), math.log(1.04)))
    assert math.log(found.high / found.value) == pytest.approx(math.hypot(math.log(1.06), math.log(1.08)))
    assert not found.contains(1)
    exact = ratio(Interval(3.0, 3.0, 3.0), Interval(3.0, 3.0, 3.0))
    assert exact == Interval(1, 1, 1)
    assert exact.contains(1)


def test_paired_values_have_a_ratio_for_each_pair():
    assert paired_ratio([2.0, 9.0, 8.0], [1.0, 3.0, 2.0]) == Interval(3, 2, 4)
    assert paired_ratio([6.0], [1.0, 2.0, 3.0]) == Interval(3, 2, 6)
    assert str(Interval(1.5, 1.25, 2)) == "1.500 (1.250 to 2.000)"
