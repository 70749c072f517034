"""Fits recover the growth laws of computed values."""

import pytest

from bench.analysis.fit import exponents, quadratic, slope

LENGTHS = [16, 64, 256]


def law(constant, linear, square):
    return [constant + linear * n + square * n**2 for n in LENGTHS]


@pytest.mark.parametrize(
    "terms", [(0, 3, 0), (7e5, 3, 0), (0, 0, 2), (0, 2e5, 1024), (5e6, 2e5, 1024), (-5e5, 1.8e5, 0), (9, 0, 0)]
)
def test_a_law_is_recovered(terms):
    found = quadratic(LENGTHS, law(*terms))
    size = sum(abs(term) * 256**power for power, term in enumerate(terms))
    for power, (got, wanted) in enumerate(zip((found.constant, found.linear, found.quadratic), terms, strict=True)):
        assert got * 256**power == pytest.approx(wanted * 256**power, abs=1e-6 * size)
    if terms[2] == 0:
        assert found.quadratic == 0  # exactly, without a rounding error


def test_growth_coefficients_are_not_negative():
    found = quadratic(LENGTHS, [n**0.5 for n in LENGTHS])
    assert found.quadratic == 0
    assert found.linear > 0
    falling = quadratic(LENGTHS, [5.0, 4.0, 3.0])
    assert (falling.linear, falling.quadratic) == (0, 0)


def test_more_points_than_terms_and_noise():
    lengths = [8, 16, 32, 64, 128, 256]
    noise = [1.01, 0.99, 1.01, 0.99, 1.01, 0.99]
    found = quadratic(lengths, [e * (100 * n + n * n) for e, n in zip(noise, lengths, strict=True)])
    assert found.quadratic_fraction(256) == pytest.approx(256 / 356, abs=0.05)


def test_steps_of_chunks_are_not_quadratic_and_have_a_bend():
    steps = [2464 * n + 4096 * ((n - 1) // 64) for n in LENGTHS]
    found = quadratic(LENGTHS, steps)
    assert found.quadratic == 0
    assert 0.005 < found.bend < 0.04
    assert quadratic(LENGTHS, law(0, 100, 1)).bend > 0.1


def test_the_quadratic_fraction_is_of_the_fitted_value():
    found = quadratic(LENGTHS, law(0, 64, 1))
    assert [found.quadratic_fraction(n) for n in LENGTHS] == pytest.approx([16 / 80, 0.5, 256 / 320])
    assert found.at(64) == pytest.approx(64 * 64 + 64 * 64)


def test_exponents_and_slope():
    assert exponents(LENGTHS, [n**1.5 for n in LENGTHS]) == pytest.approx([1.5, 1.5])
    assert exponents(LENGTHS, [1, 4, 64]) == pytest.approx([1, 2])
    assert slope(LENGTHS, [3 * n**2 for n in LENGTHS]) == pytest.approx(2)


def test_too_few_points_and_zeros():
    assert quadratic([16, 64], [1, 2]) is None
    assert slope([16], [3]) is None
    assert exponents(LENGTHS, [0, 0, 5]) == [None, None]
    assert slope(LENGTHS, [0, 0, 5]) is None
    zeros = quadratic(LENGTHS, [0, 0, 0])
    assert (zeros.constant, zeros.linear, zeros.quadratic, zeros.quadratic_fraction(64)) == (0, 0, 0, 0)
