"""Curves of results by number of frames."""

import pytest

from bench.analysis.curves import TIME, panels


def test_time_is_per_row_if_rows_vary_with_frames(results_of, timed):
    (panel,) = panels(results_of({"bimamba": lambda n: timed(1024.0)}, total=4096))
    (curve,) = panel.curves
    assert curve.points(TIME) == {n: 1024 * n / 4096 for n in (16, 64, 256, 1024)}
    assert curve.slope(TIME) == pytest.approx(1)
    assert curve.slope_error(TIME) == pytest.approx(0.02 / (5**0.5 * 2 * 0.6931), rel=1e-3)
    assert panel.title(TIME).endswith("(ms per row)")
