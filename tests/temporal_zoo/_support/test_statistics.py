"""Student's t against printed tables."""

import pytest

from temporal_zoo._support.statistics import half_width_95, student_975


def test_quantiles():
    for freedom, quantile in ((1, 12.7062), (2, 4.3027), (4, 2.7764), (29, 2.0452)):
        assert student_975(freedom) == pytest.approx(quantile, abs=2e-3)


def test_the_interval_of_a_mean():
    # Of 1, 2, 3 the deviation is 1, and the mean's is 1 / sqrt(3).
    assert half_width_95([1.0, 2.0, 3.0]) == pytest.approx(4.3027 / 3**0.5, abs=1e-3)
