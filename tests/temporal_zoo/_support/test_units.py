"""Numbers and sizes as short texts."""

import pytest

from temporal_zoo._support.units import number, size


@pytest.mark.parametrize(
    ("value", "shown"), [(0, "0"), (0.012345, "0.0123"), (1.5, "1.50"), (99.95, "100"), (1234.5, "1,234")]
)
def test_numbers_have_three_significant_digits_without_exponents(value, shown):
    assert number(value) == shown


def test_sizes_are_in_binary_units():
    assert [size(n) for n in (0, 512, 1536, -3 * 2**20, 2.5 * 2**30)] == [
        "0 B", "512 B", "1.50 KiB", "-3.00 MiB", "2.50 GiB"
    ]  # fmt: skip
