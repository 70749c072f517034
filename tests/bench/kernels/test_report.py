"""Ratios of turns."""

from bench.kernels import report


def test_ratios_pair_the_turns_of_each_round():
    ratio = report.paired_ratio([2.0, 6.0, 9.0], [1.0, 2.0, 3.0, 4.0])
    assert (ratio.value, ratio.low, ratio.high) == (3.0, 2.0, 3.0)
    assert report._text(report.paired_ratio([8.0], [1.0, 2.0, 4.0]), 1) == "4.00x (2.00 to 8.00) *"
