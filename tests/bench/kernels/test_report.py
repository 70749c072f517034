"""Ratios of turns."""

from bench.kernels import report


def test_ratios_pair_the_turns_of_each_round():
    assert report._text([2.0, 6.0, 9.0], [1.0, 2.0, 3.0, 4.0]) == "3.00x (2.00 to 3.00)"
    assert report._text([8.0], [1.0, 2.0, 4.0]) == "4.00x (2.00 to 8.00) *"
