"""Times of one and of several processes, with their intervals."""

import pytest

from bench.sweep.outcome import Times


def test_a_wide_spread_is_marked():
    assert not Times(9.2, 10, 11, 5, 2, True).wide
    assert Times(7, 10, 11, 5, 2, True).wide


def test_several_processes_have_the_interval_of_their_medians():
    rounds = (8, 10, 12)
    parts = [Times(8 * k, 10 * k, 12 * k, 3, 2, True, 20 * k, tuple(k * ms for ms in rounds)) for k in (1, 1.1, 1.21)]
    found = Times.combine(parts)
    assert found.p50 == pytest.approx(11)
    assert found.medians == pytest.approx((10, 11, 12.1))
    # The standard deviation of the logarithms is log(1.1); 4.3027 is the t quantile for three values.
    assert found.margin == pytest.approx(1.1 ** (4.3027 / 3**0.5) - 1, rel=1e-3)
    limits = (11 / (1 + found.margin), 11 * (1 + found.margin))
    assert (found.interval.low, found.interval.high) == pytest.approx(limits)
    assert (found.rounds, found.warmups, found.processor) == (9, 6, pytest.approx(20 * 3.31 / 3))
    assert len(found.each) == 9
    assert Times.combine(parts[:1]) is parts[0]
