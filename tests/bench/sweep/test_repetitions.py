"""Repetitions of cases show changes of the machine's speed."""

import pytest

from bench.sweep.outcome import Outcome, Times
from bench.sweep.repetitions import drift


def test_drift_is_the_common_change_of_all_cases():
    def outcome(*medians):
        return Outcome("ok", time_ms=Times.combine([Times(ms, ms, ms, 5, 2, True) for ms in medians]))

    assert drift([outcome(1, 2), outcome(10, 20), outcome(7)]) == pytest.approx([0.5**0.5, 2**0.5])
    assert drift([outcome(3), Outcome("failed", "no")]) == []
